"""timm backbones by name, their pretrained weights, and what can be done with their attention."""

from __future__ import annotations

import difflib
import logging
import sys
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from artifactnet.config import ModelConfig
from artifactnet.models import packaged as boxed
from artifactnet.models.create import in_hub_cache, why_unreachable
from artifactnet.models.pyramid import is_hierarchy, level_indices
from artifactnet.types import ArtifactNetError

# Fridrich & Kodovsky's "square 3x3" residual, here without its factor 1/4
_RESIDUAL = ((-1.0, 2.0, -1.0), (2.0, -4.0, 2.0), (-1.0, 2.0, -1.0))
_RESIDUAL_LIMIT = 2.0  # strong edges would drown the fine residuals that matter


class ConvStem(nn.Module):
    """(B, 3, H, W) -> (B, embed_dim, H / patch, W / patch), in place of a patch projection.

    The patch size is split into stride-2 convolutions while it is even (16 = 2*2*2*2) and one
    last convolution of the odd rest (14 = 2*7). Group norm keeps images independent of
    their batch, which gradient rollout and data-parallel equality rely on.

    Args:
        patch_size: side of the (square) patch in pixels.
        embed_dim: channels of the result.
        width: channels after the first convolution; doubled at each stride.
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
    return [
        nn.Conv2d(channels, out, kernel_size=3, stride=stride, padding=1, bias=False),
        nn.GroupNorm(max(1, out // 16), out),
        nn.GELU(),
    ]


def any_size(net: Any) -> None:
    """Make timm's Swin (v1 and v2) pad what its patches and windows do not tile, in place.

    An image is padded to whole patches, and a block's map to whole windows before it is
    shifted. timm shifts first: its padding then lies behind the rows and columns that were
    rolled round, the attention mask no longer meets them, and opposite borders of an image
    attend to each other (timm issue 2438). Where nothing needs padding all is as before.

    Args:
        net: timm's Swin, built with ``dynamic_img_size``; calling it twice does no harm.
    """
    net.patch_embed.dynamic_img_pad = True
    for module in net.modules():
        if type(module).__name__ in ("SwinTransformerBlock", "SwinTransformerV2Block"):
            # a partial, unlike a closure, follows its block into a deep copy
            module._attn = partial(_attention, module)


def _attention(block: Any, x: torch.Tensor) -> torch.Tensor:
    """Window attention of a (B, H, W, C) map; timm finds nothing left to pad."""
    height, width = x.shape[1:3]
    rows, columns = block.window_size
    whole = F.pad(x, (0, 0, 0, -width % columns, 0, -height % rows))
    return type(block)._attn(block, whole)[:, :height, :width]


# timm files whose models are plain ViTs: global attention, class token, blocks in a row
_PLAIN_VIT_FILES = ("vision_transformer", "eva", "deit", "beit")
_SWIN_FILES = ("swin_transformer", "swin_transformer_v2")
_FEW = 0.1  # share of a net's tensors: fewer random ones are nothing to warn of for ever
_OURS = "backbone.net."  # where a model saved by ArtifactNet keeps its backbone
_log = logging.getLogger(__name__)


class Backbone(nn.Module):
    """A timm model without its classifier.

    Attributes:
        net: the timm module.
        num_features: channels of the pooled feature.
        mean, std: the normalisation its weights expect.
        patch_size: side of a patch in pixels, or None where there is no plain patch grid.
        prefix_tokens: class and register tokens before the patches (0 without a plain grid).
        depth: number of attention blocks (0 without a plain grid).
        no_rollout: None if rollout applies, else the reason why it cannot.
        hierarchical: later features are coarser than earlier ones (Swin, ConvNeXt, ResNet).
        reduction: stride of the last features, pixels.
        level_channels: channels of the pyramid's levels, finest first.
        no_pyramid: None if there is a feature pyramid, else the reason why there is none.
        notice: what a user must know about the weights, or "".
    """

    def __init__(self, config: ModelConfig, load_pretrained: bool) -> None:
        super().__init__()
        height, width = config.image_size
        net, self.notice = _create(config, load_pretrained)
        self.net: Any = net  # timm models have no common type that says what they offer
        # some nets widen the pooled feature once more before the classifier
        self.num_features: int = getattr(net, "head_hidden_size", None) or self.net.num_features
        data: dict[str, Any] = net.pretrained_cfg or {}
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
        """Learn from timm which features make a pyramid."""
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
        """Last features in the net's own layout, and the pyramid's levels where asked for.

        Args:
            images: (B, 3, H, W) normalised.
            pyramid: also return (B, C_k, h_k, w_k) of every level, finest first.
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


