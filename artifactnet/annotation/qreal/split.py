"""Splits of annotated images by uid: all images of one prompt are in one of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from artifactnet.data.folder_names import SPLITS
from artifactnet.data.qreal import check_splits, read_qreal, write_qreal
from artifactnet.data.splits import split_uids
from artifactnet.types import ArtifactNetError

TEST = 0.13  # share of the prompts; of the images, the paper's bench has 400 of 3,088


@dataclass(frozen=True, slots=True)
class Divided:
    """What is in each split."""

    images: Mapping[str, int]
    prompts: Mapping[str, int]
    drawn: bool  # False: the file named the splits already


def split_annotations(
    annotations: Path,
    out: Path,
    test: float = TEST,
    val: float = 0.0,
    seed: int = 0,
    allow_missing: bool = False,
) -> Divided:
    """Write a file of annotations with a split for every image; those that it names stay.

    The uids are divided by their hash and the seed, each with all of its images: neither the order
    of the lines nor the machine matters.

    Args:
        annotations: file of `artifactnet.data.qreal`.
        out: file to write.
        test: share of the uids in the test split, in [0, 1); at least one, unless it is 0.
        val: likewise of the val split.
        seed: draws other splits.
        allow_missing: see `artifactnet.data.qreal.read_qreal`.

    Raises:
        ArtifactNetError: the file cannot be used; some of its lines have a split and some have
            none; the shares leave nothing to train on, or there are too few uids.
    """
    images = read_qreal(annotations, allow_missing, images=False)
    drawn = not check_splits(images)
    if drawn:
        if not (0 <= test < 1 and 0 <= val < 1 and test + val < 1):
            raise ArtifactNetError(
                f"--test {test:g} --val {val:g}: must be 0 or more, and below 1 together"
            )
        shares = {"train": 1 - test - val, "val": val, "test": test}
        divided = split_uids((image.uid for image in images), shares, seed)
        for name, share in shares.items():
            if share and not divided[name]:
                raise ArtifactNetError(
                    f"{annotations}: has too few uids to have some in the split {name}"
                )
        split_of = {uid: name for name, uids in divided.items() for uid in uids}
        images = [replace(image, split=split_of[image.uid]) for image in images]
    write_qreal(out, images, allow_missing)
    prompts = {image.uid: image.split for image in images}
    return Divided(_count(image.split for image in images), _count(prompts.values()), drawn)


def _count(splits: Iterable[str | None]) -> dict[str, int]:
    counts = Counter(splits)
    return {name: counts[name] for name in SPLITS}
