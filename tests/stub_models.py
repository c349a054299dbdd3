"""Models that cost nothing, as `module:function` names them, and a small annotated test set."""

import json
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from artifactnet.explanation.detector import Classifier

SHAPES = []  # of the images that `brightness` was shown, in order
DIE_AFTER = None  # images after which `mortal` ends its process as a kill does


def brightness():
    """P(fake) is the mean of all levels; what it was shown is in `SHAPES`."""

    def judge(images):
        SHAPES.extend(image.shape for image in images)
        return [float(image.mean()) / 255 for image in images]

    return judge


def mortal():
    """As `brightness`, until it has seen `DIE_AFTER` images."""
    judge = brightness()

    def judge_and_die(images):
        found = judge(images)
        if DIE_AFTER is not None and len(SHAPES) >= DIE_AFTER:
            os._exit(9)
        return found

    return judge_and_die


def no_number():
    """NaN for dark images."""
    return lambda images: [float("nan") if image.mean() < 60 else 0.9 for image in images]


def out_of_range():
    """Percent."""
    return lambda images: [50.0 for _ in images]


def too_few():
    """One answer, whatever it is asked."""
    return lambda images: [0.5]


def nothing():
    """No model."""
    return 7


def with_argument(path):
    """Not without arguments."""
    return path


class MeanNet(nn.Module):
    """Logits of two classes: fake is the brighter, the more so the brighter."""

    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(4.0))

    def forward(self, images):
        mean = images.mean((1, 2, 3))
        return torch.stack([-self.slope * mean, self.slope * mean], 1)


def net():
    """A classifier with its input size."""
    return Classifier(MeanNet(), (16, 24), mean=(0.5,) * 3, std=(0.5,) * 3)


def bare_net():
    """A classifier that says nothing about its input."""
    return MeanNet()


def save_manifest(folder: Path, count: int = 3) -> Path:
    """``count`` dark photographs and bright fakes with a box each; returns the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    lines = []
    for number in range(count):
        for label in (0, 1):
            height, width = 60 + 4 * number, 80
            low = 120 * label
            pixels = rng.integers(low, low + 100, (height, width, 3), np.uint8)
            name = f"{number}_{label}.png"
            Image.fromarray(pixels).save(folder / name)
            line = {"image": name, "uid": str(number), "label": label, "annotation": "clean"}
            if label:
                regions = [{"bbox": [10, 20, 50, 44], "caption": "a hand"}]
                line |= {"annotation": "mask", "regions": regions, "generator": "sdxl"}
            lines.append(json.dumps(line))
    path = folder / "images.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path
