"""How fast the training loader serves images, beside a plain loop over the same images."""

from __future__ import annotations

import argparse
import copy
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from artifactnet import load_config
from artifactnet.cli.arguments import natural
from artifactnet.config import Config
from artifactnet.data.datamodule import DataModule
from artifactnet.inference.preprocessing import preprocess_of
from artifactnet.models.artifact_net import ArtifactNet
from perf.harness import (
    Arrays,
    add_report_options,
    check_out,
    check_setting,
    check_workers,
    make_report,
    spread,
    summary,
    time_side_by_side,
    write_report,
)

LOOP = "plain loop"
_STRIDE = 16  # pixels between those that identify an image


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the benchmark."""
    option = parser.add_argument
    option(
        "config",
        nargs="?",
        default="dinov2_align",
        metavar="CONFIG",
        help="a YAML file, or the name of a recipe (dinov2_align)",
    )
    option("overrides", nargs="*", metavar="KEY=VALUE", help="as for train")
    option(
        "--workers",
        type=natural,
        nargs="+",
        default=[0, 1, 2],
        metavar="N",
        help="processes of the loader (0 1 2)",
    )
    add_report_options(parser, repeats=3)


def run(args: argparse.Namespace) -> int:
    """Run, print and write the report."""
    name, overrides = args.config, args.overrides
    if "=" in name:  # the recipe may be left out before overrides
        name, overrides = "dinov2_align", [name, *overrides]
    config = load_config(name, overrides)
    check_out(args.out)
    report = benchmark_loader(config, args.workers, args.repeats)
    write_report(args.out, report)
    print(f"{report['setting']['images']} images an epoch; images per second, and times faster:")
    for form, result in report["forms"].items():
        speed, ratio = result["images_per_second"], result["times_faster"]
        print(
            f"  {form:<12} {speed['median']:8.1f} ({speed['min']:.1f} to {speed['max']:.1f})"
            f"  {ratio['median']:6.2f} x ({ratio['min']:.2f} to {ratio['max']:.2f})"
        )
    print(f"compared with the {report['baseline']}; all give the same images")
    return 0


def benchmark_loader(
    config: Config, workers: Sequence[int] = (0, 1, 2), repeats: int = 3
) -> dict[str, Any]:
    """Time whole epochs of a run's training loader.

    The baseline decodes and transforms the same images in the same order, one after the other in
    this process, without a loader and without batches. Every form must give the same images.
    Worker processes start before the timed epochs, as they do before the second epoch of a run.

    Args:
        config: of the run; its data and the preprocessing of its model are used.
        workers: ``data.workers`` of each form.
        repeats: how often each form is timed.

    Returns:
        See `perf.harness.make_report`; ``forms``: a `summary` and ``images_per_second`` each.

    Raises:
        ArtifactNetError: the data or a number is invalid, or the forms differ.
    """
    check_setting({"repeats": repeats})
    check_workers(workers)
    data = _data(config)
    cases: dict[str, Callable[[], Arrays]] = {LOOP: partial(_loop, data)}
    for count in dict.fromkeys(workers):
        data.config = dataclasses.replace(config.data, workers=count)
        form = "1 worker" if count == 1 else f"{count} workers"
        cases[form] = partial(_epoch, data.train_loader())
    images = len(_keys(data.train_loader()))
    times = time_side_by_side(cases, repeats)
    forms = {
        form: {
            **summary(times, form, LOOP),
            "images_per_second": spread(images / own.wall for own in times[form]),
        }
        for form in times
    }
    setting = {
        "config": config.name,
        "data": config.data.name,
        "images": images,
        "batch_size": config.data.batch_size,
        "image_size": list(config.model.image_size),
        "crop_size": config.data.augment.crop_size,
        "repeats": repeats,
    }
    return make_report("loader", setting, LOOP, forms=forms)


def _data(config: Config) -> DataModule:
    """The run's data, as the trainer makes it."""
    # only its preprocessing counts, so its weights are neither sought nor loaded
    model = ArtifactNet(copy.deepcopy(config.model))
    return DataModule(config.data, preprocess_of(model), config.seed)


def _loop(data: DataModule) -> Arrays:
    """An epoch without a loader."""
    loader = data.train_loader()
    return [_marks(loader.dataset[key].image for key in _keys(loader))]


def _epoch(loader: Any) -> Arrays:
    """An epoch of a loader, batch by batch."""
    return [_marks(image for batch in loader for image in batch.image)]


def _keys(loader: Any) -> list[Any]:
    """What the loader asks its data set for in an epoch."""
    return list(loader.sampler)


def _marks(images: Iterable[torch.Tensor]) -> np.ndarray:
    """A number for each image, from few of its pixels."""
    return np.array([float(image[:, ::_STRIDE, ::_STRIDE].sum()) for image in images])
