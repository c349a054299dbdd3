"""Weights sharded among processes (FSDP2), and gathered again to be saved."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


def shard(model: nn.Module, base: nn.Module, mesh: Any) -> None:
    """Shard a model's weights over a one-dimensional ``DeviceMesh`` of the processes.

    Each layer of the base (language model and vision tower) on its own, then all others. The model
    must be the same in every process.
    """
    from torch.distributed.fsdp import fully_shard

    for stack in base.modules():
        if isinstance(stack, nn.ModuleList):  # layers of the language model and vision tower
            for layer in stack:
                fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


@contextmanager
def gather_weights(model: nn.Module, here: bool) -> Iterator[None]:
    """Replace shards of trainable weights by whole tensors on the CPU inside the block.

    All processes must enter it together; those with ``here`` false only send their shards.
    Without sharding it does nothing.
    """
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()  # the outermost one is left whole after a forward pass
    parts = [
        (module, name, parameter)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.requires_grad and hasattr(parameter, "full_tensor")
    ]
    joined: dict[int, nn.Parameter] = {}  # by parameter: a tied one has two places
    for _, _, parameter in parts:
        if id(parameter) not in joined:
            full: Any = parameter.full_tensor()
            joined[id(parameter)] = nn.Parameter(full.detach().cpu()) if here else parameter
    try:
        for module, name, parameter in parts:
            setattr(module, name, joined[id(parameter)])
        yield
    finally:
        for module, name, parameter in parts:
            setattr(module, name, parameter)
