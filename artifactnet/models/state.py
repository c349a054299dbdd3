"""Using a model without changing its state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def by_size(images: Sequence[Tensor]) -> Iterator[tuple[list[int], Tensor]]:
    """Positions of all (3, H, W) images of one size, and these images stacked, (n, 3, H, W)."""
    sizes: dict[torch.Size, list[int]] = {}
    for index, image in enumerate(images):
        sizes.setdefault(image.shape, []).append(index)
    for indices in sizes.values():
        yield indices, torch.stack([images[k] for k in indices])


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards every submodule has its own flag back."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and weights that collect no gradient inside; all as before afterwards.

    Whatever is differentiated inside is so with respect to activations alone, which is cheaper,
    and gradients that an optimizer still waits for survive.
    """
    before = [(weight, weight.requires_grad, weight.grad) for weight in model.parameters()]
    try:
        for weight, _, _ in before:
            weight.requires_grad_(False)
            weight.grad = None
        with evaluating(model):
            yield
    finally:
        for weight, learns, gradient in before:
            weight.requires_grad_(learns)
            weight.grad = gradient
