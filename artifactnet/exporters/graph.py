"""A model as one graph that takes 8-bit images: preprocessing inside, outputs by name."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

import torch
from torch import Tensor, nn

from artifactnet.config import LoraConfig, to_dict
from artifactnet.inference.backends.metadata import HEAD, NONE, SEGMENTATION, ExportFacts
from artifactnet.inference.backends.session import runtime_errors
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.models.heads.segmentation import any_artifact
from artifactnet.models.state import evaluating
from artifactnet.types import ArtifactNetError

MODEL = "model"  # attribute of the graph below which the model's own names begin
_EXAMPLE = 2  # images of the example; a batch of one would be taken for a constant


def facts_of(model: ArtifactNet, heatmap: bool = True) -> ExportFacts:
    """The metadata of an export of a model; ``heatmap=False`` leaves its map out.

    Raises:
        ArtifactNetError: the model's only map cannot be exported.
    """
    config = copy.deepcopy(model.config)
    config.weights, config.lora = None, LoraConfig()  # the file holds all weights, merged
    config.mean, config.std = list(model.mean), list(model.std)
    notices = list(model.notices)
    if config.heatmap.head == "mapper" and config.heatmap.adaptive:
        height, width = model.image_size
        notices.append(
            f"exported for images of {height}x{width}: the original model cuts each image into "
            "tiles by its own size and shape (model.heatmap.adaptive)"
        )
    return ExportFacts(
        version=version("artifactnet"),
        model=json.loads(json.dumps(to_dict(config))),
        classes=("real", "fake"),
        categories=model.known_categories if model.has_segmentation else (),
        threshold=config.threshold,
        map_threshold=config.map_threshold,
        fake_from=config.fake_from,
        real_below=config.real_below,
        mean=tuple(model.mean),
        std=tuple(model.std),
        image_size=model.image_size,
        resize=config.resize,
        patch_size=model.backbone.patch_size or 1,
        heatmap=_map_of(model) if heatmap else NONE,
        notices=tuple(notices),
    )


def _map_of(model: ArtifactNet) -> str:
    if model.has_segmentation:
        return SEGMENTATION
    if model.has_heatmap:
        return HEAD
    if model.has_attention:
        raise ArtifactNetError(
            f"the only map of this model is its {model.config.attention.method}, which needs the "
            "network's inner values and cannot be exported; export the verdict alone "
            "(--no-heatmap), or distil it into a student with a heatmap head"
        )
    return NONE


class ExportGraph(nn.Module):
    """(B, H, W, 3) uint8 RGB in; the outputs that ``facts`` name out."""

    scale: Tensor
    shift: Tensor

    def __init__(self, model: ArtifactNet, facts: ExportFacts) -> None:
        super().__init__()
        self.model = model
        self.heatmap = facts.heatmap
        self.size = facts.image_size
        std = torch.tensor(facts.std, dtype=torch.float64)
        mean = torch.tensor(facts.mean, dtype=torch.float64)
        self.register_buffer("scale", (1 / (255 * std)).float()[:, None, None], persistent=False)
        self.register_buffer("shift", (mean / std).float()[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Outputs in the order of `ExportFacts.outputs`.

        Args:
            images: (B, H, W, 3) uint8, sRGB, at model size.

        Returns:
            logit (B,); heatmap (B, h, w) in [0, 1]: a heatmap head's own grid, or the
            probability of any artifact at model size; sigma (B, h, w) > 0; score (B,).
        """
        pixels = images.permute(0, 3, 1, 2).float() * self.scale - self.shift
        if self.heatmap == NONE:
            return (self.model(pixels).logit,)
        if self.heatmap == HEAD:
            output = self.model(pixels, heatmap=True)
            return output.logit, output.heatmap, output.sigma, output.score
        output = self.model(pixels, segmentation=True)
        return output.logit, any_artifact(output.segmentation, self.size)


def export_program(model: ArtifactNet, facts: ExportFacts) -> torch.export.ExportedProgram:
    """Trace a model with `torch.export`, for any batch size; stack traces are removed.

    Raises:
        ArtifactNetError: the model is not on the CPU, or cannot be traced.
    """
    if any(weight.device.type != "cpu" for weight in model.parameters()):
        raise ArtifactNetError("a model is exported from the CPU; load it with device='cpu'")
    graph = ExportGraph(model, facts)
    example = torch.zeros(_EXAMPLE, *facts.image_size, 3, dtype=torch.uint8)
    batch = {0: torch.export.Dim.DYNAMIC}
    with (
        runtime_errors(f"{model.config.backbone} cannot be exported"),
        evaluating(model),
        torch.no_grad(),
    ):
        graph(example)  # fills what networks cache: tracing would put symbols there for good
        program = torch.export.export(graph, (example,), dynamic_shapes=(batch,))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    return program


@contextmanager
def quiet_logger(name: str | None) -> Iterator[None]:
    """Shows only errors of a converter's logger inside; None: the root logger."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
