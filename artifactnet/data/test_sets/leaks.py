"""What spoils the figures of a test set: images trained on, classes whose files differ."""

from __future__ import annotations

from collections.abc import Sequence

from artifactnet.config import Config
from artifactnet.data.checks import compare_classes
from artifactnet.data.datamodule import build_splits
from artifactnet.data.duplicates import find_shared
from artifactnet.data.sources.base import Source
from artifactnet.data.test_sets.base import TestSet

TRAINED = "are byte by byte in the data that the model was trained on or chosen by"


def trained_on(config: Config) -> list[Source]:
    """What the model of a run learned from, or was chosen by: ``train`` and ``val``.

    Args:
        config: of the run.

    Raises:
        ArtifactNetError: the run's data cannot be read any more.
    """
    splits = build_splits(config.data, config.seed, one_class=True)
    return [splits[name] for name in ("train", "val") if name in splits]


def find_trained(test_set: TestSet, learned: Sequence[Source]) -> dict[int, str]:
    """Images of a test set that were trained on, by content: index -> location of the twin."""
    return find_shared(test_set.source, learned)


def class_warnings(test_set: TestSet) -> list[str]:
    """Where the files of the two classes differ, which a model may tell apart instead."""
    return compare_classes(test_set.name, test_set.source)[1]
