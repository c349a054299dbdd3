"""Evaluation of a trained HEIE, on its own run's data or on other data."""

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
from artifactnet.config import Config, ConfigError, load, to_dict
from artifactnet.evaluation.evaluate import fingerprinted, print_figures, training_of
from artifactnet.evaluation.results import heading, judged, sections, table, write_page
from artifactnet.evaluation.samples import VALIDATION_ONLY
from artifactnet.inference.inputs import ImageLike
from artifactnet.llm.client import Chat
from artifactnet.llm.judge import judge_texts
from artifactnet.metrics.saliency import SaliencyMetric
from artifactnet.metrics.score_agreement import ScoreAgreementMetric
from artifactnet.metrics.text import TextMetric
from artifactnet.models.state import evaluating
from artifactnet.runs import run_folder
from artifactnet.runs.device import choose_device
from artifactnet.types import ArtifactNetError, Prediction
from artifactnet.vlm.heie import saving
from artifactnet.vlm.heie.data import TextData, TextExample
from artifactnet.vlm.heie.model import HEIE
from artifactnet.vlm.heie.predictor import HeiePredictor, usual_text
from artifactnet.vlm.heie.saving import read_facts
from artifactnet.vlm.text.chain_of_thought import parse

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
        JSON-ready results, see `artifactnet.vlm.heie.evaluate`.

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


def _add(
    found: _Found, predictor: HeiePredictor, examples: Sequence[TextExample], text: str
) -> None:
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


def _line(predictor: HeiePredictor, example: TextExample, answer: Prediction) -> dict[str, Any]:
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


def _likelihood(model: HEIE, examples: Sequence[TextExample]) -> tuple[Tensor, Tensor]:
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
        said = judge_texts(pairs, chat, target / JUDGED)
    except ArtifactNetError as error:
        return {"mean": None, "failed": len(pairs), "problem": str(error)}
    problem = next(iter(said.problems.values()), None)
    return {"mean": said.mean, "failed": said.failed, "problem": problem}


def _of_images(metric: Metric) -> dict[str, Any] | None:
    """What a metric found, or None if it met no image."""
    values: dict[str, Any] = metric.compute()
    return values if values["images"] else None


_SOURCES = {
    "generate": "a text that the model wrote",
    "template": "a fixed text, nothing generated",
    "given": "the annotated text",
}


def write(folder: Path, results: dict[str, Any]) -> None:
    """Write ``results.json`` and ``results.md``, both atomically."""
    write_page(folder, results, markdown(results))


def markdown(results: dict[str, Any]) -> str:
    """The results as a Markdown page; every figure has its counts beside it."""
    lines = [
        *heading(results),
        f"{judged(results)}; HEIE on `{results['model']['base']}` of epoch "
        f"{results['model']['epoch']}. Heatmap and score were read from "
        f"{_SOURCES[results['text']]}.",
        "",
    ]
    for title, header, row, note in _tables(results):
        lines += [f"## {title}", "", *table(header, [row]), "", note, ""]
    return "\n".join(lines)


def terminal(results: dict[str, Any]) -> str:
    """The same figures as lines for a terminal."""
    return "\n".join(
        f"{title.lower()}:  " + "  ".join(f"{k} {v}" for k, v in zip(header, row, strict=True))
        for title, header, row, _ in _tables(results)
    )


def _tables(
    results: dict[str, Any],
) -> list[tuple[str, Sequence[str], Sequence[str], str]]:
    """Title, header, row and note of each table."""
    found: list[tuple[str, Sequence[str], Sequence[str], str]] = [
        (section.title, section.header, section.row, section.note)
        for section in sections(results, "each at its own size")
    ]
    texts = results["explanations"]
    if texts:
        found.append(_explanations(texts))
    return found


def _explanations(texts: dict[str, Any]) -> tuple[str, Sequence[str], Sequence[str], str]:
    header, row = ["perplexity"], [f"{texts['perplexity']:.3f}"]
    notes = [f"Perplexity of the annotated texts, over {texts['tokens']} tokens."]
    if texts["texts"]:
        header += ["BLEU", "ROUGE-L"]
        row += [f"{texts['BLEU']:.4f}", f"{texts['ROUGE-L']:.4f}"]
        notes.append(
            f"BLEU and ROUGE-L of {texts['texts']} generated texts with the annotated ones, but "
            "for headings and closing sentences, which all share; "
            f"{texts['mended']} answers had to be mended before they could be read."
        )
    judged = texts["similarity"]
    if judged:
        header.append("similarity")
        row.append("-" if judged["mean"] is None else f"{judged['mean']:.3f}")
        notes.append(
            f"Similarity as {judged['model']} judges it; it failed on {judged['failed']} texts."
        )
    return "Explanations against annotated ones", header, row, " ".join(notes)


