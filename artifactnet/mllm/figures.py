"""The figures of HEIE on a split: heatmap, score and text against what people annotated."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from artifactnet import files
from artifactnet.config import Config
from artifactnet.engine.samples import VALIDATION_ONLY
from artifactnet.inference.inputs import ImageLike
from artifactnet.metrics.saliency_metric import SaliencyMetric
from artifactnet.metrics.score_agreement import ScoreAgreementMetric
from artifactnet.metrics.text import TextMetric
from artifactnet.mllm.chain_of_thought import parse
from artifactnet.mllm.chat import Chat
from artifactnet.mllm.data import TextData
from artifactnet.mllm.examples import Example
from artifactnet.mllm.heie import HEIE
from artifactnet.mllm.judge import judge
from artifactnet.mllm.predictor import HeiePredictor
from artifactnet.mllm.saving import read_facts
from artifactnet.models.state import evaluating
from artifactnet.types import ArtifactNetError, Prediction

TEXTS = ("generate", "template", "given")
ANSWERS = "answers.jsonl"
JUDGED = "similarity.jsonl"  # all that a judge ever said about these texts


@dataclass(slots=True)
class _Found:
    """What was counted so far."""

    saliency: SaliencyMetric = field(default_factory=SaliencyMetric)
    scores: ScoreAgreementMetric = field(default_factory=ScoreAgreementMetric)
    texts: TextMetric = field(default_factory=TextMetric)
    pairs: list[tuple[str, str]] = field(default_factory=list)  # annotated, generated
    answers: list[dict[str, Any]] = field(default_factory=list)
    mended: int = 0
    untold: int = 0

    def __post_init__(self) -> None:
        for metric in (self.saliency, self.scores, self.texts):
            metric.distributed_available_fn = _never


def _never() -> bool:
    return False


def evaluate_model(
    model: HEIE,
    data: TextData,
    config: Config,
    text: str,
    run: Path,
    target: Path,
    chat: Chat | None = None,
) -> dict[str, Any]:
    """Figures of a model on the test split (on val, and saying so, where there is no test).

    Heatmaps are compared at the size of their image. Perplexity is that of the annotated texts,
    whatever text the heatmaps were read from. BLEU and ROUGE-L compare the three parts of a text
    alone: headings and closing sentences, which are always the same, would lift them.

    Args:
        model: on the device where it shall run.
        data: the images.
        config: the run or evaluation.
        text: from which heatmap and score are read: ``generate``: the model's own; ``template``:
            the fixed one; ``given``: the annotated one (the paper's "GT CoT").
        run: folder of the run, for the facts of its training.
        target: folder that gets ``answers.jsonl``, one line per image.
        chat: compares generated texts with annotated ones; None leaves that out.

    Returns:
        JSON-ready results, see `artifactnet.mllm.results`.

    Raises:
        ArtifactNetError: no such text, none to be given, none generated for a judge to compare, or
            an image that cannot be used. What goes wrong with the judge is a warning.
    """
    _check(text, config, chat)
    predictor = HeiePredictor(model, "template" if text == "template" else "generate")
    found = _Found()
    for examples in data.example_loader(data.judged):
        _add(found, predictor, examples, text)
    facts = read_facts(run)["extra"]
    lines = "".join(json.dumps(answer, ensure_ascii=False) + "\n" for answer in found.answers)
    files.write_text(target / ANSWERS, lines)
    texts = _texts(found, chat, target)
    warnings, skipped = _warnings(data, text, found, texts)
    return {
        "run": config.name,
        "data": {"name": config.data.name, "root": config.data.root, "split": data.judged},
        "model": {
            "base": model.mllm.base,
            "revision": model.mllm.revision,
            "epoch": facts["epoch"],
        },
        "notices": facts["notices"],
        "data_warnings": warnings,
        "skipped": skipped,
        "text": text,
        "images": len(found.answers),
        "saliency": _of_images(found.saliency),
        "scores": _of_images(found.scores),
        "explanations": texts,
    }


def _check(text: str, config: Config, chat: Chat | None) -> None:
    """Refuse what could only fail, or mislead, after hours."""
    if text not in TEXTS:
        raise ArtifactNetError(f"unknown text {text!r}: one of {', '.join(TEXTS)}")
    if chat is not None and text != "generate":
        raise ArtifactNetError(
            f"a judge compares what the model writes, and {text} lets it write nothing: it needs "
            "--text generate, or no --judge-url"
        )
    if text == "given" and config.mllm.text == "none":
        raise ArtifactNetError("text=given needs texts: set mllm.text=written or template")


def _warnings(
    data: TextData, text: str, found: _Found, texts: dict[str, Any] | None
) -> tuple[list[str], list[str]]:
    """What must be known about the images of an evaluation, and those that were skipped."""
    warnings = list(data.summary["warnings"])
    if data.judged == "val":
        warnings.append(VALIDATION_ONLY)
    skipped = data.skipped.get(data.judged, [])
    if skipped:
        warnings.append(f"{len(skipped)} images were skipped (data.on_error=skip)")
    if text == "given" and found.untold:
        warnings.append(f"{found.untold} images have no text to give: the fixed one took its place")
    judged = texts and texts["similarity"]
    if judged and judged["problem"]:
        missing = f"{judged['failed']} texts: {judged['problem']}"
        warnings.append(f"the judge {judged['model']} said nothing of {missing}")
    return warnings, skipped


def _add(found: _Found, predictor: HeiePredictor, examples: Sequence[Example], text: str) -> None:
    """Count a batch."""
    given = [example.text for example in examples] if text == "given" else None
    images: list[ImageLike] = [example.image for example in examples]
    answers = predictor.predict(images, len(images), texts=given)
    for example, answer in zip(examples, answers, strict=True):
        assert answer.heatmap is not None
        assert answer.score is not None
        heatmap, state = torch.from_numpy(answer.heatmap)[None], int(example.record.annotation)
        found.saliency.update(heatmap, example.target[None], torch.tensor([state]))
        found.scores.update(torch.tensor([answer.score]), torch.tensor([example.score]))
        found.answers.append(_line(predictor, example, answer))
        found.mended += text == "generate" and bool(found.answers[-1]["notes"])
        found.untold += not example.told
        if text == "generate" and example.told:
            assert answer.explanation is not None
            written = answer.explanation.text
            found.pairs.append((example.text, written))
            found.texts.update(written=[_parts(written)], references=[_parts(example.text)])
    told = [example for example in examples if example.told]
    if told:
        found.texts.update(*_likelihood(predictor.model, told))


def _parts(text: str) -> str:
    """What a text says, without the headings and closing sentences that all texts share."""
    cot = parse(text)
    return "\n".join((cot.description, cot.regions, cot.issues))


def _line(predictor: HeiePredictor, example: Example, answer: Prediction) -> dict[str, Any]:
    """What is kept of an answer, to be looked at."""
    of_size = predictor.model.processing.notes(*example.image.shape[:2])
    notes = answer.warnings[len(predictor.warnings) :]
    return {
        "image": example.record.location,
        "score": answer.score,
        "annotated_score": None if example.score != example.score else example.score,
        "text": None if answer.explanation is None else answer.explanation.text,
        "annotated_text": example.text if example.told else None,
        "notes": [note for note in notes if note not in of_size],
    }


def _likelihood(model: HEIE, examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """(B,) summed negative log-likelihood of the annotated texts, and (B,) their tokens."""
    inputs = model.processing.encode(
        [example.image for example in examples], [example.text for example in examples]
    )
    with evaluating(model), torch.no_grad():
        output = model(inputs.to(model.device))
    return output.nll, output.tokens


def _texts(found: _Found, chat: Chat | None, target: Path) -> dict[str, Any] | None:
    """Figures of the texts; None where nobody annotated any."""
    if not found.texts.update_called:
        return None
    figures: dict[str, Any] = found.texts.compute()
    figures |= {"mended": found.mended, "similarity": None}
    if found.pairs and chat is not None:
        figures["similarity"] = {"model": chat.model, **_similarity(found.pairs, chat, target)}
    return figures


def _similarity(pairs: list[tuple[str, str]], chat: Chat, target: Path) -> dict[str, Any]:
    """What the judge says; hours of other figures must not be lost to its troubles."""
    try:
        said = judge(pairs, chat, target / JUDGED)
    except ArtifactNetError as error:
        return {"mean": None, "failed": len(pairs), "problem": str(error)}
    problem = next(iter(said.problems.values()), None)
    return {"mean": said.mean, "failed": said.failed, "problem": problem}


def _of_images(metric: Metric) -> dict[str, Any] | None:
    """What a metric found, or None if it met no image."""
    values: dict[str, Any] = metric.compute()
    return values if values["images"] else None
