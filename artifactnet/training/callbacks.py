"""Progress of a run for people: a line per epoch, a progress bar, and pictures of the maps."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, RichProgressBar
from PIL import Image

from artifactnet.data.sources.base import Source
from artifactnet.data.transforms import Example, Preprocess
from artifactnet.explanation import overlay
from artifactnet.files import atomic_path
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.models.heads.segmentation import any_artifact
from artifactnet.models.state import evaluating
from artifactnet.training.checkpoints import BestModel, epochs_completed
from artifactnet.training.module import DetectorModule
from artifactnet.types import Annotation, ArtifactNetError, Float32Array, Record, UInt8Array

_PICTURE_SIDE = 160  # pixels; smaller images are enlarged to it for people
_TRUTH = {
    Annotation.NONE: "not annotated",
    Annotation.CLEAN: "no artifact",
    Annotation.MASK: "annotated artifacts",
}


class PlainLines(Callback):
    """One line per epoch with the loss parts and the validation figures that ``best`` holds."""

    def __init__(self, best: BestModel) -> None:
        self.best = best
        self._since = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._since = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the line; validation of the epoch is over by now."""
        if not trainer.is_global_zero:
            return
        prefix, suffix = "train/", "_epoch"
        parts = {
            name.removeprefix(prefix).removesuffix(suffix): float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith(prefix) and name.endswith(suffix)
        }
        line = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  train {_words(parts)}"
        if self.best.step == trainer.global_step:
            line += f"  |  val {_words(self.best.latest)}"
        print(f"{line}  |  {time.perf_counter() - self._since:.1f} s", flush=True)


class Bar(RichProgressBar):
    """Rich's progress bar with the loss parts of the current step."""

    def get_metrics(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Loss parts under their short names; epoch means have a line of their own."""
        shown = super().get_metrics(trainer, pl_module)
        return {
            name.removeprefix("train/").removesuffix("_step"): value
            for name, value in shown.items()
            if name.startswith("train/") and name.endswith("_step")
        }


def _words(figures: dict[str, float]) -> str:
    return " ".join(f"{name} {value:.4f}" for name, value in figures.items())


class Pictures(Callback):
    """Writes a grid (image, ground truth, heatmap, overlay) of fixed validation images.

    Like `BestModel` it must come before a weight-averaging callback.

    Args:
        folder: where ``epoch_XXX.png`` goes.
        source: the validation images.
        preprocess: the model's own preprocessing.
        count: images shown.
        every: epochs between pictures; the final weights always get one.
        skip: leave out an image that cannot be used (validation lists it) instead of raising.
    """

    def __init__(
        self,
        folder: Path,
        source: Source,
        preprocess: Preprocess,
        count: int,
        every: int,
        skip: bool = False,
    ) -> None:
        self.folder = folder
        self.every = every
        self.last = 0  # epochs completed when the last picture was made
        self.examples: list[Example] = []
        for index in choose(source.records, count):
            try:
                self.examples.append(preprocess.sample(source.load(index)))
            except ArtifactNetError:
                if not skip:
                    raise

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write a picture if one is due."""
        assert isinstance(pl_module, DetectorModule)
        epoch = epochs_completed(trainer)
        # a validation outside fit is that of the final weights of a run cut short
        final = epoch == trainer.max_epochs or trainer.state.fn != "fit"
        due = final or epoch - self.last >= self.every
        if trainer.is_global_zero and due and self.examples:
            write_picture(pl_module.model, self.examples, self.folder / f"epoch_{epoch:03d}.png")
        self.last = epoch if due else self.last

    def state_dict(self) -> dict[str, Any]:
        """Plain values for the checkpoint."""
        return {"last": self.last}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.last = state_dict["last"]


def choose(records: Sequence[Record], count: int) -> list[int]:
    """Indices of up to ``count`` images to show: fakes first, annotated ones before others.

    One place of three or more is kept for a real image, since an aligned map must be empty
    there. Choices are spread evenly over the records.
    """
    fakes = [i for i, r in enumerate(records) if r.label == 1 and r.annotation == Annotation.MASK]
    fakes = fakes or [i for i, record in enumerate(records) if record.label == 1]
    reals = [i for i, record in enumerate(records) if record.label == 0]
    kept = min(len(reals), 1 if count >= 3 else 0)
    first = _spread(fakes, count - kept)
    return first + _spread(reals, count - len(first))


def _spread(items: list[int], count: int) -> list[int]:
    count = min(count, len(items))
    return [items[position * len(items) // count] for position in range(count)]


def write_picture(model: ArtifactNet, examples: Sequence[Example], path: Path) -> None:
    """Write image | ground truth | heatmap | overlay for every example, one row each.

    Maps are drawn raw, from 0 (black) to 1 (white), never stretched per image. The model's
    train/eval state is left as it was.
    """
    device = next(model.parameters()).device
    images = torch.stack([example.image for example in examples]).to(device)
    with evaluating(model), torch.no_grad():
        output = model(
            images,
            attention=model.has_attention,
            segmentation=model.has_segmentation,
            heatmap=model.has_heatmap,
        )
    verdicts = output.logit.float().sigmoid().tolist()
    heatmap = output.heatmap
    if output.segmentation is not None:  # the probability of any artifact, as in `Prediction`
        heatmap = any_artifact(output.segmentation)
    assert heatmap is not None
    maps = heatmap.detach().float().cpu().numpy()
    rows, captions = [], []
    for example, verdict, raw in zip(examples, verdicts, maps, strict=True):
        row, texts = _row(model, example, verdict, raw)
        rows.append(row)
        captions.append(texts)
    with atomic_path(path) as temporary:
        Image.fromarray(overlay.grid(rows, captions)).save(temporary, format="PNG")


def _row(
    model: ArtifactNet, example: Example, probability: float, heatmap: Float32Array
) -> tuple[list[UInt8Array], list[str]]:
    mean, std = np.array(model.mean), np.array(model.std)
    pixels = example.image.permute(1, 2, 0).numpy() * std + mean
    image = np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
    factor = max(1, -(-_PICTURE_SIDE // min(image.shape[:2])))
    image = image.repeat(factor, axis=0).repeat(factor, axis=1)
    mask = example.mask.numpy().repeat(factor, axis=0).repeat(factor, axis=1)
    height, width = image.shape[:2]
    record = example.record
    texts = [
        f"{'fake' if record.label else 'real'}: {record.generator}",
        _TRUTH[record.annotation],
        f"heatmap 0..1, highest {heatmap.max():.2f}",
        f"P(fake) = {probability:.3f}",
    ]
    colors = overlay.colorize(overlay.resize_map(heatmap, height, width))
    row = [image, overlay.outline(image, mask, 2), colors, overlay.overlay(image, heatmap)]
    return row, texts
