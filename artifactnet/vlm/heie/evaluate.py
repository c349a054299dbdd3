"""Evaluation of a trained HEIE, on the data of its run or on other data."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from artifactnet import files
from artifactnet.config import Config, MllmConfig, load, to_dict
from artifactnet.evaluation import results as tables
from artifactnet.evaluation.results import Section
from artifactnet.evaluation.samples import (
    check_overrides,
    data_warnings,
    describe_data,
    note_selection,
)
from artifactnet.evaluation.selection import select_images
from artifactnet.inference.inputs import ImageLike
from artifactnet.llm.client import Chat
from artifactnet.llm.judge import judge_texts
from artifactnet.metrics.alone import count_alone
from artifactnet.metrics.claims import ClaimMetric, Claims
from artifactnet.metrics.correlation import ScoreCorrelationMetric
from artifactnet.metrics.saliency import SaliencyMetric
from artifactnet.metrics.text import TextMetric
from artifactnet.models.state import evaluating
from artifactnet.rules import heatmap_terms
from artifactnet.runs import run_folder
from artifactnet.runs.device import choose_device
from artifactnet.types import ArtifactNetError, Prediction
from artifactnet.vlm.heie import saving
from artifactnet.vlm.heie.data import TextData, TextExample
from artifactnet.vlm.heie.model import HEIE, generate_texts
from artifactnet.vlm.heie.predictor import HeiePredictor, default_mode
from artifactnet.vlm.text.chain_of_thought import Style, parse_cot
from artifactnet.vlm.text.claims import claims_of, read_claims, read_short_answer
from artifactnet.vlm.text.facts import marked_regions
from artifactnet.vlm.text.places import main_places
from artifactnet.vlm.text.reading import read_facts

# what may differ from the run; everything else belongs to the trained model
_GENERATION = ("mllm.question", "mllm.max_new_tokens", "mllm.sequence_bias")
ALLOWED = ("data.", "train.device", "mllm.text", *_GENERATION)
ANSWERS = "answers.jsonl"
SIMILARITY = "similarity.jsonl"  # all answers of the judge about these texts
FACTS = (  # columns, of `ClaimMetric`
    *("category", "all categories", "place", "repainted", "missed"),
    *("nothing invented", "called clean", "strict form"),
)
TEXTS = {  # where heatmap and score are read from
    "generate": "a text that the model wrote",
    "template": "a fixed text, nothing generated",
    "given": "the annotated text",
}
SHORT = "short"  # instead of one of these, in results: short answers, no heatmap was read


def evaluate_heie(
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
        text: where heatmap and score are read from, see `evaluate_model`; None: the model's own
            text, or the fixed one if the run learned none.
        chat: the judge that compares generated texts with annotated ones; None: no judge.

    Raises:
        ArtifactNetError: no such run, an override that is not allowed or changes nothing, or data
            that cannot be used.
    """
    own, config = open_config(run_dir, overrides)
    if config.mllm.text == "short" and config.mllm.question != own.mllm.question:
        raise ArtifactNetError(
            "mllm.text=short asks questions of its own; leave out mllm.question, it is not asked"
        )
    folder = Path(run_dir)
    text = text or usual_text(own.mllm)
    model = saving.load_heie(folder, choose_device(config.train.device), merge=True)
    model.mllm.max_new_tokens = config.mllm.max_new_tokens
    model.mllm.sequence_bias = config.mllm.sequence_bias
    model.processing.question = config.mllm.question
    selection = select_images(config, own, overrides)
    data = TextData(config, model.processing, selection.splits)
    note_selection(data.summary, selection)
    target = folder / subfolder(own, config, text)
    results = evaluate_model(model, data, config, text, folder, target, chat)
    if target == folder:
        results["training"] = tables.read_training(folder)
    write(target, results)
    tables.print_results(results, terminal(results), target)
    return results


def open_config(run_dir: str | Path, overrides: Sequence[str] = ()) -> tuple[Config, Config]:
    """Config of a HEIE's run, and the same with overrides.

    Raises:
        ArtifactNetError: no run there, one without a model yet, or an override that is not allowed.
    """
    check_overrides(overrides, ALLOWED)
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


def subfolder(own: Config, config: Config, text: str) -> Path:
    """Where results go, relative to the run: its own folder only for what training evaluated too.

    ``own`` is the config of the run, ``config`` that of the evaluation.
    """
    decisive = _decisive(config, text)
    if decisive == _decisive(own, usual_text(own.mllm)):
        return Path()
    return tables.subfolder(config, decisive, kind=f"-{text}")


def usual_text(mllm: MllmConfig) -> str:
    """What an evaluation reads by default: short answers, too, which predictions do not show."""
    return "generate" if mllm.text == "short" else default_mode(mllm)


