"""A model as one graph that takes 8-bit images: preprocessing inside, outputs by name."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from artifactnet.inference.backends.metadata import BOTH, HEAD, NONE, ExportFacts
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.models.heads import segmentation
from artifactnet.models.state import evaluating
from artifactnet.types import ArtifactNetError

INPUT = "images"
MODEL = "model"  # attribute of the graph below which the model's own names begin
_EXAMPLE = 2  # images of the example; a batch of one would be taken for a constant


class ExportGraph(nn.Module):
    """(B, H, W, 3) uint8 RGB in; logit, heatmap, sigma and score out, as far as there are any.

    Args:
        model: as it shall be exported.
        facts: its metadata; say what the outputs are.
    """

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
        head = self.heatmap in (HEAD, BOTH)
        output = self.model(pixels, heatmap=head, segmentation=self.heatmap != HEAD)
        shown = output.heatmap
        if self.heatmap != HEAD:
            shown = segmentation.any_artifact(output.segmentation, self.size)
        return (output.logit, shown, output.sigma, output.score) if head else (output.logit, shown)


def export_program(model: ArtifactNet, facts: ExportFacts) -> torch.export.ExportedProgram:
    """Trace a model with `torch.export`, for any batch size.

    Args:
        model: on the CPU; its flags are restored.
        facts: its metadata.

    Returns:
        The program, without the traces of source files that it would carry otherwise.

    Raises:
        ArtifactNetError: the model is not on the CPU, or does something that has no graph.
    """
    if any(weight.device.type != "cpu" for weight in model.parameters()):
        raise ArtifactNetError("a model is exported from the CPU; load it with device='cpu'")
    graph = ExportGraph(model, facts)
    example = torch.zeros(_EXAMPLE, *facts.image_size, 3, dtype=torch.uint8)
    batch = {0: torch.export.Dim.DYNAMIC}
    try:
        with evaluating(model), torch.no_grad():
            graph(example)  # fills what networks cache: tracing would put symbols there for good
            program = torch.export.export(graph, (example,), dynamic_shapes=(batch,))
    except Exception as error:  # whatever tracing raises, the answer is about this model
        raise ArtifactNetError(
            f"{model.config.backbone} cannot be exported: {first_line(error)}"
        ) from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    return program


def first_line(error: BaseException) -> str:
    """First line of an error that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
