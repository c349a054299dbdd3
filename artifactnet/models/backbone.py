"""A timm model as a backbone: its features, where they are in the image, and its pyramid."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from artifactnet.config import ModelConfig
from artifactnet.models.conv_stem import add_stem
from artifactnet.models.dry_run import dry_run, first_line
from artifactnet.models.pyramid import is_hierarchy, level_indices
from artifactnet.models.timm_net import (
    PLAIN_VIT_FILES,
    create_net,
    net_size,
    normalization,
    run_net,
    size_key,
    why_unfit,
)
from artifactnet.types import ArtifactNetError


class Tried(NamedTuple):
    """What a net gave for an empty image, saved with a model: trying it again takes seconds.

    Attributes:
        num_features, level_channels, no_pyramid: see `Backbone`.
        final: shape of the last features; None: they are no tensor.
    """

    num_features: int
    level_channels: tuple[int, ...]
    no_pyramid: str | None
    final: tuple[int, ...] | None


class Backbone(nn.Module):
    """A timm model without its classifier, tried on empty images of the configured size.

    ``net`` comes from `create_net`; None: a new one, with random weights. ``tried`` is what an
    earlier backbone of this configuration found; None: try it.

    Attributes:
        net: the timm module.
        num_features: channels of the pooled feature.
        mean, std: the normalisation its weights expect.
        size: (height, width) of the images that reach the net: ``model.image_size``, or a tile.
        patch_size: side of a patch in pixels, or None where there is no plain patch grid.
        prefix_tokens, depth: class and register tokens before the patches, and number of attention
            blocks (both 0 without a plain grid).
        no_rollout: None if rollout applies, otherwise why it does not.
        map_grid: cells (h, w) that the last features of an image of ``size`` have.
        no_map: None if the pooled feature is made of such a map, otherwise why it is not.
        could_average: it would be, if ``global_pool`` were ``avg``.
        hierarchical: later features are coarser than earlier ones (Swin, ConvNeXt, ResNet).
        reduction: stride of the last features as timm has it, pixels; 0: it does not say.
        level_channels: channels of the pyramid's levels, finest first.
        no_pyramid: None if there is a feature pyramid, otherwise why there is none.

    Raises:
        ArtifactNetError: the model takes no image of this size (the message names sizes that it
            takes), or gives no feature of an image.
    """

    def __init__(
        self, config: ModelConfig, net: nn.Module | None = None, tried: Tried | None = None
    ) -> None:
        super().__init__()
        self.size = net_size(config)
        if net is None:
            net = create_net(config)
            add_stem(net, config)
        self.net = cast(Any, net)  # timm models have no common type
        mean, std = normalization(self.net)
        self.mean = tuple(config.mean or mean)
        self.std = tuple(config.std or std)
        self.no_rollout = why_no_rollout(self.net, config.backbone)
        plain = self.no_rollout is None
        # behind a ResNet a patch covers more pixels than its own sides say
        self.patch_size: int | None = self.net.patch_embed.feat_ratio() if plain else None
        self.prefix_tokens: int = self.net.num_prefix_tokens if plain else 0
        self.depth: int = len(self.net.blocks) if plain else 0
        if self.patch_size:
            _check_patches(config, self.size, self.patch_size)
        self._find_levels(config.backbone)
        self.tried = self._try(config) if tried is None else tried
        self.num_features: int = self.tried.num_features
        self.level_channels: tuple[int, ...] = self.tried.level_channels
        self.no_pyramid: str | None = self.tried.no_pyramid
        self._find_map(config.backbone, self.tried.final)

    def _find_levels(self, name: str) -> None:
        """Ask timm which features make a pyramid."""
        info = getattr(self.net, "feature_info", None) or []
        info = getattr(info, "info", info)
        reductions = [stage["reduction"] for stage in info]
        self.hierarchical = is_hierarchy(reductions)
        self.reduction: int = reductions[-1] if reductions else 0
        self.level_channels = ()
        self.no_pyramid = None
        try:
            if not hasattr(self.net, "forward_intermediates"):
                raise ValueError("timm cannot return its intermediate features")
            self._levels = level_indices(reductions)
        except ValueError as error:
            self.no_pyramid = f"{name} has no feature pyramid: {error}"
        else:
            self.level_channels = tuple(info[k]["num_chs"] for k in self._levels)

    def _try(self, config: ModelConfig) -> Tried:
        """What an empty image says."""
        needs_pyramid = config.segmentation.head != "none" or config.heatmap.head != "none"
        channels, no_pyramid = self.level_channels, self.no_pyramid
        if needs_pyramid and no_pyramid is None:
            run = partial(_run_pyramid, indices=list(self._levels))
            try:
                final, pooled, levels = dry_run(self.net, self.size, run)
            except Exception as error:  # the net may run all the same
                no_pyramid = f"{config.backbone} has no feature pyramid: {first_line(error)}"
            else:
                channels = tuple(level.shape[1] for level in levels)
        if not needs_pyramid or no_pyramid is not None:
            try:
                final, pooled = dry_run(self.net, self.size, run_net)
            except Exception as error:
                raise ArtifactNetError(why_unfit(config, error)) from error
        if not isinstance(pooled, torch.Tensor) or pooled.ndim != 2:
            raise ArtifactNetError(
                f"model.backbone {config.backbone} gives no feature (B, C) of an image; choose a "
                "model that classifies images"
            )
        shape = tuple(final.shape) if isinstance(final, torch.Tensor) else None
        return Tried(pooled.shape[1], channels, no_pyramid, shape)

    def _find_map(self, name: str, final: tuple[int, ...] | None) -> None:
        """Where the cells are in the last features, and whether the pooled feature sees them."""
        self.map_grid: tuple[int, int] | None = None
        self.no_map: str | None = None
        self._channels_last = self._tokens = False
        self._map_prefix = 0
        if final is not None and len(final) == 4:
            self._channels_last = _channels_last(self.net)
            axes = (1, 2) if self._channels_last else (2, 3)
            self.map_grid = (final[axes[0]], final[axes[1]])
        elif final is not None and len(final) == 3:
            self.map_grid, self._map_prefix = token_grid(self.net, self.size, final[1])
            self._tokens = True
        by_token = self._tokens and str(getattr(self.net, "global_pool", "")) == "token"
        self.could_average = by_token and self.map_grid not in (None, (1, 1))
        if self.map_grid is None or self.map_grid == (1, 1):
            self.no_map = f"the last features of {name} are no map of the image"
        elif self.could_average:
            self.no_map = (
                f"{name} does not average a feature map: it is classified by its class token alone"
            )

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
        """The last features of a net without `no_map` as (B, C, h, w), for images of ``size``."""
        if self._tokens:
            assert self.map_grid is not None
            return final[:, self._map_prefix :].transpose(1, 2).unflatten(2, self.map_grid)
        return final.permute(0, 3, 1, 2) if self._channels_last else final

    def pool_map(self, features: torch.Tensor, final: torch.Tensor) -> torch.Tensor:
        """Pooled feature (B, num_features) of what `feature_map` made of ``final``."""
        if self._tokens:
            cells = features.flatten(2).transpose(1, 2)
            return self.pool(torch.cat([final[:, : self._map_prefix], cells], 1))
        return self.pool(features.permute(0, 2, 3, 1) if self._channels_last else features)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Pooled features (B, num_features) of normalised images (B, 3, H, W)."""
        return self.pool(self.features(images, pyramid=False)[0])


