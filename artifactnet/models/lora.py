"""Low-rank adapters on the backbone (Hu et al. 2021; X-AIGD D.4), through peft."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from artifactnet.config import LoraConfig
from artifactnet.types import ArtifactNetError

_ADAPTABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding)
_SHOWN = 5  # paths in a message


def add_adapters(net: nn.Module, config: LoraConfig) -> None:
    """Freeze ``net`` and add trainable adapters to its target modules, in place.

    Raises:
        ArtifactNetError: peft is not installed, or a target names no layer (see `find_targets`).
    """
    try:
        from peft import LoraConfig as PeftConfig
        from peft import inject_adapter_in_model
    except ImportError as error:
        raise ArtifactNetError("model.lora needs peft: pip install 'artifactnet[lora]'") from error
    paths = find_targets(net, config.target_modules)
    settings = PeftConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules="|".join(map(re.escape, paths)),  # as text peft matches the whole path
    )
    try:
        inject_adapter_in_model(settings, net)
    except (ValueError, TypeError, NotImplementedError) as error:
        reason = " ".join(str(error).split())
        raise ArtifactNetError(f"model.lora.target_modules: {reason:.300}") from error
    for name, parameter in net.named_parameters():
        parameter.requires_grad = "lora_" in name


def find_targets(net: nn.Module, targets: Sequence[str]) -> list[str]:
    """Paths of the layers that get adapters.

    A name stands for all layers of that name in the blocks of ``net``, never for one of its stem or
    patch embedding, whatever they are called. A path, or the end of one (``attn.proj``), stands for
    the layers there, wherever they are. Of the default names those that there are count.

    Raises:
        ArtifactNetError: a target stands for no layer that an adapter can be added to.
    """
    layers = [name for name, module in net.named_modules() if isinstance(module, _ADAPTABLE)]
    names = [path for path in layers if _in_block(path)]
    found: dict[str, None] = {}
    missing = []
    for target in targets:
        places = layers if "." in target else names
        matches = [path for path in places if f".{path}".endswith(f".{target}") and target]
        if not matches and target in layers:  # the path of a layer of the net itself
            matches = [target]
        missing += [] if matches else [target]
        found |= dict.fromkeys(matches)
    if missing and (not found or list(targets) != LoraConfig().target_modules):
        raise ArtifactNetError(f"model.lora.target_modules: {_unknown(net, missing[0], layers)}")
    return list(found)


def _in_block(path: str) -> bool:
    """Whether a layer is in a numbered block or stage, and not in what embeds the image."""
    parts = path.split(".")
    embeds = any(part.startswith("patch_embed") or part == "stem" for part in parts)
    return not embeds and any(part.isdecimal() for part in parts[:-1])


def _unknown(net: nn.Module, target: str, layers: Sequence[str]) -> str:
    """Why a target stands for no layer, and what there is, on one line."""
    modules = dict(net.named_modules())
    inside = dict.fromkeys(p.rpartition(".")[2] for p in layers if _in_block(p))
    known = ", ".join(name for name in inside if not name.isdecimal()) or "none"
    elsewhere = [path for path in layers if path.rpartition(".")[2] == target]
    if elsewhere:
        paths = ", ".join(elsewhere[:_SHOWN])
        return f"{target!r} is outside of the blocks; name it by its path: {paths}"
    ends = [p for p in modules if target and f".{p}".endswith(f".{target}")]
    if ends:
        kind = type(modules[ends[0]]).__name__
        reason = f"{target!r} is a {kind}, which takes no adapter"
    else:
        reason = f"no layer is called {target!r}"
    return f"{reason}; layers in the blocks of this backbone: {known}"


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
