"""timm backbones by name, with random weights; `create` and `checkpoint` load others."""

from __future__ import annotations

import difflib
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn

from artifactnet.config import ModelConfig
from artifactnet.models.pyramid import is_hierarchy, level_indices
from artifactnet.types import ArtifactNetError

# Fridrich & Kodovsky's "square 3x3" residual, here without its factor 1/4
_RESIDUAL = ((-1.0, 2.0, -1.0), (2.0, -4.0, 2.0), (-1.0, 2.0, -1.0))
_RESIDUAL_LIMIT = 2.0  # strong edges would drown the fine residuals that matter
# timm files whose models are plain ViTs: global attention, class token, blocks in a row
_PLAIN_VIT_FILES = ("vision_transformer", "eva", "deit", "beit")
_SWIN_FILES = ("swin_transformer", "swin_transformer_v2")


class Backbone(nn.Module):
    """A timm model without its classifier.

    ``net`` comes from `create_net`; None: a new one, with random weights.

    Attributes:
        net: the timm module.
        num_features: channels of the pooled feature.
        mean, std: the normalisation its weights expect.
        patch_size: side of a patch in pixels, or None where there is no plain patch grid.
        prefix_tokens, depth: class and register tokens before the patches, and number of attention
            blocks (both 0 without a plain grid).
        no_rollout: None if rollout applies, otherwise why it does not.
        hierarchical: later features are coarser than earlier ones (Swin, ConvNeXt, ResNet).
        reduction: stride of the last features, pixels.
        level_channels: channels of the pyramid's levels, finest first.
        no_pyramid: None if there is a feature pyramid, otherwise why there is none.
    """

    def __init__(self, config: ModelConfig, net: nn.Module | None = None) -> None:
        super().__init__()
        height, width = config.image_size
        if net is None:
            net = create_net(config)
            add_stem(net, config)
        self.net = cast(Any, net)  # timm models have no common type
        # some nets widen the pooled feature once more before the classifier
        self.num_features: int = getattr(net, "head_hidden_size", None) or self.net.num_features
        data: dict[str, Any] = self.net.pretrained_cfg or {}
        self.mean = tuple(config.mean or data.get("mean", (0.485, 0.456, 0.406)))
        self.std = tuple(config.std or data.get("std", (0.229, 0.224, 0.225)))
        self.no_rollout = why_no_rollout(self.net, config.backbone)
        plain = self.no_rollout is None
        self.patch_size: int | None = self.net.patch_embed.patch_size[0] if plain else None
        self.prefix_tokens: int = self.net.num_prefix_tokens if plain else 0
        self.depth: int = len(self.net.blocks) if plain else 0
        self._find_levels(config.backbone)
        if self.patch_size and (height % self.patch_size or width % self.patch_size):
            raise ArtifactNetError(
                f"model.image_size {height}x{width} is not a multiple of the patch size "
                f"{self.patch_size} of {config.backbone}"
            )

    def _find_levels(self, name: str) -> None:
        """Ask timm which features make a pyramid."""
        info = getattr(self.net, "feature_info", None) or []
        info = getattr(info, "info", info)
        reductions = [stage["reduction"] for stage in info]
        self.hierarchical = is_hierarchy(reductions)
        self.reduction: int = reductions[-1] if reductions else 0
        self.level_channels: tuple[int, ...] = ()
        self.no_pyramid: str | None = None
        try:
            if not hasattr(self.net, "forward_intermediates"):
                raise ValueError("timm cannot return its intermediate features")
            self._levels = level_indices(reductions)
        except ValueError as error:
            self.no_pyramid = f"{name} has no feature pyramid: {error}"
        else:
            self.level_channels = tuple(info[k]["num_chs"] for k in self._levels)

    def features(self, images: torch.Tensor, pyramid: bool) -> tuple[Any, list[torch.Tensor]]:
        """Last features of (B, 3, H, W) normalised images, in the net's own layout.

        With ``pyramid`` also (B, C_k, h_k, w_k) of every level, finest first.
        """
        if not pyramid:
            return self.net.forward_features(images), []
        final, levels = self.net.forward_intermediates(images, indices=list(self._levels))
        return final, levels

    def pool(self, final: torch.Tensor) -> torch.Tensor:
        """Pooled feature (B, num_features) of the last features."""
        return self.net.forward_head(final, pre_logits=True)

    def feature_map(self, final: torch.Tensor) -> torch.Tensor:
        """The last features of a hierarchical net as (B, C, h, w)."""
        return final.permute(0, 3, 1, 2) if _channels_last(self.net) else final

    def pool_map(self, features: torch.Tensor) -> torch.Tensor:
        """Pooled feature (B, num_features) of what `feature_map` returned."""
        return self.pool(features.permute(0, 2, 3, 1) if _channels_last(self.net) else features)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Pooled features (B, num_features) of normalised images (B, 3, H, W)."""
        return self.pool(self.features(images, pyramid=False)[0])


def _channels_last(net: Any) -> bool:
    return str(getattr(net, "output_fmt", "NCHW")) == "NHWC"


def create_net(config: ModelConfig, pretrained: bool = False) -> Any:
    """Build a timm model without classifier, and without the stem of ``model.stem=conv``.

    Raises:
        ArtifactNetError: timm has no such model, or cannot build it with these arguments.
    """
    import timm

    arguments: dict[str, Any] = {"num_classes": 0, "drop_rate": config.drop_rate}
    arguments["drop_path_rate"] = config.drop_path_rate
    file = _timm_file(config.backbone)
    if file in _PLAIN_VIT_FILES:
        # any input size, and the class token's own feature as the thing that is classified
        arguments |= {"dynamic_img_size": True, "global_pool": "token"}
    if file in _PLAIN_VIT_FILES or "swin" in file:
        arguments["img_size"] = tuple(config.image_size)
    if file in _SWIN_FILES:
        arguments["dynamic_img_size"] = True
    arguments |= config.backbone_kwargs
    try:
        net = timm.create_model(config.backbone, pretrained=pretrained, **arguments)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise ArtifactNetError(
            f"model.backbone {config.backbone} cannot be built with {arguments}: {error}"
        ) from error
    if file in _SWIN_FILES:
        accept_any_size(net)
    return net


def _timm_file(name: str) -> str:
    """Name of timm's file that defines a model, e.g. ``vision_transformer``."""
    import timm

    base = name.split(".")[0]
    if not timm.is_model(base):
        near = difflib.get_close_matches(base, timm.list_models(), n=5)
        hint = f"; similar names: {', '.join(near)}" if near else ""
        raise ArtifactNetError(f"model.backbone: timm has no model named {name!r}{hint}")
    return timm.model_entrypoint(base).__module__.rsplit(".", 1)[-1]


