"""Low-rank adapters on the backbone (Hu et al. 2021; X-AIGD D.4), through peft."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from torch import Tensor, nn

from artifactnet.config import LoraConfig
from artifactnet.types import ArtifactNetError


def add_adapters(net: nn.Module, config: LoraConfig) -> None:
    """Freeze ``net`` and add trainable adapters to its target modules, in place.

    Raises:
        ArtifactNetError: peft is not installed, or no module has a target's name.
    """
    try:
        from peft import LoraConfig as PeftConfig
        from peft import inject_adapter_in_model
    except ImportError as error:
        raise ArtifactNetError("model.lora needs peft: pip install 'artifactnet[lora]'") from error
    targets, rate = list(config.target_modules), config.dropout
    settings = PeftConfig(
        r=config.rank, lora_alpha=config.alpha, lora_dropout=rate, target_modules=targets
    )
    try:
        inject_adapter_in_model(settings, net)
    except ValueError as error:
        raise ArtifactNetError(f"model.lora.target_modules: {error}") from error
    for name, parameter in net.named_parameters():
        parameter.requires_grad = "lora_" in name


def merged(net: nn.Module) -> nn.Module:
    """Copy of ``net`` with every adapter folded into its weight; needs no peft to run."""
    from peft.tuners.lora import LoraLayer

    net = copy.deepcopy(net)
    for name, module in list(net.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            parent, _, child = name.rpartition(".")
            setattr(net.get_submodule(parent), child, module.get_base_layer())
    for parameter in net.parameters():
        parameter.requires_grad = True
    return net


def rename_adapted(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Plain weights under the names that ``own``, a model wrapped by peft, has for them."""
    renamed = {}
    for key, value in state.items():
        module, _, leaf = key.rpartition(".")
        wrapped = f"{module}.base_layer.{leaf}"
        renamed[wrapped if wrapped in own else key] = value
    return renamed