def _decisive(config: Config, text: str) -> dict[str, Any]:
    """All that decides the figures of a given model."""
    indifferent = (*tables.INDIFFERENT, "augment")
    data = {key: value for key, value in to_dict(config.data).items() if key not in indifferent}
    mllm = config.mllm
    asked: list[Any] = [mllm.text, mllm.question, mllm.max_new_tokens]
    if mllm.sequence_bias and text == "generate":
        asked.append(mllm.sequence_bias)
    return {"data": data, "asked": asked, "text": text, "seed": config.seed}


def evaluate_model(
    model: HEIE,
    data: TextData,
    config: Config,
    text: str,
    run: Path,
    target: Path,
    chat: Chat | None = None,
) -> dict[str, Any]:
    """Figures of a model on the test split (on val, with a warning, where there is no test).

    Heatmaps are compared at the size of their image. Perplexity is that of the annotated texts,
    whatever text the heatmaps were read from. BLEU and ROUGE-L compare the three parts of a text
    alone: headings and closing sentences, which are always the same, would lift them. Where the
    annotated text states facts that are certain (`artifactnet.vlm.text.reading`), what the model's
    text claims is compared with them, see `artifactnet.metrics.claims.ClaimMetric`. With
    ``mllm.text=short`` the texts that the model writes are short answers: they are compared with
    the annotation, and no heatmap is read from them (``template`` reads heatmaps).

    Args:
        model: on the device where it runs.
        data: the images.
        config: of the run or evaluation.
        text: from which heatmap and score are read: ``generate``: the model's own; ``template``:
            the fixed one; ``given``: the annotated one (the paper's "GT CoT").
        run: folder of the run, for the facts of its training.
        target: folder that gets ``answers.jsonl``, one line per image.
        chat: see `evaluate_heie`.

    Returns:
        JSON-ready results; `markdown` shows them.

    Raises:
        ArtifactNetError: no such text, none to be given, none generated for a judge to compare, or
            an image that cannot be used. What goes wrong with the judge is a warning.
    """
    # what could only fail, or mislead, after hours
    if text not in TEXTS:
        raise ArtifactNetError(f"unknown text {text!r}: one of {', '.join(TEXTS)}")
    if chat is not None and text != "generate":
        raise ArtifactNetError(
            f"a judge compares what the model writes, and {text} lets it write nothing: it needs "
            "--text generate, or no --judge-url"
        )
    short = config.mllm.text == "short"
    if (text == "given" and config.mllm.text in ("none", "short")) or (short and chat is not None):
        raise ArtifactNetError(
            f"{'a judge' if text == 'generate' else 'text=given'} needs chains of thought, and "
            f"mllm.text={config.mllm.text} has none: set mllm.text=written or template"
        )
    text = SHORT if short and text == "generate" else text
    counts = _Counts(HeiePredictor(model, "template" if text == "template" else "generate"), text)
    for examples in data.example_loader(data.eval_split):
        counts.add(examples)
    facts = saving.read_facts(run)["extra"]
    lines = "".join(json.dumps(answer, ensure_ascii=False) + "\n" for answer in counts.answers)
    files.write_text(target / ANSWERS, lines)
    texts = counts.compute_texts(chat, target)
    skipped = data.skipped.get(data.eval_split, [])
    warnings = data_warnings(data.summary, data.eval_split, skipped)
    if text == SHORT and any(heatmap_terms(config)):
        warnings.append("no heatmap was read from short answers; --text template reads them")
    if text == "given" and counts.unannotated:
        warnings.append(
            f"{counts.unannotated} images have no text to give: the fixed one took its place"
        )
    similarity = texts and texts["similarity"]
    if similarity and similarity["problem"]:
        missing = f"{similarity['failed']} texts: {similarity['problem']}"
        warnings.append(f"the judge {similarity['model']} gave no similarity of {missing}")
    return {
        "run": config.name,
        "data": describe_data(config, data.summary, data.eval_split),
        "model": {
            "base": model.mllm.base,
            "revision": model.mllm.revision,
            "epoch": facts["epoch"],
        },
        "generation": {
            "question": model.processing.question,
            "max_new_tokens": model.mllm.max_new_tokens,
            "sequence_bias": model.mllm.sequence_bias,
        },
        "notices": facts["notices"],
        "data_warnings": warnings,
        "skipped": skipped,
        "text": text,
        "images": len(counts.answers),
        "saliency": _compute(counts.saliency),
        "scores": _compute(counts.scores),
        "explanations": texts,
    }


