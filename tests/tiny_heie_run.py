"""A run of seconds: a tiny HEIE on a few small images with annotations, scores and texts."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from artifactnet.config import Config, load
from artifactnet.data.manifest_format import ManifestLine, write_manifest
from artifactnet.types import Annotation, Record
from artifactnet.vlm.heie.data import TextExample

CONFIG = """
model:
  image_size: [56, 56]
  heatmap: {{head: mapper, width: 16, heads: 2, tile: 56, max_tiles: 6}}
mllm:
  {{base: {base}, lora_rank: 4, lora_dropout: 0.0, gradient_checkpointing: false,
    max_new_tokens: 8}}
loss:
  {{bce: 0, text: 1.0, alignment: {{weight: 0}},
    heatmap: {{focal: 1, laplace: 0.1, correlation: 0.5, score: 1}}}}
data: {{name: manifest, root: {root}, batch_size: 4, check: counts}}
optim: {{lr: 1.0e-3}}
train:
  {{epochs: 1, device: cpu, picture_every: 0, tensorboard: false, log_every: 1, monitor: loss}}
"""
TEXT = (
    "### Image Description\nA street, number {k}.\n\n"
    "### Problematic Regions Identification\nThe tree.\n"
    "So, the potential problematic regions in the image are [MAP]\n\n"
    "### Analysis of Issues\n- Its edges dissolve.\n"
    "Based on the overall analysis, the plausibility score for this image is [SCORE]."
)


def line(folder: Path, k: int, split: str, text: str | None, seed: int = 0) -> ManifestLine:
    """An image of one, two or three tiles with a bright square, its heatmap, score and text."""
    rng = np.random.default_rng(1000 * seed + k)
    height, width = ((56, 56), (56, 112), (168, 56))[k % 3]
    heatmap = np.zeros((height, width), np.uint8)
    y, x = rng.integers(0, height - 20), rng.integers(0, width - 20)
    heatmap[y : y + 20, x : x + 20] = 255
    pixels = rng.integers(0, 120, (height, width, 3)).astype(np.uint8)
    pixels[heatmap > 0] += 100
    image, drawn = folder / f"{seed}_{k}.png", folder / f"{seed}_{k}_map.png"
    Image.fromarray(pixels).save(image)
    Image.fromarray(heatmap).save(drawn)
    return ManifestLine(
        *(str(image), f"{seed}_{k}", 1, Annotation.MASK, split, "tiny"),
        heatmap=str(drawn),
        score=float(rng.random()),
        text=text,
    )


def manifest(folder: Path, name: str = "set.jsonl", seed: int = 0, texts: bool = True) -> Path:
    """Eight images to train on, two to validate, three to test."""
    folder.mkdir(parents=True, exist_ok=True)
    splits = ["train"] * 8 + ["val"] * 2 + ["test"] * 3
    lines = [
        line(folder, k, split, TEXT.format(k=k) if texts else None, seed)
        for k, split in enumerate(splits)
    ]
    write_manifest(folder / name, lines)
    return folder / name


def config(folder: Path, base: Path, *overrides: str) -> Config:
    """Config of a run inside ``folder``; its manifest is made at the first call."""
    root = folder / "data" / "set.jsonl"
    if not root.is_file():
        manifest(root.parent)
    path = folder / "tiny.yaml"
    path.write_text(CONFIG.format(base=base, root=root))
    return load(path, [f"out={folder / 'runs'}", *overrides])


def example(k: int, supervised: bool = True, size: tuple[int, int] = (56, 56)) -> TextExample:
    """What `TextDataset` gives for an image of one gray."""
    record = Record(f"u{k}", 1, "g", Annotation.MASK, f"image {k}")
    image = np.full((*size, 3), 10 * k, np.uint8)
    return TextExample(record, image, None, TEXT.format(k=k), supervised, torch.zeros(size), 0.5)
