"""FakeXplainer's rewards and its lenient reading of hostile texts, on one core."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from artifactnet.cli.arguments import add_value, positive
from artifactnet.taxonomy import TAGS
from artifactnet.types import ArtifactNetError, Region
from artifactnet.vlm.fakexplainer.grammar import MAX_REGIONS, read, write
from artifactnet.vlm.fakexplainer.rewards import Truth, score_answer
from perf.harness import (
    add_report_options,
    check_out,
    make_report,
    spread,
    take_turns,
    write_report,
)

REWARDS = "rewards"
SIZE, INPUT = (1024, 768), (1036, 756)  # of an image, and of Qwen2.5-VL's coordinates for it
TRUTHS = 5  # annotated regions of an image; FakeXplained has 5.42 on average
# what is repeated to make a text that a reader may take quadratic time for
HOSTILE = {
    "think": "<think>",
    "verdict": "<verdict>",
    "tag": "<tag>",
    "brace": "{",
    "half object": '{"bbox_2d": [',
    "half string": '{"a": "\\',
    "object": '{"bbox_2d": [1, 2, 3, 4], "label": "x"}',
    "list": "[",
    "box token": "<|box_start|>(1,2),",
    "ref": "<ref>a</ref><box>",
    "quote": '"',
    "space": " ",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the benchmark."""
    add_value(parser, "--answers", positive, 1000, "to score (1000)")
    add_value(parser, "--regions", positive, 30, "of each answer (30)")
    add_value(parser, "--length", positive, 200_000, "characters of a hostile text (200000)")
    add_report_options(parser)


def run(args: argparse.Namespace) -> int:
    """Run the benchmark; returns the exit code."""
    check_out(args.out)
    if args.regions > MAX_REGIONS:
        raise ArtifactNetError(f"--regions {args.regions}: an answer has at most {MAX_REGIONS}")
    torch.set_num_threads(1)
    answers = make_answers(args.answers, args.regions, seed=0)
    cases: dict[str, Callable[[], object]] = {REWARDS: partial(_score, answers)}
    cases |= {name: partial(_read, hostile_text(name, args.length)) for name in HOSTILE}
    for case in cases.values():
        case()
    times = take_turns(cases, args.repeats)
    seconds: dict[str, Any] = {
        name: {
            "seconds": spread(one.wall for one in own),
            "cpu_seconds": spread(one.cpu for one in own),
        }
        for name, own in times.items()
    }
    for name, own in seconds.items():
        wall, cpu = own["seconds"], own["cpu_seconds"]
        print(
            f"{name:<12} {wall['median'] * 1e3:8.1f} ms ({wall['min'] * 1e3:.1f} to "
            f"{wall['max'] * 1e3:.1f}), processor {cpu['median'] * 1e3:.1f} ms"
        )
    setting = {name: getattr(args, name) for name in ("answers", "regions", "length", "repeats")}
    write_report(args.out, make_report("fakexplainer-rewards", setting, REWARDS, times=seconds))
    return 0


def make_answers(count: int, regions: int, seed: int) -> list[tuple[str, Truth]]:
    """Strict answers with random regions and tags, and the truth about their images."""
    rng = np.random.default_rng(seed)

    def draw(number: int) -> list[Region]:
        corner = rng.uniform(0, 0.8, (number, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(0.02, 0.2, (number, 2))], axis=1)
        scaled = (boxes * [*SIZE, *SIZE]).tolist()
        return [
            Region((x1, y1, x2, y2), f"hand number {k} with six fingers, fused at their tips")
            for k, (x1, y1, x2, y2) in enumerate(scaled)
        ]

    answers = []
    for _ in range(count):
        tags = [TAGS[k] for k in rng.permutation(len(TAGS))[:2]]
        truth = Truth(True, draw(TRUTHS), tags, SIZE, INPUT)
        answers.append((write(True, draw(regions), tags, SIZE, INPUT), truth))
    return answers


def hostile_text(name: str, length: int) -> str:
    """``length`` characters of one of `HOSTILE`, again and again."""
    unit = HOSTILE[name]
    return (unit * (length // len(unit) + 1))[:length]


def _score(answers: list[tuple[str, Truth]]) -> None:
    for text, truth in answers:
        score_answer(text, truth, weight=0.75)


def _read(text: str) -> None:
    read(text, SIZE, INPUT)
