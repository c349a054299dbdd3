"""Scoring of answers about the images of Q-Real, from files to figures, on one core."""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from artifactnet.cli.arguments import add_value, positive
from artifactnet.data.qreal import DIMENSIONS, QUESTIONS, answer_word, has_problem
from artifactnet.vlm.qreal.score import score_qreal
from perf.harness import (
    add_report_options,
    check_out,
    make_report,
    spread,
    take_turns,
    write_report,
)

NAME = "score"
_SIDE = 1024.0  # pixels of an image


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the benchmark."""
    add_value(parser, "--images", positive, 3000, "annotated (3000)")
    add_value(parser, "--entities", positive, 6, "of each image (6)")
    add_report_options(parser)


def run(args: argparse.Namespace) -> int:
    """Run the benchmark; returns the exit code."""
    check_out(args.out)
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        truth, answers = write_files(Path(folder), args.images, args.entities, seed=0)
        times = take_turns({NAME: partial(score_qreal, truth, [answers])}, args.repeats)
    wall = spread(one.wall for one in times[NAME])
    cpu = spread(one.cpu for one in times[NAME])
    print(
        f"{args.images} images of {args.entities} entities: {wall['median']:.2f} s "
        f"({wall['min']:.2f} to {wall['max']:.2f}), processor {cpu['median']:.2f} s"
    )
    setting = {name: getattr(args, name) for name in ("images", "entities", "repeats")}
    seconds = {NAME: {"seconds": wall, "cpu_seconds": cpu}}
    write_report(args.out, make_report("qreal-scores", setting, NAME, times=seconds))
    return 0


def write_files(folder: Path, images: int, entities: int, seed: int) -> tuple[Path, Path]:
    """Annotations of images that do not exist, and answers to all questions about them."""
    rng = np.random.default_rng(seed)
    truth, answers = [], []
    for number in range(images):
        rows, boxes = [], _draw(rng, entities)
        for k, box in enumerate(boxes):
            row = _entity(f"{number}-{k}", box, rng)
            rows.append(row)
            scores = rng.random(len(QUESTIONS)).tolist()
            answers += [
                {"entity": row["id"], "question": key, "answer": "Yes.", "score": score}
                for key, score in zip(QUESTIONS, scores, strict=True)
            ]
        name = f"{number}.png"
        truth.append({"image": name, "uid": str(number), "split": "test", "entities": rows})
        for dimension in DIMENSIONS:
            found = [
                {"bbox": box, "label": "thing", "description": "odd"}
                for box in [*boxes[: entities // 2], *_draw(rng, entities - entities // 2)]
            ]
            answers.append({"image": name, "dimension": dimension, "boxes": found})
    paths = folder / "qreal.jsonl", folder / "answers.jsonl"
    for path, lines in zip(paths, (truth, answers), strict=True):
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return paths


def _draw(rng: np.random.Generator, count: int) -> list[list[float]]:
    corner = rng.uniform(0, 0.6, (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0.1, 0.4, (count, 2))], axis=1)
    found: list[list[float]] = (boxes * _SIDE).tolist()
    return found


def _entity(name: str, box: list[float], rng: np.random.Generator) -> dict[str, Any]:
    said = dict(zip(QUESTIONS, (rng.random(len(QUESTIONS)) < 0.5).tolist(), strict=True))
    texts: dict[str, str | None] = {
        one: "it is odd" if has_problem(said, one) else None for one in DIMENSIONS
    }
    answers = {key: answer_word(answer) for key, answer in said.items()}
    return {"id": name, "label": "thing", "bbox": box, "answers": answers, **texts}
