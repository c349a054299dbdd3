"""Which layer of a network activation maps are made of, and how its output becomes a map."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from artifactnet.explanation.detector import Detector, Reshape, reference_weight
from artifactnet.models.backbone import token_grid
from artifactnet.models.state import exclusive, undisturbed
from artifactnet.types import ArtifactNetError

Layer = tuple[nn.Module, Reshape | None]  # a module, and what brings its output to (B, C, h, w)
# modules without weights whose names hold one of these choose or pass on what others made
_PASSIVE = ("pool", "drop", "identity", "flatten", "softmax")


def target_layer(detector: Detector) -> Layer:
    """The layer for activation maps, and what brings its output to (B, C, h, w).

    ``detector.target_layer`` comes first. Of a plain timm ViT (also as part of ``detector.net``) it
    is the normalisation before the last attention: later, only the class token has a gradient. Of
    other networks it is the last module to run that makes a map with more than one cell on which
    the logit depends, found by passing one image; of other timm models the map may consist of
    tokens. Modules that run more than once in a pass are left out, because only one output can be
    explained.

    Returns:
        A module inside ``detector.net``, and the reshape (None: its output is a map already).

    Raises:
        ArtifactNetError: there is no such layer.
    """
    net, size = detector.net, detector.preprocess.size
    vit = _only_one(module for module in net.modules() if _is_plain_vit(module))
    rows = None if vit else _only_one(m for m in net.modules() if _is_channels_last(m))
    if detector.target_layer is not None:
        layer = dict(net.named_modules()).get(detector.target_layer)
        if layer is None:
            raise ArtifactNetError(
                f"{name_of(net)} has no layer {detector.target_layer!r} for target_layer=; "
                "net.named_modules() lists them"
            )
    elif vit is not None:
        layer = _before_last_attention(vit)
    else:
        layer, reshape = _last_map(detector, rows)
        return layer, detector.reshape or reshape
    if detector.reshape is not None:
        return layer, detector.reshape
    if vit is not None and _holds(vit, layer):
        return layer, _from_tokens(vit, size)
    return layer, _from_channels_last if rows is not None and _holds(rows, layer) else None


def fits(height: int, width: int, size: tuple[int, int]) -> bool:
    """Whether a map of (height, width) cells has the proportions of an image, to within a cell."""
    return abs(height * size[1] - width * size[0]) <= sum(size)


def name_of(net: nn.Module) -> str:
    """What messages call a network: its timm name, or its class."""
    published: dict[str, Any] = getattr(net, "pretrained_cfg", None) or {}
    return str(published.get("architecture") or type(net).__name__)


def _only_one(candidates: Iterable[nn.Module]) -> Any:
    """The module, or None unless there is exactly one."""
    modules = list(candidates)
    return modules[0] if len(modules) == 1 else None


def _holds(part: nn.Module, layer: nn.Module) -> bool:
    return any(module is layer for module in part.modules())


def _is_plain_vit(module: nn.Module) -> bool:
    """Blocks in a row over one grid of patches, in the way of timm's ViT, DeiT, BEiT, EVA."""
    return (
        hasattr(module, "cls_token")
        and isinstance(getattr(module, "num_prefix_tokens", None), int)
        and len(getattr(module, "blocks", ())) > 0
        and hasattr(getattr(module, "patch_embed", None), "dynamic_feat_size")
    )


def _is_channels_last(module: nn.Module) -> bool:
    fmt = str(getattr(module, "output_fmt", "NCHW"))
    return hasattr(module, "forward_features") and fmt == "NHWC"


def _before_last_attention(vit: Any) -> nn.Module:
    """The last block's first normalisation, or where it comes later the block before."""
    last = vit.blocks[-1]
    if hasattr(last, "norm1") and "Post" not in type(last).__name__:
        return last.norm1
    if hasattr(last, "in_norm"):
        return last.in_norm
    if len(vit.blocks) < 2:
        raise ArtifactNetError(
            f"{name_of(vit)}: nothing is normalised before its only block; name the layer for "
            "activation maps with target_layer="
        )
    return vit.blocks[-2]


def _from_tokens(vit: Any, size: tuple[int, int]) -> Reshape:
    height, width = vit.patch_embed.dynamic_feat_size(size)
    cells, prefix, name = height * width, vit.num_prefix_tokens, name_of(vit)

    def reshape(tokens: Tensor) -> Tensor:
        if tokens.ndim == 4:  # before the map is cut into tokens
            return tokens
        # some networks add the class token late
        if tokens.ndim != 3 or tokens.shape[1] not in (cells, cells + prefix):
            raise ArtifactNetError(
                f"{name}: an output of {tuple(tokens.shape[1:])} is not a grid of {height}x{width} "
                f"patches with {prefix} tokens before them; give reshape="
            )
        patches = tokens[:, tokens.shape[1] - cells :]
        return patches.transpose(1, 2).reshape(len(tokens), -1, height, width)

    return reshape


