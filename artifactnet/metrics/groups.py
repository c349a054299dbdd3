"""Which images the artifact metrics evaluate, and which generator's row an image belongs to."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from artifactnet.types import Annotation


def annotated_fakes(annotation: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Fakes that are evaluated, and fakes that are left out: two (B,) bool tensors.

    A fake is evaluated if it was annotated, with artifacts (MASK) or without (CLEAN). In the
    state NONE its artifacts are unknown: it is left out and counted. Real images belong to
    neither group, as in the benchmark.

    Args:
        annotation: (B,) values of `Annotation`.
        labels: (B,) 0 real, 1 fake.

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
    """Names of the rows: every generator once, in order, without ``"real"``."""
    return tuple(dict.fromkeys(name for name in generators if name != "real"))


def generator_rows(names: Sequence[str], generators: Sequence[str], labels: Tensor) -> Tensor:
    """Row of each image in ``names`` (see `generator_names`): (B,) int64 on the labels' device.

    Real images (label 0) have no row and get 0, whatever their generator.

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
    """Images of (B, H, W) bit fields whose artifacts have no category (bit 0 alone): (B,) bool.

    They say nothing about any single category, so only category-agnostic scores use them.
    """
    if not truth.numel():  # amax of an empty tensor is an error
        return torch.zeros(len(truth), dtype=torch.bool, device=truth.device)
    return truth.flatten(1).amax(dim=1) == 1  # any other bit makes a larger value