def kwargs_change_tensors(config: ModelConfig) -> bool:
    """Whether ``model.backbone_kwargs`` add, remove or resize a weight of the backbone.

    ``depth`` and ``embed_dim`` do; ``drop_path_rate`` and ``patch_drop_rate`` do not.
    """
    if not config.backbone_kwargs:
        return False
    with torch.device("meta"):  # shapes alone: no memory, no random numbers
        nets = [create_net(c) for c in (config, replace(config, backbone_kwargs={}))]
    shapes = [{name: value.shape for name, value in net.state_dict().items()} for net in nets]
    return shapes[0] != shapes[1]


def add_stem(net: Any, config: ModelConfig) -> None:
    """Replace the patch projection of a net by a `ConvStem`, where ``model.stem`` is ``conv``.

    Raises:
        ArtifactNetError: the net has no patches.
    """
    if config.stem != "conv":
        return
    projection = getattr(getattr(net, "patch_embed", None), "proj", None)
    if not isinstance(projection, nn.Conv2d) or projection.kernel_size != projection.stride:
        raise ArtifactNetError(
            f"model.stem=conv needs patches; {config.backbone} has no patch embedding"
        )
    patch, width = projection.stride[0], projection.out_channels
    net.patch_embed.proj = ConvStem(patch, width, config.stem_width)


