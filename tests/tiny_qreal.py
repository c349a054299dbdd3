"""A tiny file of Q-Real: four images, some with problems, one portrait."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

GOOD = {
    **{"realism_1": "Yes", "realism_2": "Yes"},
    **{f"plausibility_{k}": "No" for k in (1, 2, 3, 4)},
}


def entity(name: str, box: list[float], realism: bool, plausibility: bool, **more) -> dict:
    """An entity with a problem in some dimensions."""
    answers = dict(GOOD)
    if realism:
        answers["realism_2"] = "No"
    if plausibility:
        answers["plausibility_2"] = "Yes"
    return {
        "id": name,
        "label": name.split("-")[0],
        "bbox": box,
        "answers": answers,
        "realism": f"{name} shines like wax" if realism else None,
        "plausibility": f"{name} is bent" if plausibility else None,
        **more,
    }


def lines() -> list[dict]:
    """Lines of the file: images of 84 x 112 and 96 x 80 pixels."""
    return [
        {
            "image": "a.png",
            "uid": "1",
            "split": "train",
            "entities": [
                entity("violin-1", [10, 10, 50, 40], True, False),
                entity("cello-1", [20, 50, 80, 100], False, True),
            ],
        },
        {
            "image": "b.png",
            "uid": "2",
            "split": "test",
            "entities": [
                entity("violin-2", [0, 0, 10, 5], True, True),
                entity("cello-2", [22, 20, 32, 30], True, True),
                entity("chair-2", [50, 50, 60, 60], False, False),
            ],
        },
        {
            "image": "c.png",
            "uid": "3",
            "split": "test",
            "entities": [
                entity("woman-3", [5, 5, 70, 70], False, True, parts={"hands": "woman-3 is bent"})
            ],
        },
        {
            "image": "d.png",
            "uid": "4",
            "split": "test",
            "entities": [entity("cat-4", [40, 10, 60, 60], False, False)],
        },
    ]


def save(folder: Path, *changes: dict) -> Path:
    """The images and ``qreal.jsonl``; each of ``changes`` updates one line."""
    random = np.random.default_rng(0)
    rows = lines()
    for row, change in zip(rows, changes, strict=False):
        row.update(change)
    for number, row in enumerate(rows):
        size = (112, 84) if number % 2 else (80, 96)
        pixels = random.integers(0, 256, (*size, 3), np.uint8)
        if row["image"] == "a.png":
            pixels = random.integers(0, 256, (112, 84, 3), np.uint8)
        Image.fromarray(pixels).save(folder / row["image"])
    path = folder / "qreal.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
