"""Using a model without leaving a trace on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards every submodule has its own flag back.

    Args:
        model: may be partly in training mode, say, with frozen parts.
    """
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

    Args:
        model: any module.
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
