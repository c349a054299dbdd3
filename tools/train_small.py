"""Train the packaged detector artifactnet-small.

    python tools/train_small.py DATA --out runs/small

DATA holds the folders migan_edits, free_edits and genreal (see the model's card). Every step keeps
what it made in --out, so the same command goes on after an interruption:

1. manifests of DATA and of the embedded data;
2. the detail stream (configs/artifactnet_small_detail.yaml), from student-nano;
3. what both streams see in each image, once augmented for training, as it is for validation;
4. the linear layers of the verdict, by class-balanced logistic regression.

Then `artifactnet calibrate` fits temperature and limits, and `artifactnet pack --share-backbone`
makes the packaged file.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from artifactnet import api
from artifactnet.config import Config, load
from artifactnet.data.converters.convert import convert_dataset
from artifactnet.data.datamodule import DataModule
from artifactnet.data.dataset import DetectionDataset, collate
from artifactnet.data.transforms import TrainTransform
from artifactnet.files import atomic_path
from artifactnet.inference.preprocessing import preprocess_of
from artifactnet.models import packaged
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.models.checkpoint import init_weights, save_checkpoint
from artifactnet.models.create import create_model
from artifactnet.runs import run_folder

SETS = {"migan": "migan_edits", "free": "free_edits", "genreal": "genreal"}
CHUNK = 512  # images per file of features
BATCH = 16
# inverse strengths of the regularisation, of which validation chooses
STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
EDITS = 1.5  # weight of photographs and their edits against whole generated images


def main() -> None:
    """Run all steps that are not done yet."""
    parser = argparse.ArgumentParser(description="Train the packaged detector artifactnet-small.")
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--out", type=Path, default=Path("runs/small"), metavar="DIR")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    mixed = args.out / "data"
    make_manifests(args.data, mixed)
    keys = [f"data.root={mixed}", "data.name=manifest", f"seed={args.seed}"]
    detail = args.out / "detail"
    if not (detail / run_folder.FINISHED).is_file():
        start = f"init_from={packaged.FOLDER / 'student-nano.safetensors'}"
        resume = [f"resume={str(detail.is_dir()).lower()}"]
        own = ["name=detail", f"out={args.out}", start, *resume]
        api.train(load("artifactnet_small_detail", [*keys, *own]))
    config = load("artifactnet_small", keys)
    model = create_model(config.model)
    init_weights(model, detail / "model.safetensors")
    model.eval()
    found = {split: see(model, config, split, args.out / "features") for split in ("train", "val")}
    fit(model, found["train"], found["val"])
    save_checkpoint(model, args.out / "model.safetensors")
    print(f"saved {args.out / 'model.safetensors'}")


def make_manifests(data: Path, out: Path) -> None:
    """One manifest per data set, and one of the embedded data."""
    for name, folder in SETS.items():
        if not (out / f"{name}.jsonl").is_file():
            convert_dataset("folder", data / folder, out, name=name)
    if not (out / "demo.jsonl").is_file():
        convert_dataset("demo", "artifactnet_small_detail", out)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the streams see in the images of a split.

    Attributes:
        context: (N, C) features of the context.
        detail: (N,) logits of the detail stream.
        label: (N,) 0 real, 1 fake.
        edit: (N,) whether an image is a photograph with an edited twin, or that twin.
    """

    context: np.ndarray
    detail: np.ndarray
    label: np.ndarray
    edit: np.ndarray


def see(model: ArtifactNet, config: Config, split: str, folder: Path) -> Seen:
    """Show a split to both streams."""
    preprocess = preprocess_of(model)
    source = DataModule(config.data, preprocess, config.seed).splits[split]
    transform = TrainTransform(config.data.augment, preprocess) if split == "train" else None
    dataset = DetectionDataset(source, preprocess, transform, config.seed, "raise", alike=True)
    assert model.context is not None

    def detail(images: torch.Tensor) -> torch.Tensor:
        assert model.context is not None
        return model(images).logit - model.context(images)

    return Seen(
        context=collect(model.context.features, dataset, folder / f"{split}-context"),
        detail=collect(detail, dataset, folder / f"{split}-detail"),
        label=np.array([record.label for record in source.records]),
        edit=np.array([not record.uid.startswith("genreal/") for record in source.records]),
    )


def collect(
    stream: Callable[[torch.Tensor], torch.Tensor], dataset: DetectionDataset, folder: Path
) -> np.ndarray:
    """A stream's output for all images, a chunk after the other; finished chunks are read again."""
    chunks = []
    for start in range(0, len(dataset), CHUNK):
        path, stop = folder / f"{start:06d}.npy", min(start + CHUNK, len(dataset))
        if not path.is_file():
            outputs = []
            for first in range(start, stop, BATCH):
                items = range(first, min(first + BATCH, stop))
                batch = collate(dataset[(0, item)] for item in items)
                assert batch is not None
                with torch.inference_mode():
                    outputs.append(stream(batch.image).float().numpy())
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as temporary, open(temporary, "wb") as file:
                np.save(file, np.concatenate(outputs))
            print(f"{folder.name}: {stop} of {len(dataset)} images", flush=True)
        chunks.append(np.load(path, allow_pickle=False))
    return np.concatenate(chunks)


def fit(model: ArtifactNet, train: Seen, val: Seen) -> None:
    """Fit the scale of the detail stream's logit, and the context's layer, to the labels."""
    mean, std = train.context.mean(0), train.context.std(0) + 1e-6
    width = np.sqrt(train.context.shape[1])

    def inputs(seen: Seen) -> np.ndarray:
        return np.column_stack([(seen.context - mean) / std / width, seen.detail])

    best: tuple[float, LogisticRegression] | None = None
    for strength in STRENGTHS:
        fitted = LogisticRegression(C=strength * len(train.label), max_iter=1000)
        fitted.fit(inputs(train), train.label, sample_weight=weights_of(train))
        loss = log_loss(fitted.decision_function(inputs(val)), val)
        print(f"C {strength}: validation loss {loss:.4f}", flush=True)
        if best is None or loss < best[0]:
            best = loss, fitted
    assert best is not None
    coefficients, intercept = best[1].coef_[0], best[1].intercept_[0]
    slope = coefficients[:-1] / std / width
    scale = float(coefficients[-1])
    print(f"the detail stream's logit is multiplied by {scale:.3f}")
    assert model.context is not None
    assert model.evidence is not None
    with torch.no_grad():
        for layer in (model.head, model.evidence):
            layer.weight.mul_(scale)
            layer.bias.mul_(scale)
        model.context.head.weight.copy_(torch.from_numpy(slope)[None])
        model.context.head.bias.fill_(intercept - float(slope @ mean))


def weights_of(seen: Seen) -> np.ndarray:
    """Per image, summing to 1: both classes alike among edits and among whole images."""
    weights = np.zeros(len(seen.label))
    for edit, share in ((True, EDITS), (False, 1.0)):
        for label in (0, 1):
            group = (seen.edit == edit) & (seen.label == label)
            weights[group] = share / group.sum()
    return weights / weights.sum()


def log_loss(logits: np.ndarray, seen: Seen) -> float:
    """Weighted as in the fit."""
    losses = np.logaddexp(0, np.where(seen.label == 1, -logits, logits))
    return float(losses @ weights_of(seen))


if __name__ == "__main__":
    main()
