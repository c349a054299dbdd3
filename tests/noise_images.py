"""Image files of noise, each seed another one."""

from pathlib import Path

import numpy as np
from PIL import Image


def put(path: str | Path, seed: int = 0) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