def _create(config: ModelConfig, load_pretrained: bool) -> tuple[Any, str]:
    """Build the timm model and say what its weights are."""
    import timm

    arguments: dict[str, Any] = {
        "num_classes": 0,
        "drop_rate": config.drop_rate,
        "drop_path_rate": config.drop_path_rate,
    }
    file = _family(config.backbone)
    if file in _PLAIN_VIT_FILES:
        # any input size, and the class token's own feature as the thing that is classified
        arguments |= {"dynamic_img_size": True, "global_pool": "token"}
    if file in _PLAIN_VIT_FILES or "swin" in file:
        arguments["img_size"] = tuple(config.image_size)
    if file in _SWIN_FILES:
        arguments["dynamic_img_size"] = True
    arguments |= config.backbone_kwargs
    source = _weights_source(config) if load_pretrained else _Source("random")
    notice = source.notice
    try:
        net = timm.create_model(config.backbone, pretrained=source.kind == "hub", **arguments)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise ArtifactNetError(
            f"model.backbone {config.backbone} cannot be built with {arguments}: {error}"
        ) from error
    if file in _SWIN_FILES:
        any_size(net)
    # only weights that we saved include a convolutional stem's
    ours = source.kind == "boxed" or (source.kind == "file" and _saved_by_us(source.path))
    if config.stem == "conv" and ours:
        _use_conv_stem(net, config)
    if source.kind in ("file", "boxed"):
        strict = config.weights_strict or source.kind == "boxed"
        told = load_backbone_weights(net, source.path, strict)
        notice = notice or told
    if config.stem == "conv" and not ours:
        _use_conv_stem(net, config)
    return net, notice