class _Counts:
    """The figures of an evaluation, counted batch by batch on this process alone."""

    def __init__(self, predictor: HeiePredictor, text: str) -> None:
        self._predictor, self._text = predictor, text
        self.saliency, self.scores = SaliencyMetric(), ScoreCorrelationMetric()
        self.answers: list[dict[str, Any]] = []  # what is kept of each answer, for people
        self.unannotated = 0  # images without an annotated text
        self._texts, self._claims = TextMetric(), ClaimMetric()
        self._pairs: list[tuple[str, str]] = []  # annotated, generated
        self._repaired = 0
        for metric in (self.saliency, self.scores, self._texts, self._claims):
            count_alone(metric)

    def add(self, examples: Sequence[TextExample]) -> None:
        """Answer and count a batch."""
        images: list[ImageLike] = [example.image for example in examples]
        if self._text == SHORT:
            self._add_short(examples)
        else:
            if self._text == "given":
                given = [example.text for example in examples]
                answers = self._predictor.predict_from_texts(images, given, len(images))
            else:
                answers = self._predictor.predict(images, len(images))
            for example, answer in zip(examples, answers, strict=True):
                self._add_one(example, answer)
        annotated = [example for example in examples if example.supervised]
        self.unannotated += len(examples) - len(annotated)
        if annotated:
            self._texts.update(*_likelihood(self._predictor.model, annotated))

    def _add_one(self, example: TextExample, answer: Prediction) -> None:
        assert answer.heatmap is not None
        assert answer.score is not None
        heatmap, state = torch.from_numpy(answer.heatmap)[None], int(example.record.annotation)
        self.saliency.update(heatmap, example.target[None], torch.tensor([state]))
        self.scores.update(torch.tensor([answer.score]), torch.tensor([example.score]))
        of_size = self._predictor.model.processing.tiling_warnings(*example.image.shape[:2])
        notes = answer.warnings[len(self._predictor.warnings) :]
        notes = tuple(note for note in notes if note not in of_size)
        written = None if answer.explanation is None else answer.explanation.text
        self.answers.append(
            {
                "image": example.record.location,
                "score": answer.score,
                "annotated_score": None if math.isnan(example.score) else example.score,
                "text": written,
                "annotated_text": example.text if example.supervised else None,
                "notes": list(notes),
            }
        )
        if self._text != "generate":
            return
        self._repaired += bool(notes)
        if example.supervised:
            assert written is not None
            self._pairs.append((example.text, written))
            self._texts.update(written=[_parts(written)], references=[_parts(example.text)])
            self._compare_with_facts(example.text, written, strict=not notes and _standard(written))

    def _add_short(self, examples: Sequence[TextExample]) -> None:
        """Ask the questions of ``mllm.text=short``, and compare what is answered."""
        images = [example.image for example in examples]
        questions = [example.question for example in examples]
        answers = generate_texts(self._predictor.model, images, questions)
        for example, written in zip(examples, answers, strict=True):
            answer = {"image": example.record.location, "text": written, "annotated_text": None}
            if example.mask is not None:  # it is annotated
                answer["annotated_text"] = example.text
                regions = marked_regions(example.mask.numpy())
                places = [main_places(marked) for _, marked in regions]
                truth = Claims(tuple(label for label, _ in regions), sum(places, ()), not regions)
                said, strict = read_short_answer(written)
                self._claims.update([said], [truth], places[:1] or [()], [strict])
            self.answers.append(answer)

    def _compare_with_facts(self, annotated: str, written: str, strict: bool) -> None:
        """Count what a text claims, if the annotated one says for certain what is true."""
        facts = read_facts(annotated)
        if facts is not None:
            main = facts.findings[0].places if facts.findings else ()
            self._claims.update([read_claims(written)], [claims_of(facts)], [main], [strict])

    def compute_texts(self, chat: Chat | None, target: Path) -> dict[str, Any] | None:
        """Figures of the texts; None where none is annotated."""
        if not self._texts.update_called:
            return None
        figures: dict[str, Any] = self._texts.compute()
        # "mended": what results files have called repaired answers from the start
        figures |= {"mended": self._repaired, "similarity": None}
        figures["facts"] = self._claims.compute() if self._claims.update_called else None
        if self._pairs and chat is not None:
            figures["similarity"] = {"model": chat.model, **self._judge(chat, target)}
        return figures

    def _judge(self, chat: Chat, target: Path) -> dict[str, Any]:
        """Similarity by a judge; if it fails, hours of other figures must not be lost."""
        try:
            result = judge_texts(self._pairs, chat, target / SIMILARITY)
        except ArtifactNetError as error:
            return {"mean": None, "failed": len(self._pairs), "problem": str(error)}
        problem = next(iter(result.problems.values()), None)
        return {"mean": result.mean, "failed": result.failed, "problem": problem}


