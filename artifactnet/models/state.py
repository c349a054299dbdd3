"""Using a model without changing its state, from any number of threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

_LOCKS: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()
_MAKING_LOCKS = threading.Lock()


def by_size(images: Sequence[Tensor]) -> Iterator[tuple[list[int], Tensor]]:
    """Positions of all (3, H, W) images of one size, and these images stacked, (n, 3, H, W)."""
    sizes: dict[torch.Size, list[int]] = {}
    for index, image in enumerate(images):
        sizes.setdefault(image.shape, []).append(index)
    for indices in sizes.values():
        yield indices, torch.stack([images[k] for k in indices])


@contextmanager
def exclusive(model: nn.Module) -> Iterator[None]:
    """Other threads wait, here and in `evaluating` and `undisturbed`, until the block is left.

    Flags and hooks belong to the module, not to a thread. Every submodule has a lock of its own, so
    that models which share a part wait for each other and all others do not. A thread may enter
    again with the same model or a part of it.
    """
    with _MAKING_LOCKS:
        locks = [_LOCKS.setdefault(module, threading.RLock()) for module in model.modules()]
    with ExitStack() as stack:
        for lock in sorted(locks, key=id):  # in one order, or two threads could wait forever
            stack.enter_context(lock)
        yield


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards every submodule has its own flag back.

    One thread at a time, see `exclusive`.
    """
    with exclusive(model):
        before = [(module, module.training) for module in model.modules()]
        try:
            model.eval()
            yield
        finally:
            for module, training in before:
                module.training = training


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and weights that collect no gradient inside; all as before afterwards.

    Whatever is differentiated inside is so with respect to activations alone, which is cheaper,
    and gradients that an optimizer still waits for survive. One thread at a time, see `exclusive`.
    """
    with evaluating(model):
        before = [(weight, weight.requires_grad, weight.grad) for weight in model.parameters()]
        try:
            for weight, _, _ in before:
                weight.requires_grad_(False)
                weight.grad = None
            yield
        finally:
            for weight, learns, gradient in before:
                weight.requires_grad_(learns)
                weight.grad = gradient
