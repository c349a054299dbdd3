"""Images of test sets that a model was trained on: found by content, and left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from artifactnet.config import Config
from artifactnet.data.datamodule import build_splits
from artifactnet.data.duplicates import find_shared
from artifactnet.data.sources.base import Source
from artifactnet.data.test_sets.base import Joined, TestSet
from artifactnet.experiments.evaluated_models import ModelSpec, start_of, training_configs
from artifactnet.types import ArtifactNetError

TRAINED = "are byte by byte in the data that a model was trained on or chosen by"


def trained_on(config: Config) -> list[Source]:
    """What the model of a run learned from, or was chosen by: ``train`` and ``val``.

    Raises:
        ArtifactNetError: the run's data cannot be read any more.
    """
    splits = build_splits(config.data, config.seed, one_class=True)
    return [splits[name] for name in ("train", "val") if name in splits]


def leave_out_trained(
    specs: Sequence[ModelSpec], sets: Mapping[str, TestSet], keep: bool
) -> tuple[dict[str, TestSet], dict[str, dict[str, int]], list[str]]:
    """Leave out, for all models, images that one of them was trained on or chosen by.

    They are found by their bytes, in the data of the run of each model and of those that it
    started from.

    Args:
        specs: the models.
        sets: name -> test set.
        keep: keep such images, and only count them.

    Returns:
        The sets; name of a model with a run -> name of a set -> how many such images it has; and
        warnings, also about models whose training data is unknown.

    Raises:
        ArtifactNetError: a set has no other images.
    """
    found: dict[str, dict[str, int]] = {}
    gone: dict[str, set[int]] = {name: set() for name in sets}
    compared: dict[str, dict[str, set[int]]] = {}  # data that several models were trained on
    warnings = []
    for spec in specs:
        configs = training_configs(spec)
        if not configs:
            warnings.append(f"{spec.name}: its training data is unknown, so nothing was compared")
            continue
        start = start_of(configs[-1])
        if start is not None:
            warnings.append(f"{spec.name}: the training data of its start {start} is unknown")
        own: dict[str, set[int]] = {name: set() for name in sets}
        try:
            for config in configs:
                data = repr((config.data, config.seed))
                if data not in compared:
                    compared[data] = _find_twins(sets, trained_on(config))
                for name, twins in compared[data].items():
                    own[name] |= twins
        except ArtifactNetError as error:
            warnings.append(f"{spec.name}: its training data cannot be read any more: {error}")
            continue
        found[spec.name] = {name: len(twins) for name, twins in own.items()}
        for name, twins in own.items():
            gone[name] |= twins
            if twins:
                fate = "kept" if keep else "left out for all models"
                warnings.append(
                    f"{spec.name}: {len(twins)} images of {name} are byte by byte in its training "
                    f"or validation data: {fate}"
                )
    if keep:
        return dict(sets), found, warnings
    return {name: _without(one, gone[name]) for name, one in sets.items()}, found, warnings


def _find_twins(sets: Mapping[str, TestSet], learned: Sequence[Source]) -> dict[str, set[int]]:
    """Images of each set that were trained on; what was learned from is read once for all sets."""
    places = [(name, k) for name, one in sets.items() for k in range(len(one.keys))]
    found: dict[str, set[int]] = {name: set() for name in sets}
    for index in find_shared(Joined([one.source for one in sets.values()]), learned):
        name, k = places[index]
        found[name].add(k)
    return found


def _without(test_set: TestSet, gone: set[int]) -> TestSet:
    kept = [k for k in range(len(test_set.keys)) if k not in gone]
    if not kept:
        raise ArtifactNetError(
            f"{test_set.name}={test_set.root}: every image is byte by byte in the training or "
            "validation data of the models; --keep-duplicates keeps them"
        )
    return test_set.select(kept, TRAINED)
