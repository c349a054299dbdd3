"""ArtifactNet: a timm backbone, a fake-logit head, and the map of where it looks."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from artifactnet.config import ModelConfig
from artifactnet.models import rollout
from artifactnet.models.backbone import Backbone
from artifactnet.models.lora import add_adapters
from artifactnet.types import ArtifactNetError, ModelOutput


class ArtifactNet(nn.Module):
    """Authenticity judgment with class-token attention that can be trained and shown.

    Args:
        config: architecture and preprocessing.
        load_pretrained: False leaves the backbone's weights random without a word, for
            callers that load a checkpoint next.

    Attributes:
        config: as given.
        image_size: (height, width) of the preprocessing, pixels.
        mean, std: per-channel normalisation of images in [0, 1].
        grid: (h, w) patches of an image of ``image_size``, or None without a patch grid.
        has_attention: whether rollout maps can be had; `no_attention` says why not.
        notices: what every output must repeat, e.g. that pretrained weights were not found.
    """

    def __init__(self, config: ModelConfig, *, load_pretrained: bool = True) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config, load_pretrained)
        self.head = nn.Linear(self.backbone.num_features, 1)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        self.notices: tuple[str, ...] = (self.backbone.notice,) if self.backbone.notice else ()
        self.image_size: tuple[int, int] = (config.image_size[0], config.image_size[1])
        self.mean = self.backbone.mean
        self.std = self.backbone.std
        self.no_attention = self.backbone.no_rollout
        self.has_attention = self.no_attention is None
        if self.has_attention and config.attention.start_layer >= self.backbone.depth:
            raise ArtifactNetError(
                f"model.attention.start_layer is {config.attention.start_layer}, but "
                f"{config.backbone} has {self.backbone.depth} blocks, counted from 0"
            )
        if config.lora.rank:
            add_adapters(self.backbone.net, config.lora)

    @property
    def grid(self) -> tuple[int, int] | None:
        """Patches (h, w) of an image of ``image_size``; None without a patch grid."""
        return self._grid_of(*self.image_size) if self.has_attention else None

    def _grid_of(self, height: int, width: int) -> tuple[int, int]:
        patch = self.backbone.patch_size
        assert patch is not None
        if height < patch or width < patch or height % patch or width % patch:
            raise ArtifactNetError(
                f"an image of {height}x{width} pixels does not fill whole patches of {patch}"
            )
        return height // patch, width // patch

    def forward(
        self, images: torch.Tensor, *, attention: bool = False, create_graph: bool = False
    ) -> ModelOutput:
        """Judge a batch.

        Args:
            images: (B, 3, H, W) normalised with ``mean`` and ``std``; any H and W that fill
                whole patches.
            attention: also compute the attention map (`ModelOutput.attention`, `.heatmap`).
            create_graph: the map will be trained on; otherwise it carries no gradient.

        Raises:
            ArtifactNetError: ``attention`` is asked of a backbone without global attention.
        """
        if not attention:
            return ModelOutput(self.head(self.backbone(images))[:, 0])
        if not self.has_attention:
            raise ArtifactNetError(f"no attention map: {self.no_attention}")
        grid = self._grid_of(*images.shape[-2:])
        if self.config.attention.method == "gradient_rollout":
            logit, row = self._gradient_row(images, create_graph)
        else:
            logit, row = self._standard_row(images, create_graph)
        raw = rollout.patch_map(row, self.backbone.prefix_tokens, grid)
        heatmap = rollout.normalize(raw, self.config.attention.normalization)
        return ModelOutput(logit, raw, heatmap)

    def _standard_row(
        self, images: torch.Tensor, create_graph: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        options = self.config.attention
        with rollout.AttentionTap() as tap:
            logit = self.head(self.backbone(images))[:, 0]
        self._check_blocks(tap.layers)
        with torch.set_grad_enabled(create_graph and torch.is_grad_enabled()):
            row = rollout.attention_rollout(
                tap.layers,
                head_fusion=options.head_fusion,
                discard_ratio=options.discard_ratio,
                start_layer=options.start_layer,
            )
        return logit, row

    def _gradient_row(
        self, images: torch.Tensor, create_graph: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The map needs a gradient even where the caller wants none."""
        options = self.config.attention
        outer = torch.is_grad_enabled()
        exact = create_graph and options.second_order
        # fused kernels have no second derivative
        kernel = sdpa_kernel(SDPBackend.MATH) if exact else nullcontext()
        with torch.inference_mode(False), torch.enable_grad(), kernel:
            if images.is_inference():
                images = images.clone()
            with rollout.AttentionTap(differentiable=True) as tap:
                logit = self.head(self.backbone(images))[:, 0]
            self._check_blocks(tap.layers)
            row = rollout.gradient_rollout(
                logit,
                tap.layers,
                head_fusion=options.head_fusion,
                discard_ratio=options.discard_ratio,
                start_layer=options.start_layer,
                second_order=options.second_order,
                create_graph=create_graph,
            )
        return (logit if outer else logit.detach()), row

    def _check_blocks(self, layers: list[rollout.AttentionLayer]) -> None:
        """A block that computes attention in its own way would silently drop out of the map."""
        if len(layers) != self.backbone.depth:
            kind = type(getattr(self.backbone.net.blocks[0], "attn", self.backbone.net.blocks[0]))
            raise ArtifactNetError(
                f"rollout: {len(layers)} of {self.backbone.depth} blocks of "
                f"{self.config.backbone} use standard fused attention ({kind.__name__}); "
                "is timm's fused attention switched off (TIMM_FUSED_ATTN=0)?"
            )
