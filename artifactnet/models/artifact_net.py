"""ArtifactNet: a timm backbone with heads for verdict, masks and heatmaps, and attention maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from artifactnet.config import ModelConfig
from artifactnet.models.attention import rollout
from artifactnet.models.attention.requirements import cannot_hold, refused_block
from artifactnet.models.attention.tap import AttentionLayer, AttentionTap
from artifactnet.models.backbone import Backbone, Tried
from artifactnet.models.context import ContextStream, either
from artifactnet.models.grad_cam import grad_cam
from artifactnet.models.heads.classification import ClassificationHead, EvidenceHead
from artifactnet.models.heads.decoder import Decoder, HeatmapOutput
from artifactnet.models.heads.hierarchy import HierarchicalHead
from artifactnet.models.heads.segmentation import SegmentationHead, artifact_log_odds
from artifactnet.models.heads.tiling import cut
from artifactnet.models.lora import add_adapters
from artifactnet.models.state import evaluating
from artifactnet.taxonomy import BY_LABEL, CATEGORIES
from artifactnet.types import ArtifactNetError, ModelOutput

_LOGIT_EPS = 1e-4  # a heatmap's log-odds lie within +-9.2


class ArtifactNet(nn.Module):
    """Verdict, artifact segmentation, heatmaps, and attention that can be trained and shown.

    All weights are random: `create.create_model` and `checkpoint.load_checkpoint` give others.
    ``net`` is the timm module to build on, see `timm_net.create_net`, ``context`` that of
    ``config.context``; None: a new one. ``tried``: see `backbone.Backbone`.

    Attributes:
        image_size: (height, width) of the preprocessing, pixels.
        mean, std: per-channel normalisation of images in [0, 1].
        grid: (h, w) cells of the attention map of an image of ``image_size``, or None.
        has_attention: whether ``config.attention.method`` gives a map; `no_attention` says why not.
        has_segmentation: whether there is a segmentation head.
        has_heatmap, has_score: whether there is a heatmap head; its map replaces the attention.
        notices: what every output must repeat, e.g. that pretrained weights were not found.

    Raises:
        ArtifactNetError: an impossible configuration; the message names the key.
    """

    def __init__(
        self,
        config: ModelConfig,
        net: nn.Module | None = None,
        context: nn.Module | None = None,
        tried: Tried | None = None,
    ) -> None:
        super().__init__()
        if not 0 < config.temperature < math.inf:  # also for NaN
            raise ArtifactNetError(
                f"model.temperature must be a finite number above 0, not {config.temperature}"
            )
        self.config = config
        self.backbone = Backbone(config, net, tried)
        self.head = ClassificationHead(self.backbone.num_features)
        self.has_segmentation = config.segmentation.head != "none"
        self.has_heatmap = self.has_score = config.heatmap.head != "none"
        if self.backbone.no_pyramid is not None and (self.has_segmentation or self.has_heatmap):
            key = "model.segmentation.head" if self.has_segmentation else "model.heatmap.head"
            raise ArtifactNetError(f"{key}: {self.backbone.no_pyramid}")
        self.segmentation: SegmentationHead | None = None
        if self.has_segmentation:
            channels, hierarchical = self.backbone.level_channels, self.backbone.hierarchical
            self.segmentation = SegmentationHead(config.segmentation, channels, hierarchical)
        self.heatmap: nn.Module | None = None
        if self.has_heatmap:
            kind = HierarchicalHead if config.heatmap.head == "mapper" else Decoder
            self.heatmap = kind(config.heatmap, self.backbone.level_channels)
        self.evidence: EvidenceHead | None = None
        if config.segmentation.evidence or self.has_heatmap:
            self.evidence = EvidenceHead()
        self.context: ContextStream | None = None
        if config.context.backbone:
            mean, std = self.backbone.mean, self.backbone.std
            self.context = ContextStream(config.context, mean, std, context)
        self.notices: tuple[str, ...] = ()
        self.image_size: tuple[int, int] = (config.image_size[0], config.image_size[1])
        self.mean = self.backbone.mean
        self.std = self.backbone.std
        self.no_attention = self._why_no_attention()
        self.has_attention = self.no_attention is None
        rollout_depth = 0 if self._uses_cam else self.backbone.depth
        start = config.attention.start_layer
        if self.has_attention and rollout_depth and not -rollout_depth <= start < rollout_depth:
            raise ArtifactNetError(
                f"model.attention.start_layer is {start}, but {config.backbone} has "
                f"{rollout_depth} blocks, counted from 0 (or back from -1)"
            )
        if config.lora.rank:
            add_adapters(self.backbone.net, config.lora)
        self._frozen: tuple[str, ...] = ()

    @property
    def _uses_cam(self) -> bool:
        return self.config.attention.method == "grad_cam"

    @property
    def _tiled(self) -> bool:
        return self.config.heatmap.head == "mapper"

    def _why_no_attention(self) -> str | None:
        if self.has_heatmap:
            return "its heatmap is predicted by a head (model.heatmap.head)"
        no_map, no_rollout = self.backbone.no_map, self.backbone.no_rollout
        reason = no_map if self._uses_cam else no_rollout
        if reason is None:
            return None
        if self._uses_cam:
            reason += ", so grad_cam of its last stage does not apply"
        if no_map is None:
            return f"{reason}; model.attention.method=grad_cam maps its last stage instead"
        if no_rollout is None:
            return f"{reason}; use model.attention.method=rollout"
        average = "; model.backbone_kwargs.global_pool=avg with model.attention.method=grad_cam"
        return f"{reason}{average} gives one" if self.backbone.could_average else reason

    @property
    def grid(self) -> tuple[int, int] | None:
        """Cells (h, w) of the map of an image of ``image_size``; None without a map.

        Raises:
            ArtifactNetError: the image does not fill whole cells, so none has a place of its own.
        """
        if not self.has_attention:
            return None
        return self._cells() if self._uses_cam else self._patches_of(*self.image_size)

    @property
    def known_categories(self) -> tuple[int, ...]:
        """Indices 1..7 of the categories that the segmentation head was trained on."""
        labels = self.config.segmentation.categories
        if labels is None:
            return tuple(category.index for category in CATEGORIES)
        return tuple(sorted(BY_LABEL[label].index for label in labels))

    def _patches_of(self, height: int, width: int) -> tuple[int, int]:
        cell = self.backbone.patch_size
        assert cell
        if height < cell or width < cell or height % cell or width % cell:
            raise ArtifactNetError(
                f"an image of {height}x{width} pixels does not fill whole patches of {cell}"
            )
        return height // cell, width // cell

    def _cells(self) -> tuple[int, int]:
        (height, width), grid = self.image_size, self.backbone.map_grid
        assert grid is not None
        cell = self.backbone.reduction or height // grid[0]
        if (height, width) != (grid[0] * cell, grid[1] * cell):
            raise ArtifactNetError(
                f"an image of {height}x{width} pixels does not fill whole cells of {cell}: the "
                f"last features of {self.config.backbone} have {grid[0]}x{grid[1]}; set "
                f"model.image_size to multiples of {cell}"
            )
        return grid

    def parts(self) -> dict[str, list[nn.Module]]:
        """What can be frozen or trained on its own, e.g. backbone, head, heatmap, context."""
        parts: dict[str, list[nn.Module]] = {"backbone": [self.backbone], "head": [self.head]}
        if self.evidence is not None:
            parts["head"].append(self.evidence)
        if self.segmentation is not None:
            parts["segmentation"] = [self.segmentation]
        if self.heatmap is not None:
            parts["heatmap"] = [self.heatmap]
        if self.context is not None:
            parts["context"] = [self.context.net]
            parts["head"].append(self.context.head)
        return parts

    def freeze(self, parts: Sequence[str]) -> None:
        """Stop parts from learning, batch statistics included.

        Args:
            parts: names as in `parts`; one that the model lacks is passed over.
        """
        self._frozen = tuple(part for part in parts if part in self.parts())
        for part in self._frozen:
            for module in self.parts()[part]:
                module.requires_grad_(False)
        self.train(self.training)

    def freeze_blocks(self, count: int) -> None:
        """Stop a plain ViT's embeddings and its first ``count`` (>= 1) blocks from learning.

        Raises:
            ArtifactNetError: the backbone is no plain ViT, or has no more than ``count`` blocks.
        """
        if not count < self.backbone.depth:
            raise ArtifactNetError(
                f"freeze_blocks is {count}, but {self.config.backbone} has {self.backbone.depth} "
                "blocks over one patch grid; use a smaller number, or freeze=[backbone]"
            )
        net = self.backbone.net
        for module in (net.patch_embed, *net.blocks[:count]):
            module.requires_grad_(False)
        for name in ("cls_token", "reg_token", "pos_embed"):
            embedding = getattr(net, name, None)
            if embedding is not None:
                embedding.requires_grad = False

    def train(self, mode: bool = True) -> ArtifactNet:
        """Training or evaluation mode; frozen parts stay in evaluation mode."""
        super().train(mode)
        for part in getattr(self, "_frozen", ()):
            for module in self.parts()[part]:
                module.eval()
        return self

    def forward(
        self,
        images: torch.Tensor,
        *,
        attention: bool = False,
        segmentation: bool = False,
        heatmap: bool = False,
        create_graph: bool = False,
    ) -> ModelOutput:
        """Run a batch.

        Args:
            images: (B, 3, H, W) normalised with ``mean`` and ``std``; H and W fill whole patches.
            attention: also compute the attention map (`ModelOutput.attention`, `.heatmap`).
            segmentation: also compute `ModelOutput.segmentation`, in training `.auxiliary` too.
            heatmap: also predict `ModelOutput.heatmap`, `.sigma`, `.score` and `.levels`.
            create_graph: the map will be trained on; otherwise it carries no gradient.

        Raises:
            ArtifactNetError: a map is requested that ``attention.method`` does not give for this
                backbone, or a segmentation or heatmap of a model without its head.
        """
        if heatmap and not self.has_heatmap:
            raise ArtifactNetError("no heatmap head: the model has model.heatmap.head=none")
        if segmentation and not self.has_segmentation:
            raise ArtifactNetError("no segmentation: the model has model.segmentation.head=none")
        if not attention:
            return self._calibrated(self._predict(images, segmentation, heatmap=heatmap)[0])
        if not self.has_attention:
            raise ArtifactNetError(f"no attention map: {self.no_attention}")
        if self._uses_cam:
            output, raw = self._cam(images, segmentation, create_graph)
        else:
            grid = self._patches_of(*images.shape[-2:])
            method = self.config.attention.method
            row_of = self._gradient_row if method == "gradient_rollout" else self._standard_row
            output, row = row_of(images, segmentation, create_graph)
            raw = rollout.patch_map(row, self.backbone.prefix_tokens, grid)
        output.attention = raw
        output.heatmap = rollout.normalize(raw, self.config.attention.normalization)
        return self._calibrated(output)

    def _calibrated(self, output: ModelOutput) -> ModelOutput:
        """Divide the logit by the temperature, after maps were made of its gradient.

        A map has an absolute scale, and the thresholds that belong to it; confidence is another
        matter.
        """
        if self.config.temperature != 1:
            output.logit = output.logit / self.config.temperature
        return output

    def _predict(
        self, images: torch.Tensor, segmentation: bool, watch: bool = False, heatmap: bool = False
    ) -> tuple[ModelOutput, torch.Tensor]:
        """Output without a map, and the backbone's last features.

        With ``watch`` these are (B, C, h, w), and the logit always has a gradient in them.
        """
        if self._tiled:
            return self._predict_tiles(images, heatmap)
        dense = segmentation or self.evidence is not None
        final, levels = self.backbone.features(images, pyramid=dense)
        if watch:
            last, final = final, self.backbone.feature_map(final)
            final = final if final.requires_grad else final.detach().requires_grad_()
        # pooling by attention: fused kernels have no second derivative
        kernel = sdpa_kernel(SDPBackend.MATH) if watch else nullcontext()
        with kernel, torch.set_grad_enabled(watch or torch.is_grad_enabled()):
            pooled = self.backbone.pool_map(final, last) if watch else self.backbone.pool(final)
            output = ModelOutput(self.head(pooled), feature=pooled)
        if self.heatmap is not None:
            self._add_heatmap(output, self.heatmap(levels, images.shape[-2:]), heatmap)
        if dense and self.segmentation is not None:
            auxiliary = segmentation and self.segmentation.training
            logits, output.auxiliary = self.segmentation(levels, auxiliary)
            output.segmentation = logits if segmentation else None
            if self.config.segmentation.evidence:
                assert self.evidence is not None
                more = self.evidence(artifact_log_odds(logits))
                with torch.set_grad_enabled(watch or torch.is_grad_enabled()):
                    output.logit = output.logit + more
        if self.context is not None:
            output.logit = either(output.logit, self.context(images))
        return output, final

    def _predict_tiles(
        self, images: torch.Tensor, heatmap: bool
    ) -> tuple[ModelOutput, torch.Tensor]:
        """`_predict` of thumbnail and tiles: the verdict weighs both equally."""
        thumbnails, tiles, grid = cut(images, self.config.heatmap.tile)
        final, levels = self.backbone.features(torch.cat([thumbnails, tiles]), pyramid=True)
        count = images.shape[0]  # len() would fix the batch in an exported graph
        pooled = self.backbone.pool(final)
        both = (pooled[:count] + pooled[count:].unflatten(0, (count, -1)).mean(1)) / 2
        output = ModelOutput(self.head(both), feature=both)
        assert self.heatmap is not None
        parts = [level[:count] for level in levels], [level[count:] for level in levels]
        self._add_heatmap(output, self.heatmap(*parts, grid), heatmap)
        return output, final

    def _add_heatmap(self, output: ModelOutput, result: HeatmapOutput, shown: bool) -> None:
        """Add the evidence of the heatmap to the logit; maps and score, if requested."""
        assert self.evidence is not None
        odds = torch.logit(result.heatmap.float(), eps=_LOGIT_EPS)
        output.logit = output.logit + self.evidence(odds)
        if shown:
            output.heatmap, output.sigma = result.heatmap, result.sigma
            output.score, output.levels = result.score, result.levels

    def _cam(
        self, images: torch.Tensor, segmentation: bool, create_graph: bool
    ) -> tuple[ModelOutput, torch.Tensor]:
        """Output and the raw activation map of the last stage, whatever the grad mode."""
        outer = torch.is_grad_enabled()
        with torch.inference_mode(False), torch.set_grad_enabled(outer):
            if images.is_inference():
                images = images.clone()
            output, final = self._predict(images, segmentation, watch=True)
            with torch.enable_grad():
                raw = grad_cam(output.logit, final, create_graph and outer)
        if not (create_graph and outer):
            raw = raw.detach()
        if not outer:
            output.logit = output.logit.detach()
        return output, raw

    @property
    def _rollout_options(self) -> dict[str, Any]:
        names = ("head_fusion", "discard_ratio", "start_layer", "form")
        return {name: getattr(self.config.attention, name) for name in names}

    def _standard_row(
        self, images: torch.Tensor, segmentation: bool, create_graph: bool
    ) -> tuple[ModelOutput, torch.Tensor]:
        with AttentionTap() as tap:
            output, _ = self._predict(images, segmentation)
        self._check_blocks(tap.layers, images)
        with torch.set_grad_enabled(create_graph and torch.is_grad_enabled()):
            row = rollout.attention_rollout(tap.layers, **self._rollout_options)
        return output, row

    def _gradient_row(
        self, images: torch.Tensor, segmentation: bool, create_graph: bool
    ) -> tuple[ModelOutput, torch.Tensor]:
        """The map needs a gradient even where the caller wants none."""
        second_order = self.config.attention.second_order
        outer = torch.is_grad_enabled()
        exact = create_graph and second_order
        # fused kernels have no second derivative
        kernel = sdpa_kernel(SDPBackend.MATH) if exact else nullcontext()
        with torch.inference_mode(False), torch.enable_grad(), kernel:
            if images.is_inference():
                images = images.clone()
            with AttentionTap(differentiable=True, fused=not exact) as tap:
                output, _ = self._predict(images, segmentation)
            self._check_blocks(tap.layers, images)
            row = rollout.gradient_rollout(
                output.logit,
                tap.layers,
                second_order=second_order,
                create_graph=create_graph,
                **self._rollout_options,
            )
        if not outer:
            output.logit = output.logit.detach()
            if output.segmentation is not None:
                output.segmentation = output.segmentation.detach()
        return output, row

    def check_attention(self, images: torch.Tensor) -> None:
        """Refuse, before a first step, attention that a rollout would misread or cannot hold.

        Raises:
            ArtifactNetError: a rollout of these (B, 3, H, W) images is impossible; names the block,
                its class and the reason, or the missing memory.
        """
        if self._uses_cam or not self.has_attention:
            return
        reason = self._refused_block(images) or cannot_hold(
            self.config.attention, self.backbone.net.blocks, images, self._tokens_of(images)
        )
        if reason is not None:
            raise ArtifactNetError(f"rollout of {self.config.backbone}: {reason}")

    def _tokens_of(self, images: torch.Tensor) -> int:
        height, width = self._patches_of(*images.shape[-2:])
        return self.backbone.prefix_tokens + height * width

    def _refused_block(self, images: torch.Tensor) -> str | None:
        run = partial(self.backbone.features, images, pyramid=False)
        with evaluating(self):
            return refused_block(self.backbone.net.blocks, self._tokens_of(images), run)

    def _check_blocks(self, layers: list[AttentionLayer], images: torch.Tensor) -> None:
        """A block that computes attention in its own way would silently drop out of the map."""
        tokens = self._tokens_of(images)
        if len(layers) == self.backbone.depth and all(x.q.shape[2] == tokens for x in layers):
            return
        reason = self._refused_block(images[:1]) or (
            f"{len(layers)} blocks attend to {layers[0].q.shape[2]} of {tokens} tokens in "
            "training; is model.backbone_kwargs.patch_drop_rate set?"
        )
        raise ArtifactNetError(f"rollout of {self.config.backbone}: {reason}")
