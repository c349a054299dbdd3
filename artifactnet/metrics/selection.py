"""Who takes part in the artifact metrics, and in which row of their results."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from artifactnet.types import Annotation


def annotated_fakes(annotation: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Fakes that take part, and fakes that are left out.

    A fake takes part if it was annotated, with artifacts (MASK) or without (CLEAN). In the
    state NONE nobody knows where its artifacts are: it is left out, to be counted. Real
    images belong to neither, as in the benchmark.

    Args:
        annotation: (B,) values of `Annotation`.
        labels: (B,) 0 real, 1 fake.

    Returns:
        two (B,) bool tensors: fakes taking part, fakes left out.

    Raises:
        ValueError: shapes differ.
    """
    if labels.ndim != 1 or labels.shape != annotation.shape:
        raise ValueError(
            f"need one annotation state and one label per image, got shapes "
            f"{tuple(annotation.shape)} and {tuple(labels.shape)}"
        )
    fake, unknown = labels == 1, annotation == Annotation.NONE
    return fake & ~unknown, fake & unknown


def generator_names(generators: Sequence[str]) -> tuple[str, ...]:
    """The names of rows: every generator once, in order, without ``"real"``."""
    return tuple(dict.fromkeys(name for name in generators if name != "real"))


def generator_rows(names: Sequence[str], generators: Sequence[str], labels: Tensor) -> Tensor:
    """Row of each image in ``names``.

    Args:
        names: rows, see `generator_names`.
        generators: B names; looked at for fakes only.
        labels: (B,) 0 real, 1 fake.

    Returns:
        (B,) int64 on the device of ``labels``; 0 for real images, which have no row.

    Raises:
        ValueError: counts differ, or a fake's generator is not among ``names``.
    """
    pairs = list(zip(generators, labels.tolist(), strict=True))
    unknown = {name for name, label in pairs if label == 1}.difference(names)
    if unknown:
        raise ValueError(f"generators {sorted(unknown)} are not among {list(names)}")
    rows = [names.index(name) if label == 1 else 0 for name, label in pairs]
    return torch.tensor(rows, dtype=torch.int64, device=labels.device)


def uncategorized(truth: Tensor) -> Tensor:
    """Images whose artifacts nobody put into a category: bit 0 is set, no other bit is.

    Such an image says nothing about any one category, so it takes part only where
    categories do not matter.

    Args:
        truth: (B, H, W) uint8 bit field.

    Returns:
        (B,) bool.
    """
    if not truth.numel():  # the maximum of nothing is an error
        return torch.zeros(len(truth), dtype=torch.bool, device=truth.device)
    return truth.flatten(1).amax(dim=1) == 1  # any other bit makes a larger value