def _run_pyramid(
    net: Any, image: torch.Tensor, indices: list[int]
) -> tuple[Any, Any, list[torch.Tensor]]:
    final, levels = net.forward_intermediates(image, indices=indices)
    if any(level.ndim != 4 for level in levels):
        raise ValueError("timm does not return its intermediate features as maps")
    return final, net.forward_head(final, pre_logits=True), levels


def _check_patches(config: ModelConfig, size: tuple[int, int], patch: int) -> None:
    height, width = size
    if height % patch or width % patch:
        near = " and ".join(
            "x".join(str(max(patch, (side // patch + step) * patch)) for side in size)
            for step in (0, 1)
        )
        raise ArtifactNetError(
            f"{size_key(config)} {height}x{width} is not a multiple of the patch size "
            f"{patch} of {config.backbone}; {near} are"
        )


def token_grid(net: Any, size: tuple[int, int], tokens: int) -> tuple[tuple[int, int] | None, int]:
    """Cells (h, w) of the patches among a timm model's tokens, and how many tokens precede them.

    The model's patch embedding says it. Of models that merge patches later, it is the grid of
    the image's proportions that these tokens fill. None: they fill no grid.
    """
    given = getattr(net, "num_prefix_tokens", None)
    # models add their prefix late, and not all say how long it is
    prefixes = dict.fromkeys((int(given), 0) if given is not None else (0, 1, 2))
    embedding: Any = getattr(net, "patch_embed", None)
    if hasattr(embedding, "dynamic_feat_size"):
        height, width = embedding.dynamic_feat_size(size)
        for prefix in prefixes:
            if height * width == tokens - prefix:
                return (height, width), prefix
    for prefix in prefixes:
        for stride in range(1, max(size) + 1):
            for height, width in (
                (size[0] // stride, size[1] // stride),
                (-(-size[0] // stride), -(-size[1] // stride)),
            ):
                if height * width == tokens - prefix:
                    return (height, width), prefix
    return None, 0


def _channels_last(net: Any) -> bool:
    return str(getattr(net, "output_fmt", "NCHW")) == "NHWC"


def why_no_rollout(net: Any, name: str) -> str | None:
    """Reason why attention rollout does not apply to a timm model called ``name``, or None."""
    file = type(net).__module__.rsplit(".", 1)[-1]
    if file not in PLAIN_VIT_FILES or not hasattr(net, "blocks"):
        return (
            f"{name} ({type(net).__name__}) has no global attention over one patch grid, so "
            "rollout does not apply"
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
