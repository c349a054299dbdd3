"""One image with a question and the text that HEIE shall answer, and batches of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from artifactnet.mllm.chain_of_thought import parse
from artifactnet.mllm.processing import IGNORED, Inputs, Processing
from artifactnet.mllm.template import TEMPLATE, describe
from artifactnet.types import Annotation, ArtifactNetError, Record, Sample, UInt8Array

# one is drawn for each image and epoch, so that the answer does not hang on the wording
QUESTIONS = (
    "Identify and describe every problematic region in this AIGC image.",
    "Find every region of this AIGC image that looks wrong and explain why.",
    "Which parts of this AI-generated image are implausible? Describe each of them.",
    "Point out all flaws of this AIGC image, with a reason for each.",
    "Examine this AIGC image and report all artifacts that you see.",
    "Where does this generated image go wrong? Explain each problem.",
    "List the defects of this AIGC image and say what is the matter with them.",
    "Look for implausible content in this AI-generated image and describe it.",
    "Mark the problematic areas of this AIGC image and give an analysis of each.",
    "Assess how plausible this AIGC image is: where are its errors, and what are they?",
    "Detect anything unnatural in this AIGC image and explain it.",
    "Describe this AIGC image, locate its problems, and explain them.",
)


@dataclass(slots=True)
class Example:
    """One image with what HEIE shall say of it.

    Attributes:
        record: of the image.
        image: (H, W, 3) sRGB at its own size.
        question: asked about it; None asks ``mllm.question``.
        text: a chain of thought with one ``[MAP]`` and one ``[SCORE]``.
        told: the text is worth learning; False for a stand-in that only carries the marks.
        target: (H, W) float32 annotated heatmap in [0, 1]; zeros where nothing is annotated.
        score: plausibility in [0, 1]; NaN where nobody gave one.
        counts: False for one that only keeps processes in step, see `data.InStep`.
    """

    record: Record
    image: UInt8Array
    question: str | None
    text: str
    told: bool
    target: Tensor
    score: float
    counts: bool = True


@dataclass(slots=True)
class TextBatch:
    """A collated batch; images keep their own sizes."""

    inputs: Inputs
    target: list[Tensor]  # (H_k, W_k) float32 in [0, 1], one per image
    annotation: Tensor  # (B,) int64, values of Annotation
    score: Tensor  # (B,) float32 plausibility in [0, 1]; NaN where nobody gave one
    record: list[Record]
    counts: bool = True  # False: only keeps processes in step

    def to(self, device: torch.device | str) -> TextBatch:
        """Copy with its tensors on ``device``."""
        return replace(
            self,
            inputs=self.inputs.to(device),
            target=[one.to(device) for one in self.target],
            annotation=self.annotation.to(device),
            score=self.score.to(device),
        )


def target_of(sample: Sample) -> Tensor:
    """(H, W) float32 in [0, 1]: the annotated heatmap, or the mask of any artifact without one."""
    if sample.heatmap is not None and sample.heatmap.max() > 0:
        return torch.from_numpy(sample.heatmap).float()
    if sample.mask is not None:
        return torch.from_numpy(sample.mask > 0).float()
    return torch.zeros(sample.image.shape[:2])


def checked(text: str, location: str, processing: Processing) -> str:
    """The text of an image, if it is a chain of thought that the model can take.

    Raises:
        ArtifactNetError: it is none, or holds a control word; the message names the image.
    """
    try:
        parse(text)
    except ArtifactNetError as error:
        raise ArtifactNetError(f"{location}: its text: {error}") from error
    processing.check(text, f"{location}: its text")
    return text


def text_of(sample: Sample, mode: str, processing: Processing) -> tuple[str, bool]:
    """The chain of thought of a sample, and whether it is worth learning.

    Args:
        sample: decoded.
        mode: ``written``: by whoever annotated it, else made from the annotation; ``template``:
            always made from the annotation; ``none``: a fixed text that carries the marks.
        processing: of the model.

    Returns:
        An image that nobody annotated or wrote about gets the fixed text too, not to be learned:
        one made of nothing would call it clean.

    Raises:
        ArtifactNetError: see `checked`.
    """
    if mode == "written" and sample.text is not None:
        return checked(sample.text, sample.record.location, processing), True
    if mode == "none" or sample.record.annotation is Annotation.NONE:
        return TEMPLATE, False
    return describe(sample), True


def collate(
    examples: Sequence[Example | None] | ArtifactNetError, processing: Processing
) -> TextBatch | ArtifactNetError | None:
    """Encode examples into a batch, leaving out those that are None.

    Args:
        examples: of a batch, or the error that a worker met.
        processing: of the model.

    Returns:
        The batch; None if no example is left; the error, also that of a text which the model
        cannot take, naming the image.
    """
    if isinstance(examples, ArtifactNetError):
        return examples
    kept = [example for example in examples if example is not None]
    if not kept:
        return None
    try:
        inputs = _encode(kept, processing)
    except ArtifactNetError as error:
        return _blamed(kept, processing, error)
    assert inputs.labels is not None
    for row, example in enumerate(kept):
        if not example.told:
            inputs.labels[row] = IGNORED
    return TextBatch(
        inputs=inputs,
        target=[example.target for example in kept],
        annotation=torch.tensor([int(example.record.annotation) for example in kept]),
        score=torch.tensor([example.score for example in kept], dtype=torch.float32),
        record=[example.record for example in kept],
        counts=all(example.counts for example in kept),
    )


def _encode(examples: Sequence[Example], processing: Processing) -> Inputs:
    return processing.encode(
        [example.image for example in examples],
        [example.text for example in examples],
        [example.question for example in examples],
    )


def _blamed(
    examples: Sequence[Example], processing: Processing, error: ArtifactNetError
) -> ArtifactNetError:
    """The error of a batch, with the place of the example that causes it."""
    for example in examples:
        try:
            _encode([example], processing)
        except ArtifactNetError as own:
            return ArtifactNetError(f"{example.record.location}: {own}")
    return error
