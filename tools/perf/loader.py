"""How fast the training loader serves images, beside a plain loop over the same images."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from artifactnet.config import Config
from artifactnet.data.datamodule import DataModule
from artifactnet.inference.preprocessing import preprocess_of
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.types import ArtifactNetError
from perf.harness import (
    Arrays,
    check_setting,
    machine,
    spread,
    time_side_by_side,
)

LOOP = "plain loop"
_STRIDE = 16  # pixels between those that show which image it is


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
        A report for ``json.dumps``: setting, machine, and for each form seconds of an epoch,
        images per second and ratios to the baseline.

    Raises:
        ArtifactNetError: the data cannot be used, a number makes no sense, or the forms differ.
    """
    check_setting({"repeats": repeats})
    if not workers or min(workers) < 0:
        raise ArtifactNetError(f"workers must be 0 or more, not {list(workers)}")
    data = _data(config)
    cases: dict[str, Callable[[], Arrays]] = {LOOP: partial(_loop, data)}
    for count in dict.fromkeys(workers):
        data.config = dataclasses.replace(config.data, workers=count)
        form = "1 worker" if count == 1 else f"{count} workers"
        cases[form] = partial(_epoch, data.train_loader())
    images = len(_keys(data.train_loader()))
    times = time_side_by_side(cases, repeats)
    forms = {}
    for form, own in times.items():
        pairs = list(zip(times[LOOP], own, strict=True))
        forms[form] = {
            "seconds": spread([time.wall for time in own]),
            "images_per_second": spread([images / time.wall for time in own]),
            "times_faster": spread([base.wall / time.wall for base, time in pairs]),
        }
    return {
        "benchmark": "loader",
        "setting": {
            "config": config.name,
            "data": config.data.name,
            "images": images,
            "batch_size": config.data.batch_size,
            "image_size": list(config.model.image_size),
            "crop_size": config.data.augment.crop_size,
            "repeats": repeats,
        },
        "machine": {**machine(), "torch_threads": torch.get_num_threads()},
        "baseline": LOOP,
        "forms": forms,
    }


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
