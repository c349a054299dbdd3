"""What several models on damaged images cost beside the models themselves: reading and damage."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from artifactnet.cli.arguments import add_value, natural, positive
from artifactnet.data.damage import parse_level
from artifactnet.data.sources.base import Source
from artifactnet.data.test_sets.read import read_test_set
from artifactnet.experiments.evaluated_models import (
    EvaluatedModel,
    Judgment,
    Shown,
    open_model,
    parse_models,
)
from artifactnet.experiments.judging import Conditions, judge_level
from artifactnet.inference.inputs import Failure
from artifactnet.types import Record, Sample
from perf.harness import check_out, make_report, write_report
from perf.predict import make_crops

LEVELS = ("original", "jpeg80", "jpeg30", "webp50", "crop", "half")
MODELS = ("student-nano", "again=student-nano", "artifactnet-small")
_SET = "crops"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the benchmark."""
    option = parser.add_argument
    option("--model", nargs="+", default=list(MODELS), help="as for experiment robustness")
    option("--levels", nargs="+", default=list(LEVELS), metavar="LEVEL")
    add_value(parser, "--images", positive, 500, "JPEG files, half of them called fake (500)")
    add_value(parser, "--size", positive, 512, "side of each, pixels (512)")
    add_value(parser, "--workers", natural, 0, "threads that read and damage images (0)")
    option("--device", default="auto")
    option("--out", metavar="JSON", help="file for the report")


def run(args: argparse.Namespace) -> int:
    """Run the benchmark; returns the exit code."""
    check_out(args.out)
    specs = parse_models(args.model)
    levels = [parse_level(name) for name in args.levels]
    with TemporaryDirectory() as folder:
        root = Path(folder) / "images"
        make_crops(root / "real", args.images - args.images // 2, args.size, seed=0)
        make_crops(root / "fake", args.images // 2, args.size, seed=1)
        models = [Timed(open_model(spec, args.device)) for spec in specs]
        test_set = read_test_set(_SET, root)
        source = Counting(test_set.source)
        test_set = replace(test_set, source=source)
        rows = []
        for level in levels:
            source.reads.clear()
            before = sum(model.seconds for model in models)
            start = time.perf_counter()
            conditions = Conditions(workers=args.workers)
            judge_level(test_set, level, models, Path(folder) / "answers", conditions)
            wall = time.perf_counter() - start
            own = sum(model.seconds for model in models) - before
            row: dict[str, Any] = {
                "level": level.name,
                "seconds": wall,
                "models_seconds": own,
                "overhead": wall / own - 1,
                "reads_per_image": [min(source.reads.values()), max(source.reads.values())],
            }
            rows.append(row)
            print(
                f"{level.name:9s} {wall:8.2f} s, models {own:8.2f} s, overhead "
                f"{row['overhead']:+.1%}, an image read {source.reads.most_common(1)[0][1]} times",
                flush=True,
            )
    wall, own = (sum(row[key] for row in rows) for key in ("seconds", "models_seconds"))
    print(f"{'all':9s} {wall:8.2f} s, models {own:8.2f} s, overhead {wall / own - 1:+.1%}")
    setting = {
        name: getattr(args, name)
        for name in ("model", "levels", "images", "size", "workers", "device")
    }
    total = {"seconds": wall, "models_seconds": own, "overhead": wall / own - 1}
    report = make_report("robustness", setting, "models", levels=rows, total=total)
    write_report(args.out, report)
    return 0


class Timed(EvaluatedModel):
    """A model whose own time is counted: preprocessing, forward passes and maps."""

    def __init__(self, model: EvaluatedModel) -> None:
        self._model, self.seconds = model, 0.0
        self.name, self.version, self.about = model.name, model.version, model.about
        self.localization, self.batch_size = model.localization, model.batch_size

    def judge(self, images: Sequence[Shown], where: bool) -> Iterator[Judgment | Failure]:
        """See `EvaluatedModel.judge`."""
        start = time.perf_counter()
        for judgment in self._model.judge(images, where):
            self.seconds += time.perf_counter() - start
            yield judgment
            start = time.perf_counter()
        self.seconds += time.perf_counter() - start


class Counting:
    """A source that counts how often each image is decoded."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.records: Sequence[Record] = source.records
        self.reads: Counter[int] = Counter()

    def load(self, index: int) -> Sample:
        """See `Source.load`."""
        self.reads[index] += 1
        return self._source.load(index)