def _from_channels_last(features: Tensor) -> Tensor:
    return features.permute(0, 3, 1, 2) if features.ndim == 4 else features


class _Map(NamedTuple):
    """A module's output that is a map: (1, C, h, w), (1, h, w, C) or tokens (1, N, C)."""

    module: nn.Module
    steps: int  # how late it came
    output: Tensor
    reshape: Reshape | None


class _Watch:
    """Records which modules made a map in one forward pass of one image, and how late.

    Args:
        size: (height, width) of the image.
        channels_last: maps are (1, h, w, C).
        transformer: the timm model whose tokens are maps as well.
    """

    def __init__(
        self, size: tuple[int, int], channels_last: bool, transformer: nn.Module | None
    ) -> None:
        self.calls: Counter[nn.Module] = Counter()
        self.maps: list[_Map] = []
        self.steps = 0  # outputs with spatial axes
        self._size = size
        self._reshape = _from_channels_last if channels_last else None
        self._first = 1 if channels_last else 2
        self._transformer = transformer
        self._pooled: list[Tensor] = []

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self.calls[module] += 1
        if not isinstance(output, Tensor) or sum(side > 1 for side in output.shape[1:]) < 2:
            return
        kind = type(module).__name__.lower()
        if any(word in kind for word in _PASSIVE) and next(module.parameters(), None) is None:
            if "pool" in kind:
                self._pooled.append(output)
            return
        self.steps += next(module.children(), None) is None
        # what a container returns may be its last pooling's output
        if len(output) != 1 or any(output is each for each in self._pooled):
            return
        if output.ndim == 4:
            height, width = output.shape[self._first : self._first + 2]
            if height * width > 1 and fits(height, width, self._size):
                self.maps.append(_Map(module, self.steps, output, self._reshape))
        elif output.ndim == 3 and self._transformer is not None:
            self._add_tokens(module, inputs, output)

    def _add_tokens(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        # blocks and norms keep the tokens; projections make something else of them
        whole = next(module.children(), None) is not None or "norm" in type(module).__name__.lower()
        if not whole or not inputs or getattr(inputs[0], "shape", None) != output.shape:
            return
        grid, prefix = token_grid(self._transformer, self._size, output.shape[1])
        if grid is not None and grid != (1, 1):
            cells = partial(_cells_of, grid=grid, prefix=prefix)
            self.maps.append(_Map(module, self.steps, output, cells))

    def last(self, logit: Tensor) -> _Map | None:
        """The last map on which the logit depends, unless most of the work came after it."""
        maps = [each for each in self.maps if self.calls[each.module] == 1]
        used = [each for each in maps if each.output.requires_grad]
        moves: set[int] = set()
        if used and logit.requires_grad:
            outputs = [each.output for each in used]
            gradients = torch.autograd.grad(logit.sum(), outputs, allow_unused=True)
            for each, gradient in zip(used, gradients, strict=True):
                if gradient is not None:
                    shaped = gradient if each.reshape is None else each.reshape(gradient)
                    moves |= {id(each)} if bool(shaped.any()) else set()
        # a head of zeros moves nothing: then the last map of all
        maps = [each for each in maps if id(each) in moves] or maps
        # else it is a patch embedding, whose tokens do the work
        return maps[-1] if maps and self.steps - maps[-1].steps <= maps[-1].steps else None


def _cells_of(tokens: Tensor, grid: tuple[int, int], prefix: int) -> Tensor:
    return tokens[:, prefix:].transpose(1, 2).unflatten(2, grid)


def _last_map(detector: Detector, channels_last: nn.Module | None) -> Layer:
    net = detector.net if channels_last is None else channels_last
    transformer = next((m for m in net.modules() if hasattr(m, "forward_features")), None)
    size = detector.preprocess.size
    weight = reference_weight(detector)
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 3, *size, generator=generator).to(weight)
    watch = _Watch(size, channels_last is not None, transformer)
    with exclusive(detector.module):
        handles = [module.register_forward_hook(watch) for module in net.modules()]
        try:
            with torch.inference_mode(False), torch.enable_grad(), undisturbed(detector.module):
                found = watch.last(detector.logits(image.clone().requires_grad_()))
        finally:
            for handle in handles:
                handle.remove()
    if found is None:
        raise ArtifactNetError(
            f"{name_of(detector.net)}: no layer ends in a feature map (B, C, h, w) of more than "
            "one cell; name the layer for activation maps with target_layer= and bring its "
            "output to that shape with reshape="
        )
    return found.module, found.reshape
