"""A second stream for the verdict: what a plain ViT sees in the whole image at low resolution.

The backbone sees fine detail and finds edited regions; a pretrained ViT's middle blocks tell whole
generated images apart. An image is fake if either of them is right: `either`.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from artifactnet.config import ContextConfig, ModelConfig
from artifactnet.models.backbone import why_no_rollout
from artifactnet.models.timm_net import create_net, normalization
from artifactnet.types import ArtifactNetError

_UNLIKELY = -4.0  # first logit: hardly a say until it has learned
PARTS = 2  # per block: class token and mean of the patches


def context_model(config: ContextConfig) -> ModelConfig:
    """The configuration of a context's ViT as a backbone, with all of its blocks."""
    return ModelConfig(
        backbone=config.backbone,
        pretrained=config.pretrained,
        image_size=[config.image_size, config.image_size],
    )


def either(a: Tensor, b: Tensor) -> Tensor:
    """Logit of ``1 - (1 - p_a)(1 - p_b)``, of two logits of equal shape (noisy-or).

    The odds of either are ``o_a + o_b + o_a o_b``.
    """
    return torch.logsumexp(torch.stack([a, b, a + b]), 0)


class ContextStream(nn.Module):
    """(B, 3, H, W) normalised images to the (B,) logit that they are generated as a whole.

    Class token and mean of the patches of a few blocks, and one linear layer.
    Blocks behind the last of these are dropped.

    Args:
        config: ``model.context``.
        mean, std: the normalisation of the images that will come.
        net: the ViT with its weights, from `timm_net.create_net`; None: a new one, random.

    Raises:
        ArtifactNetError: the backbone is no plain ViT, or has too few blocks.
    """

    def __init__(
        self,
        config: ContextConfig,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        net: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.net = cast(Any, create_net(context_model(config)) if net is None else net)
        reason = why_no_rollout(self.net, config.backbone)
        if reason is not None:
            raise ArtifactNetError(f"model.context.backbone must be a plain ViT: {reason}")
        patch = self.net.patch_embed.feat_ratio()
        if config.image_size % patch:
            raise ArtifactNetError(
                f"model.context.image_size {config.image_size} is not a multiple of the patch size "
                f"{patch} of {config.backbone}"
            )
        depth = len(self.net.blocks)
        if config.blocks[-1] >= depth:
            raise ArtifactNetError(
                f"model.context.blocks names {config.blocks[-1]}, but {config.backbone} has "
                f"{depth} blocks, counted from 0"
            )
        del self.net.blocks[config.blocks[-1] + 1 :]
        self.blocks = list(config.blocks)
        self.side = config.image_size
        self.num_features: int = PARTS * len(self.blocks) * self.net.embed_dim
        self.head = nn.Linear(self.num_features, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.constant_(self.head.bias, _UNLIKELY)
        own_mean, own_std = normalization(self.net)
        self._scale = tuple(theirs / ours for theirs, ours in zip(std, own_std, strict=True))
        self._shift = tuple(
            (theirs - ours) / scale
            for theirs, ours, scale in zip(mean, own_mean, own_std, strict=True)
        )

    def features(self, images: Tensor) -> Tensor:
        """(B, num_features) of (B, 3, H, W) images, float32 or wider."""
        small = _shrink(images, self.side)
        if any(scale != 1 for scale in self._scale) or any(self._shift):
            small = small * small.new_tensor(self._scale).view(3, 1, 1)
            small = small + small.new_tensor(self._shift).view(3, 1, 1)
        levels = self.net.forward_intermediates(
            small,
            indices=self.blocks,
            return_prefix_tokens=True,
            norm=True,
            output_fmt="NLC",
            intermediates_only=True,
        )
        parts = []
        for patches, prefix in levels:
            patches = patches.to(torch.promote_types(patches.dtype, torch.float32))
            parts += [prefix[:, 0].to(patches.dtype), patches.mean(1)]
        return torch.cat(parts, 1)

    def forward(self, images: Tensor) -> Tensor:
        """The logit."""
        return self.head(self.features(images).to(self.head.weight.dtype))[:, 0]


def _shrink(images: Tensor, side: int) -> Tensor:
    """(B, 3, H, W) to (B, 3, side, side): whole pixels are averaged first, against aliasing."""
    height, width = images.shape[-2:]
    step = (max(1, int(height) // side), max(1, int(width) // side))
    if step != (1, 1):
        images = F.avg_pool2d(images, step)
    return F.interpolate(images, (side, side), mode="bilinear")