def _saved_by_us(path: str) -> bool:
    """Whether a file holds a model saved by ArtifactNet; whatever else it is, is told later."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as handle:
            return any(key.startswith(_OURS) for key in handle.keys())  # noqa: SIM118
    except (SafetensorError, OSError):
        return False


def _use_conv_stem(net: Any, config: ModelConfig) -> None:
    projection = getattr(getattr(net, "patch_embed", None), "proj", None)
    if not isinstance(projection, nn.Conv2d) or projection.kernel_size != projection.stride:
        raise ArtifactNetError(
            f"model.stem=conv needs patches; {config.backbone} has no patch embedding"
        )
    patch, width = projection.stride[0], projection.out_channels
    net.patch_embed.proj = ConvStem(patch, width, config.stem_width)


def _family(name: str) -> str:
    """timm file that defines the model, e.g. ``vision_transformer``."""
    import timm

    base = name.split(".")[0]
    if not timm.is_model(base):
        near = difflib.get_close_matches(base, timm.list_models(), n=5)
        hint = f"; near names: {', '.join(near)}" if near else ""
        raise ArtifactNetError(f"model.backbone: timm has no model named {name!r}{hint}")
    return timm.model_entrypoint(base).__module__.rsplit(".", 1)[-1]


class _Source(NamedTuple):
    """Where weights come from, and the notice to repeat."""

    kind: str  # file | hub | boxed | random
    path: str = ""  # of a file, the package's included
    notice: str = ""


def _weights_source(config: ModelConfig) -> _Source:
    """What ``model.weights`` and ``model.pretrained`` ask for, as far as it can be had."""
    if config.weights is not None:
        return _Source("file", config.weights)
    if config.pretrained == "false":
        return _Source("random")
    reason = _why_no_hub(config)
    if reason is None:
        return _Source("hub")
    if config.pretrained == "true":
        raise ArtifactNetError(
            f"model.pretrained=true, but {reason}. Put the weights in the hub cache, give a "
            "local file with model.weights=PATH, or allow random weights with "
            "model.pretrained=auto"
        )
    packaged = boxed.with_backbone_of(config)
    if packaged is None:
        notice = f"{config.backbone} started from RANDOM weights, not pretrained ones: {reason}"
        _log.warning(notice)
        return _Source("random", notice=notice)
    data = f", trained on {packaged.trained_on}" if packaged.trained_on else ""
    notice = (
        f"{config.backbone} started from the packaged weights {packaged.name}{data} (see its "
        f"model card): {reason}"
    )
    _log.warning(notice)
    return _Source("boxed", str(packaged.path), notice)


def _why_no_hub(config: ModelConfig) -> str | None:
    """None if pretrained weights can be had right now, else the reason."""
    import timm

    if config.backbone_kwargs:
        return "model.backbone_kwargs changes the architecture, so published weights do not fit"
    cfg = timm.get_pretrained_cfg(config.backbone)
    if cfg is None or not (cfg.hf_hub_id or cfg.url or cfg.file):
        return f"timm publishes no weights for {config.backbone}"
    if cfg.hf_hub_id and in_hub_cache(cfg.hf_hub_id):
        return None
    return why_unreachable()


def load_backbone_weights(net: Any, path: str, strict: bool = True) -> str:
    """Load local weights into a timm model without classifier.

    A model saved by ArtifactNet gives its backbone. Original layouts (for instance Meta's
    DINOv2 files) go through timm's own key conversion; position embeddings are resized by it.
    A classifier in the file is left out.

    Args:
        net: the timm model.
        path: ``.safetensors``, or a ``.pth`` with tensors only (``weights_only=True``).
        strict: every key must fit. Else what fits by timm's name and by shape is taken: a net
            that was made shallower starts from the part that it shares with a deeper one.

    Returns:
        What must be known about the weights: how many tensors stayed random; or "".

    Raises:
        ArtifactNetError: the file is missing, unreadable or of another architecture.
    """
    from timm.models import load_state_dict

    try:
        state = load_state_dict(path)
    except Exception as error:  # whatever the reader raises, the answer is about this file
        why = str(error) or type(error).__name__
        raise ArtifactNetError(f"model.weights {path}: cannot be read: {why}") from error
    ours = {k.removeprefix(_OURS): v for k, v in state.items() if k.startswith(_OURS)}
    state = ours or state
    classifier = (net.pretrained_cfg or {}).get("classifier") or ()
    classifiers = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    convert = getattr(sys.modules[type(net).__module__], "checkpoint_filter_fn", None)
    own = net.state_dict()
    if not strict:  # conversions look up every key in the net
        state = {k: v for k, v in state.items() if k in own}
    try:
        state = convert(state, net) if convert else state
        dropped = tuple(f"{name}." for name in classifiers)
        state = {k: v for k, v in state.items() if not (dropped and k.startswith(dropped))}
        if not strict:
            state = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
        missing, unexpected = net.load_state_dict(state, strict=False)
    except (RuntimeError, KeyError, AttributeError) as error:
        first = str(error).strip().splitlines()[-1].strip()
        raise ArtifactNetError(f"model.weights {path}: other architecture: {first}") from error
    if not strict and state:
        notice = (
            f"the backbone took {len(state)} tensors from {Path(path).name}; "
            f"{len(missing)} started from RANDOM weights, e.g. {next(iter(missing), '-')}"
        )
        _log.warning(notice)
        return notice if len(missing) > _FEW * len(own) else ""
    if missing or unexpected:
        raise ArtifactNetError(
            f"model.weights {path}: other architecture: {len(missing)} keys missing "
            f"(e.g. {next(iter(missing), '-')}), {len(unexpected)} unexpected "
            f"(e.g. {next(iter(unexpected), '-')})"
        )
    return ""


def why_no_rollout(net: Any, name: str) -> str | None:
    """Reason why attention rollout does not apply to a timm model, or None.

    Args:
        net: the model.
        name: what the reason calls it.
    """
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