def _parts(text: str) -> str:
    """What a text says, without the headings and closing sentences that all texts share."""
    cot = parse_cot(text)
    return "\n".join((cot.description, cot.regions, cot.issues))


def _standard(text: str) -> bool:
    """Whether headings and closing sentences are those of the standard form, to the letter."""
    return parse_cot(text.strip()).style == Style()


def _likelihood(model: HEIE, examples: Sequence[TextExample]) -> tuple[Tensor, Tensor]:
    """(B,) summed negative log-likelihood of the annotated texts, and (B,) their tokens."""
    inputs = model.processing.encode(
        [example.image for example in examples],
        [example.text for example in examples],
        [example.question for example in examples],
    )
    with evaluating(model), torch.no_grad():
        output = model(inputs.to(model.device))
    return output.nll, output.tokens


def _compute(metric: Metric) -> dict[str, Any] | None:
    """The values of a metric, or None if it met no image."""
    values: dict[str, Any] | None = metric.compute() if metric.update_called else None
    return values if values and values["images"] else None


def write(folder: Path, results: dict[str, Any]) -> None:
    """Write ``results.json`` and ``results.md`` of a HEIE, both atomically."""
    tables.write_page(folder, results, markdown(results))


def markdown(results: dict[str, Any]) -> str:
    """The results of a HEIE as a Markdown page; every figure has its counts beside it."""
    text = results["text"]
    read = "It gave short answers." if text == SHORT else f"Heatmap and score from {TEXTS[text]}."
    bias = results.get("generation", {}).get("sequence_bias")
    if bias and text in ("generate", SHORT):
        read += f" `mllm.sequence_bias={json.dumps(bias, ensure_ascii=False)}`."
    lines = [
        *tables.page_heading(results),
        f"{tables.describe_images(results)}; HEIE on `{results['model']['base']}` of epoch "
        f"{results['model']['epoch']}. {read}",
        "",
        *tables.page_sections(_sections(results)),
    ]
    return "\n".join(lines)


def terminal(results: dict[str, Any]) -> str:
    """The results of a HEIE as lines for a terminal."""
    return "\n".join(tables.terminal_sections(_sections(results)))


def _sections(results: dict[str, Any]) -> list[Section]:
    found = tables.heatmap_sections(results, "each at its own size")
    texts = results["explanations"]
    if not texts:
        return found
    header, row = ["perplexity"], [f"{texts['perplexity']:.3f}"]
    notes = [f"Perplexity of the annotated texts, over {texts['tokens']} tokens."]
    if texts["texts"]:
        header += ["BLEU", "ROUGE-L"]
        row += [f"{texts['BLEU']:.4f}", f"{texts['ROUGE-L']:.4f}"]
        notes.append(
            f"BLEU and ROUGE-L of {texts['texts']} generated texts with the annotated ones, "
            "without headings and closing sentences, which all share; "
            f"{texts['mended']} answers had to be repaired before they could be read."
        )
    similarity = texts["similarity"]
    if similarity:
        header.append("similarity")
        row.append("-" if similarity["mean"] is None else f"{similarity['mean']:.3f}")
        notes.append(
            f"Similarity as {similarity['model']} judges it; it failed on {similarity['failed']} "
            "texts."
        )
    title = "Explanations against annotated ones"
    found.append(Section(title, "explanations", tuple(header), tuple(row), " ".join(notes)))
    if texts.get("facts"):  # results written before there were such figures have none
        found.append(_facts_section(texts["facts"], results["text"] == SHORT))
    return found


def _facts_section(facts: dict[str, Any], short: bool) -> Section:
    row = tuple("-" if facts[name] is None else f"{100 * facts[name]:.1f} %" for name in FACTS)
    of = "generated texts about images whose flaws are known for certain"
    repainted = "the text says so, of {} images with regions that a network repainted"
    form = "to the letter, unrepaired"
    if short:
        of = "short answers about annotated images"
        repainted = "artificial, of {} images with regions of no category"
        form = "to the letter"
    note = (
        f"Of {facts['texts']} {of}. "
        "Category: the first one named is that of the largest region, of "
        f"{facts['categorized']} images with one; all categories: the true ones are named and no "
        "others. Place: the first one named is a main one of the largest region, of "
        f"{facts['placed']} images with one. Repainted: "
        f"{repainted.format(facts['repainted images'])}. Missed: the "
        f"text says that nothing is wrong, of {facts['edited']} edited images. Nothing invented: "
        f"neither category nor place is named, of {facts['untouched']} untouched images; called "
        f"clean: it says besides that nothing is wrong. Strict form: {form}."
    )
    return Section("Explanations against known facts", "facts", FACTS, row, note)