class ConvStem(nn.Module):
    """(B, 3, H, W) -> (B, embed_dim, H / patch, W / patch), in place of a patch projection.

    The patch size is split into stride-2 convolutions while it is even (16 = 2*2*2*2) and one
    last convolution of the odd rest (14 = 2*7). ``width`` is the first one's, doubled at each
    stride. Group norm keeps images independent of their batch, which gradient rollout and
    data-parallel equality rely on.
    """

    kernel: torch.Tensor

    def __init__(self, patch_size: int, embed_dim: int, width: int) -> None:
        super().__init__()
        kernel = torch.tensor(_RESIDUAL).expand(3, 1, 3, 3).contiguous()
        self.register_buffer("kernel", kernel, persistent=False)
        layers: list[nn.Module] = []
        channels, out, rest = 6, width, patch_size
        while rest % 2 == 0:
            layers += _block(channels, out, stride=2) + _block(out, out, stride=1)
            channels, out, rest = out, min(2 * out, embed_dim), rest // 2
        layers.append(nn.Conv2d(channels, embed_dim, kernel_size=rest, stride=rest))
        self.layers = nn.Sequential(*layers)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Embed the patches of normalised images (B, 3, H, W)."""
        residual = F.conv2d(images, self.kernel.to(images.dtype), padding=1, groups=3)
        residual = residual.clamp(-_RESIDUAL_LIMIT, _RESIDUAL_LIMIT)
        # channels last: a quarter faster on CPU for these narrow layers
        x = torch.cat([images, residual], 1).contiguous(memory_format=torch.channels_last)
        return self.layers(x)


def _block(channels: int, out: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(channels, out, kernel_size=3, stride=stride, padding=1, bias=False)
    return [convolution, nn.GroupNorm(max(1, out // 16), out), nn.GELU()]


def accept_any_size(net: Any) -> None:
    """Make timm's Swin (v1 and v2) pad what its patches and windows do not tile, in place.

    An image is padded to whole patches, and a block's map to whole windows before it is
    shifted. timm shifts first: its padding then lies behind the rows and columns that were
    rolled round, the attention mask no longer meets them, and opposite borders of an image
    attend to each other (timm issue 2438). Where nothing needs padding all is as before.
    ``net`` must be built with ``dynamic_img_size``; calling this twice does no harm.
    """
    net.patch_embed.dynamic_img_pad = True
    for module in net.modules():
        if type(module).__name__ in ("SwinTransformerBlock", "SwinTransformerV2Block"):
            # a partial, unlike a closure, follows its block into a deep copy
            module._attn = partial(_attention, module)


def _attention(block: Any, x: torch.Tensor) -> torch.Tensor:
    """Window attention of a (B, H, W, C) map; timm has nothing left to pad."""
    height, width = x.shape[1:3]
    rows, columns = block.window_size
    whole = F.pad(x, (0, 0, 0, -width % columns, 0, -height % rows))
    return type(block)._attn(block, whole)[:, :height, :width]


def why_no_rollout(net: Any, name: str) -> str | None:
    """Reason why attention rollout does not apply to a timm model called ``name``, or None."""
    file = type(net).__module__.rsplit(".", 1)[-1]
    if file not in _PLAIN_VIT_FILES or not hasattr(net, "blocks"):
        return (
            f"{name} ({type(net).__name__}) has no global attention over one patch grid, so "
            "rollout does not apply; model.attention.method=grad_cam maps its last stage instead"
        )
    if getattr(net, "cls_token", None) is None or net.global_pool != "token":
        return f"{name} is not classified by a class token"
    for index, block in enumerate(net.blocks):
        attention = getattr(block, "attn", block)
        if getattr(attention, "gate", None) is not None:
            return (
                f"block {index} ({type(attention).__name__}) of {name} gates what it attends to, "
                "so its softmax alone does not say where it looks"
            )
    return None
