"""Which layers int8 keeps in floating point: those named, and those that it harms most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from artifactnet.exporters.checks import answers_of_model, shown
from artifactnet.inference.backends.metadata import ExportFacts
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.types import ArtifactNetError, UInt8Array

# the layers that outputs come from: their rounding error is seen as it is, and they cost nothing
OUTPUT_LAYERS = ("head", "evidence", "heatmap.maps", "*score*", "*sigma*", "*conv_seg")
SHARES = (0.1, 0.25, 0.5)  # of all layers, kept in floating point where fewer do not suffice
_WEIGHT_STEPS = 63  # seven bits with sign, see `exporters.onnx.quantize_onnx`
_STEPS = 255  # of an activation


def matching(layers: Sequence[str], patterns: Sequence[str]) -> tuple[str, ...]:
    """Layers (``backbone.net.stages.0.fc1``) that a shell pattern or a parent's name matches."""
    each = [pattern for p in patterns for pattern in (p, f"{p}.*")]
    return tuple(layer for layer in layers if any(fnmatchcase(layer, p) for p in each))


def need_matches(layers: Sequence[str], patterns: Sequence[str]) -> None:
    """Raise ArtifactNetError if there are no layers for int8, or a pattern matches none."""
    if not layers:
        raise ArtifactNetError(
            "no layer of this model can become int8: it has neither convolutions nor linear "
            "layers of its own; export it without int8"
        )
    for pattern in patterns:
        if not matching(layers, [pattern]):
            raise ArtifactNetError(
                f"no layer is named {pattern!r}; there are {len(layers)}, from {layers[0]} to "
                f"{layers[-1]}"
            )


def kept_layers(
    model: ArtifactNet,
    facts: ExportFacts,
    layers: Sequence[str],
    keep: Sequence[str],
    frames: Sequence[UInt8Array],
) -> Iterator[tuple[str, ...]]:
    """Choices of ``layers`` to keep in floating point, each larger than the one before.

    First the layers that ``keep`` names and those of the outputs; then also those that int8
    harms most on (H, W, 3) uint8 ``frames``: a tenth, a quarter, half of the others.
    """
    first = matching(layers, (*OUTPUT_LAYERS, *keep))
    yield first
    ranked = [name for name, _ in rank_layers(model, facts, frames) if name in layers]
    ranked = [name for name in ranked if name not in first]
    for share in SHARES:
        worst = ranked[: max(1, round(share * len(ranked)))]
        yield tuple(name for name in layers if name in first or name in worst)


def rank_layers(
    model: ArtifactNet, facts: ExportFacts, frames: Sequence[UInt8Array]
) -> list[tuple[str, float]]:
    """How much the outputs change when one layer alone computes with rounded numbers.

    Returns:
        (name, root mean square change of probability, heatmap and score, which all are in
        [0, 1]), the largest first. Layers that do not run are left out.
    """
    exact = answers_of_model(model, facts, frames)
    changes = []
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            with _rounded(layer) as calls:
                rounded = answers_of_model(model, facts, frames)
            parts = [
                np.mean(np.square(shown(key, rounded) - shown(key, exact)))
                for key in exact
                if key != "sigma"
            ]
            if calls:
                changes.append((name, float(np.sqrt(np.mean(parts)))))
    return sorted(changes, key=lambda entry: -entry[1])


@contextmanager
def _rounded(layer: nn.Conv2d | nn.Linear) -> Iterator[list[None]]:
    """The layer with rounded weights and inputs; the list grows by one at each call."""
    calls: list[None] = []

    def round_input(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        calls.append(None)
        return (_round_activation(inputs[0]), *inputs[1:])

    exact = layer.weight.data
    handle = layer.register_forward_pre_hook(round_input)
    layer.weight.data = _round_weight(exact)
    try:
        yield calls
    finally:
        layer.weight.data = exact
        handle.remove()


def _round_weight(weight: Tensor) -> Tensor:
    """Symmetric, with one scale per output channel."""
    largest = weight.abs().flatten(1).amax(1).clamp(min=torch.finfo(weight.dtype).tiny)
    step = (largest / _WEIGHT_STEPS).reshape(-1, *[1] * (weight.ndim - 1))
    return (weight / step).round() * step


def _round_activation(values: Tensor) -> Tensor:
    """From the smallest to the largest value, zero among them."""
    low, high = values.amin().clamp(max=0), values.amax().clamp(min=0)
    step = ((high - low) / _STEPS).clamp(min=torch.finfo(values.dtype).tiny)
    return ((values - low) / step).round() * step + low
