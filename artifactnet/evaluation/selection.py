"""Which images of a data set an evaluation uses.

Splits are drawn so that a model is not evaluated on what it was trained on. Of data that it was not
trained on, nothing is drawn: its test images are used, and all images where it names no splits.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from artifactnet.config import Config, DataConfig
from artifactnet.data.datamodule import build_splits
from artifactnet.data.sources.base import Source, Splits
from artifactnet.data.splits import Subset, limit_uids
from artifactnet.types import ArtifactNetError, Record

# overrides that ask for splits as training draws them
DRAW_KEYS = ("data.val_fraction=", "data.folds=", "data.fold=", "seed=")
ALL = "all"  # in results, beside the names of splits


@dataclass(frozen=True, slots=True)
class Selection:
    """The images of an evaluation.

    Attributes:
        splits: as `build_splits`, or the evaluated images alone under ``test``.
        name: of what is evaluated: ``train``, ``val``, ``test`` or ``all``; None: ``splits`` say.
        warnings: what must be known about the choice.
    """

    splits: Splits
    name: str | None = None
    warnings: tuple[str, ...] = ()


def select_images(
    config: Config, own: Config | None = None, overrides: Sequence[str] = ()
) -> Selection:
    """Choose the images of an evaluation; a split may hold one class only.

    - Data, generators and draw are those of the model's own run: the splits of that run.
    - Otherwise ``test`` if the data names one, else ``val``, else all images. Images on which the
      run was trained, or its model was chosen, are left out.
    - One of `DRAW_KEYS` among ``overrides``: splits are drawn as for training.

    Args:
        config: of the evaluation; where nothing is drawn its ``data.val_fraction`` becomes 0, and
            there are no folds.
        own: config of the run that trained the model; None: unknown.
        overrides: of the command line.

    Raises:
        ArtifactNetError: the data cannot be used, or the run was trained on all of it.
    """
    if config.data.name == "demo" or (own is not None and _same_draw(config, own)):
        return Selection(build_splits(config.data, config.seed, one_class=True))
    if not any(text.startswith(DRAW_KEYS) for text in overrides):
        config.data = replace(config.data, val_fraction=0.0, folds=None, fold=None)
    splits = build_splits(replace(config.data, limit=None), config.seed, one_class=True)
    split = next(name for name in ("test", "val", "train") if name in splits)
    source = splits[split]
    warnings: list[str] = []
    if own is not None and _may_share(config.data, own.data, source):
        source, warnings = _without_trained(source, config, own)
    kept = limit_uids(source.records, config.data.limit, config.seed)
    name = ALL if split == "train" else split
    return Selection({"test": Subset(source, kept)}, name, tuple(warnings))


def _same_draw(config: Config, own: Config) -> bool:
    """Whether splits are those of the run."""

    def decisive(one: Config) -> tuple[object, ...]:
        data = one.data
        roots = tuple(root and Path(root).resolve() for root in (data.root, data.real_root))
        kind = data.name, data.extra_real, data.unlabeled, sorted(data.generators)
        return (
            *kind,
            roots,
            data.unlabeled_val,
            data.val_fraction,
            data.folds,
            data.fold,
            one.seed,
        )

    return decisive(config) == decisive(own)


def _may_share(one: DataConfig, other: DataConfig, source: Source) -> bool:
    """Whether two data sets may have files in common; manifests and links name files anywhere.

    ``source`` holds images of the first one.
    """
    names = {one.name, other.name}
    if "demo" in names:
        return False
    if "manifest" in names:
        return True
    first, second = (
        [Path(root).resolve() for root in (data.root, data.real_root) if root]
        for data in (one, other)
    )
    if any(a.is_relative_to(b) or b.is_relative_to(a) for a, b in product(first, second)):
        return True
    folders = {os.path.dirname(_identity(record)) for record in source.records if record.path}
    return any(Path(a).is_relative_to(b) for a, b in product(folders, second))


def _without_trained(source: Source, config: Config, own: Config) -> tuple[Source, list[str]]:
    """The images that the run did not learn from, and a warning about the others."""
    where = f"data.root={own.data.root}"
    try:
        learned = build_splits(own.data, own.seed, one_class=True)
    except ArtifactNetError as error:
        return source, [
            f"the run's own data ({where}) cannot be read, so it is unknown whether it was trained "
            f"on some of these images: {error}"
        ]
    known = {
        _identity(record)
        for split in ("train", "val")
        if split in learned
        for record in learned[split].records
    }
    kept = [k for k, record in enumerate(source.records) if _identity(record) not in known]
    left_out = len(source.records) - len(kept)
    if not left_out:
        return source, []
    if not kept:
        raise ArtifactNetError(
            f"data.root={config.data.root}: the run was trained on all of these images, or its "
            "model was chosen by them; evaluate it on its own test split, or on other data"
        )
    return Subset(source, kept), [
        f"{left_out} images were left out, since the run was trained on them or its model was "
        f"chosen by them ({where})"
    ]


def _identity(record: Record) -> str:
    return record.location if record.path is None else os.path.realpath(record.path)
