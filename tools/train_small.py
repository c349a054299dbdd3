"""Train the packaged detector artifactnet-small.

    python tools/train_small.py DATA --out runs/small

DATA holds the folders migan_edits, free_edits and genreal (see the model's card). Every step keeps
what it made in --out, so the same command goes on after an interruption:

1. manifests of DATA and of the embedded data;
2. the detail stream (configs/artifactnet_small_detail.yaml), from student-nano;
3. the context's layer: logistic regression on DINOv2's features of whole images, augmented once;
4. scale and shift of both streams' logits, on validation images.

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
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

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
CHUNK = 256  # images per file of features
BATCH = 16
# inverse strengths of the regularisation, of which validation chooses
STRENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0)


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
    train, val = (open_split(model, config, split) for split in ("train", "val"))
    fit(model, train, val, args.out / "features")
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
class Split:
    """Images of a split as the streams get them: augmented for training, else as in prediction.

    Attributes:
        label: (N,) 0 real, 1 fake.
        whole: (N,) whether an image is of a set in which fakes were generated as a whole.
    """

    dataset: DetectionDataset
    label: np.ndarray
    whole: np.ndarray


def open_split(model: ArtifactNet, config: Config, split: str) -> Split:
    """The images of ``train`` or ``val``."""
    preprocess = preprocess_of(model)
    source = DataModule(config.data, preprocess, config.seed).splits[split]
    transform = TrainTransform(config.data.augment, preprocess) if split == "train" else None
    return Split(
        DetectionDataset(source, preprocess, transform, config.seed, "raise", alike=True),
        np.array([record.label for record in source.records]),
        np.array([record.uid.startswith("genreal/") for record in source.records]),
    )


def collect(
    stream: Callable[[torch.Tensor], torch.Tensor],
    dataset: DetectionDataset,
    items: np.ndarray,
    folder: Path,
) -> np.ndarray:
    """A stream's output for some images, by chunks; finished chunks are read again."""
    chunks = []
    for start in range(0, len(items), CHUNK):
        path, chosen = folder / f"{start:06d}.npy", items[start : start + CHUNK]
        if not path.is_file():
            outputs = []
            for first in range(0, len(chosen), BATCH):
                batch = collate(dataset[(0, int(k))] for k in chosen[first : first + BATCH])
                assert batch is not None
                with torch.inference_mode():
                    outputs.append(stream(batch.image).float().numpy())
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as temporary, open(temporary, "wb") as file:
                np.save(file, np.concatenate(outputs))
            print(f"{folder.name}: {start + len(chosen)} of {len(items)} images", flush=True)
        chunks.append(np.load(path, allow_pickle=False))
    return np.concatenate(chunks)


def fit(model: ArtifactNet, train: Split, val: Split, folder: Path) -> None:
    """Fit the context's layer to whole training images, then four numbers to validation images.

    These scale and shift the logits of the two streams, which never met in training.
    """
    context, model.context = model.context, None
    assert context is not None
    assert model.evidence is not None
    whole = np.flatnonzero(train.whole)
    seen = collect(context.features, train.dataset, whole, folder / "train-context")
    every = np.arange(len(val.label))
    val_seen = collect(context.features, val.dataset, every, folder / "val-context")
    detail = collect(lambda images: model(images).logit, val.dataset, every, folder / "val-detail")
    slope, shift = fit_context(seen, train.label[whole], val_seen[val.whole], val.label[val.whole])
    weights, chosen = weights_of(val), val.label == 1

    def loss(numbers: np.ndarray) -> float:
        a = numbers[0] * detail + numbers[1]
        b = numbers[2] * (val_seen @ slope + shift) + numbers[3]
        logits = np.logaddexp(np.logaddexp(a, b), a + b)  # see artifactnet.models.context.either
        return float(np.logaddexp(0, np.where(chosen, -logits, logits)) @ weights)

    fitted = minimize(loss, [1.0, 0.0, 1.0, -2.0], method="Nelder-Mead", options={"maxiter": 4000})
    print(f"scales and shifts {fitted.x.round(3).tolist()}, validation loss {fitted.fun:.4f}")
    with torch.no_grad():
        for layer in (model.head, model.evidence):
            layer.weight.mul_(fitted.x[0])
            layer.bias.mul_(fitted.x[0])
        model.head.bias.add_(fitted.x[1])
        context.head.weight.copy_(torch.from_numpy(fitted.x[2] * slope)[None])
        context.head.bias.fill_(fitted.x[2] * shift + fitted.x[3])
    model.context = context


def fit_context(
    train: np.ndarray, label: np.ndarray, val: np.ndarray, val_label: np.ndarray
) -> tuple[np.ndarray, float]:
    """Weights and bias of a logistic regression, as regular as suits validation best."""
    mean, std = train.mean(0), (train.std(0) + 1e-6) * np.sqrt(train.shape[1])
    best: tuple[float, LogisticRegression] | None = None
    for strength in STRENGTHS:
        fitted = LogisticRegression(C=strength, max_iter=2000, class_weight="balanced")
        fitted.fit((train - mean) / std, label)
        score = roc_auc_score(val_label, fitted.decision_function((val - mean) / std))
        print(f"C {strength}: validation AUC {score:.4f}", flush=True)
        if best is None or score > best[0]:
            best = score, fitted
    assert best is not None
    slope = best[1].coef_[0] / std
    return slope, float(best[1].intercept_[0] - slope @ mean)


def weights_of(split: Split) -> np.ndarray:
    """Per image, summing to 1: edits and whole images weigh the same, and both classes of each."""
    weights = np.zeros(len(split.label))
    for whole in (True, False):
        for label in (0, 1):
            group = (split.whole == whole) & (split.label == label)
            weights[group] = 0.25 / group.sum()
    return weights


if __name__ == "__main__":
    main()