pass

# what may differ from the run; everything else belongs to the trained model
ALLOWED = ("data.", "train.device", "mllm.text", "mllm.question", "mllm.max_new_tokens")

# data keys that do not change which images are judged
_IMMATERIAL = ("batch_size", "eval_batch_size", "workers", "check", "augment")


def evaluate(
    run_dir: str | Path,
    overrides: Sequence[str] = (),
    text: str | None = None,
    chat: Chat | None = None,
) -> dict[str, Any]:
    """Evaluate a run's best model and write ``results.json``, ``results.md``, ``answers.jsonl``.

    On the run's own data, with the text that its model usually reads from, they replace those of
    the run; else they go to ``evaluations/<data>-<text>-<fingerprint>`` inside its folder.

    Args:
        run_dir: folder of the run.
        overrides: ``dotted.key=value`` strings of what `ALLOWED` names.
        text: where heatmap and score are read from, see `figures.evaluate_model`; None: the
            model's own text, or the fixed one where the run learned none.
        chat: compares generated texts with annotated ones; None leaves that out.

    Returns:
        The content of ``results.json``.

    Raises:
        ArtifactNetError: no such run, an override that an evaluation cannot have, or data that
            cannot be used.
    """
    own, config = open_config(run_dir, overrides)
    folder = Path(run_dir)
    text = text or usual_text(own.mllm)
    model = open_model(folder, config)
    data = TextData(config, model.processing)
    target = folder / subfolder(own, config, text)
    found = evaluate_model(model, data, config, text, folder, target, chat)
    if target == folder:
        found["training"] = training_of(folder)
    write(target, found)
    print_figures(found, terminal(found), target)
    return found


def open_config(run_dir: str | Path, overrides: Sequence[str] = ()) -> tuple[Config, Config]:
    """Config of a HEIE's run, and the same with overrides.

    Raises:
        ArtifactNetError: no run there, one without a model yet, or an override that an evaluation
            cannot have.
    """
    for override in overrides:
        if not override.startswith(ALLOWED):
            raise ConfigError(
                f"command line: {override.partition('=')[0]} cannot be changed for an "
                f"evaluation of a HEIE; what can: {', '.join(ALLOWED)}"
            )
    path = Path(run_dir) / run_folder.CONFIG
    if not path.is_file():
        raise ArtifactNetError(
            f"{run_dir} is not the folder of a run (it has no {run_folder.CONFIG})"
        )
    if not saving.is_heie(run_dir):
        raise ArtifactNetError(
            f"{run_dir} has no {saving.FACTS} yet; finish the run with resume=true"
        )
    return load(path), load(path, overrides)


def open_model(folder: Path, config: Config) -> HEIE:
    """A run's best model on the config's device, asking and answering as the config says."""
    model = saving.load(folder, choose_device(config.train.device))
    model.mllm.max_new_tokens = config.mllm.max_new_tokens
    model.processing.question = config.mllm.question
    return model


def subfolder(own: Config, config: Config, text: str) -> Path:
    """Where results go, relative to the run: its own place only for what training judged too.

    Args:
        own: config of the run.
        config: of the evaluation.
        text: see `evaluate`.
    """
    before = _material(own, usual_text(own.mllm))
    after = _material(config, text)
    if before == after:
        return Path()
    decides = json.dumps(after, sort_keys=True)
    return Path("evaluations") / fingerprinted(config, decides, f"-{text}")


def _material(config: Config, text: str) -> dict[str, Any]:
    """What decides the figures of a given model."""
    data = {key: value for key, value in to_dict(config.data).items() if key not in _IMMATERIAL}
    mllm = config.mllm
    asked = [mllm.text, mllm.question, mllm.max_new_tokens]
    return {"data": data, "asked": asked, "text": text, "seed": config.seed}
