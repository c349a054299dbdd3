"""Language models on X-AIGD: asking, reading saved answers, and tables (App. C, Tables 9 to 12).

Answers come from a model or from a file, and pass through one parser. A file has lines
``{"generator", "uid", "answer"}``; of presence also ``"category"``, of instances ``"input_size"``.
Photographs have the generator ``real``.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from artifactnet.benchmarks.xaigd.instances import score_rows
from artifactnet.benchmarks.xaigd.labels import LabelRow, read_labels
from artifactnet.benchmarks.xaigd.pixels import PixelTask, read_masks, score_pixels
from artifactnet.data.converters.xaigd_boxes import photographs_by_uid
from artifactnet.data.images import decode_image
from artifactnet.data.shards import ShardReader
from artifactnet.data.text import brief, parse_json, read_text
from artifactnet.files import write_json, write_text
from artifactnet.metrics.category_presence import presence_counts, presence_scores, random_f1
from artifactnet.metrics.confusion import ratio, verdict_scores
from artifactnet.taxonomy import AGNOSTIC, CATEGORIES, INSTANCE_COLUMNS
from artifactnet.types import ArtifactNetError, UInt8Array
from artifactnet.vlm.coordinates import Unit, written_input_size
from artifactnet.vlm.question_log import LoggedQuestion, answer_questions
from artifactnet.vlm.questions import Answerer, ImageQuestion
from artifactnet.vlm.xaigd.answers import read_instances, read_judgment, read_presence
from artifactnet.vlm.xaigd.pages import page
from artifactnet.vlm.xaigd.prompts import (
    JUDGMENTS,
    Form,
    instances_question,
    presence_question,
)

Task = Literal["presence", "judgment", "instances"]
Key = tuple[str, str, str]  # generator, uid, label of the category or ""

ANSWERS = "answers.jsonl"
INSTANCES = "instances.csv"
REAL = "real"
_KEYS = {"path", "generator", "uid", "category", "answer", "input_size", "cut_off"}
_BY_NAME = {name: item.label for item in CATEGORIES for name in (item.label, item.short)}


@dataclass(frozen=True, slots=True)
class SavedAnswer:
    """An answer of a file.

    Attributes:
        text: of the model.
        row: its line.
        where: ``FILE:LINE``.
    """

    text: str
    row: Mapping[str, Any]
    where: str


@dataclass(frozen=True, slots=True)
class Images:
    """The images that are asked about.

    Attributes:
        fakes: annotated rows.
        photographs: path by uid.
    """

    fakes: list[LabelRow]
    photographs: dict[str, str]

    def keys(self, task: Task) -> Iterator[Key]:
        """Every question of a task."""
        for row in self.fakes:
            names = [item.label for item in CATEGORIES] if task == "presence" else [""]
            yield from ((row.generator, row.uid, name) for name in names)
        if task == "judgment":
            yield from ((REAL, uid, "") for uid in self.photographs)


@dataclass(slots=True)
class Answered:
    """The answers to a task's questions, and what must be known about them.

    Attributes:
        by: name of the model, or file of the answers.
        answers: those that there are.
        warnings: about them.
    """

    by: str
    answers: dict[Key, SavedAnswer]
    warnings: list[str]


def read_photographs(
    real: str | Path, fakes: Sequence[LabelRow], warnings: list[str]
) -> dict[str, str]:
    """The photographs of the fakes' uids: path by uid.

    Raises:
        ArtifactNetError: two photographs have one uid, or no uid has one.
    """
    if not Path(real).is_dir():
        raise ArtifactNetError(f"{real}: no such folder of photographs")
    found = photographs_by_uid(Path(real), warnings)
    uids = sorted({row.uid for row in fakes})
    kept = {uid: found[uid] for uid in uids if uid in found}
    if not kept:
        raise ArtifactNetError(f"{real}: no photograph of any annotated uid (file stem = uid)")
    if len(kept) < len(uids):
        warnings.append(f"{len(uids) - len(kept)} of {len(uids)} photographs are not in {real}")
    return kept


def get_answers(
    task: Task,
    images: Images,
    model: Answerer | str | Path,
    texts: Callable[[bool], Mapping[str, str]],
    out: Path,
    batch_size: int | None = None,
    replace: bool = False,
) -> Answered:
    """Ask a model every question of a task, or read the answers that it gave before.

    Answers go to ``OUT/answers.jsonl``. Called again after a kill, it asks what is left.

    Args:
        task: whose questions.
        images: that are asked about.
        model: that is asked; or a file of its answers.
        texts: questions by category, "" where there is one alone, given whether the model counts
            pixels.
        out: folder of the answers.
        batch_size, replace: see `answer_questions`.

    Raises:
        ArtifactNetError: see `answer_questions` and `read_answers`.
    """
    if not isinstance(model, Answerer):
        answers = read_answers(model, task, images)
        return Answered(str(model), answers, _cut_off(answers))
    asked = texts(model.counts_pixels)
    reader = _Pixels(images)

    def questions() -> Iterator[LoggedQuestion]:
        for generator, uid, category in images.keys(task):
            known = {"generator": generator, "uid": uid}
            if category:
                known["category"] = category
            key = f"{generator}/{uid} {category}".rstrip()
            ask = partial(reader.question, generator, uid, asked[category])
            yield LoggedQuestion(key, known, ask, boxes=task == "instances")

    path, settings = out / ANSWERS, {"task": task, "questions": asked}
    problems = answer_questions(path, questions(), model, settings, batch_size, replace=replace)
    warnings = list(model.notices)
    if problems:
        warnings.insert(0, f"{len(problems)} questions have no answer, e.g. {problems[0]}")
    answers = read_answers(path, task, images)
    return Answered(model.name, answers, warnings + _cut_off(answers))


def _cut_off(answers: Mapping[Key, SavedAnswer]) -> list[str]:
    count = sum(bool(answer.row.get("cut_off")) for answer in answers.values())
    return [f"{count} answers were cut off: they reached the limit of their length"] * (count > 0)


def read_answers(path: str | Path, task: Task, images: Images) -> dict[Key, SavedAnswer]:
    """Read a file of answers; empty lines are skipped.

    Raises:
        ArtifactNetError: it cannot be read; a line has an unknown key or lacks one, is about an
            image or category that is not asked about, or answers for the second time. The message
            names file and line.
    """
    wanted = set(images.keys(task))
    found: dict[Key, SavedAnswer] = {}
    for number, text in enumerate(read_text(Path(path)).split("\n"), 1):
        if not text.strip():
            continue
        where = f"{path}:{number}"
        row = parse_json(text, where)
        if not isinstance(row, dict):
            raise ArtifactNetError(f"{where}: must be a JSON object, not {brief(row)}")
        unknown = next((key for key in row if key not in _KEYS), None)
        if unknown is not None:
            raise ArtifactNetError(f"{where}: unknown key {brief(unknown)}")
        for name in ("generator", "uid", "answer", *(["category"] if task == "presence" else [])):
            if not isinstance(row.get(name), str):
                raise ArtifactNetError(f"{where}: {name!r} must be text")
        category = row.get("category", "")
        if task == "presence" and category not in _BY_NAME:
            raise ArtifactNetError(f"{where}: unknown category {brief(category)}")
        if not isinstance(row.get("cut_off", False), bool):
            raise ArtifactNetError(f"{where}: 'cut_off' must be true or false")
        key = (row["generator"], row["uid"], _BY_NAME.get(category, ""))
        if key not in wanted:
            raise ArtifactNetError(f"{where}: no image {key[0]}/{key[1]} is asked about")
        first = found.setdefault(key, SavedAnswer(row["answer"], row, where))
        if first.where != where:
            raise ArtifactNetError(f"{where}: is answered in {first.where} already; keep one")
    if not found:
        raise ArtifactNetError(f"{path}: no answer")
    return found


def presence_figures(images: Images, answers: Mapping[Key, SavedAnswer]) -> dict[str, Any]:
    """Table 9: does an image show a category? Missing and unreadable answers are "absent"."""
    truth, said, unreadable = [], [], dict.fromkeys((item.label for item in CATEGORIES), 0)
    missing = 0
    for row in images.fakes:
        shown = {label["label"] for label in row.labels}
        truth.append([item.label in shown for item in CATEGORIES])
        line = []
        for item in CATEGORIES:
            answer = answers.get((row.generator, row.uid, item.label))
            found = None if answer is None else read_presence(answer.text)
            missing += answer is None
            unreadable[item.label] += answer is not None and found is None
            line.append(bool(found))
        said.append(line)
    scores = presence_scores(presence_counts(torch.tensor(said), torch.tensor(truth)))
    for label, count in unreadable.items():
        prevalence = ratio(scores[label]["tp"] + scores[label]["fn"], len(truth))
        scores[label] |= {
            "prevalence": prevalence,
            "random_f1": random_f1(prevalence),
            "unreadable": count,
        }
    return {"images": len(truth), "missing": missing, "categories": scores}


def judgment_figures(
    images: Images, answers: Mapping[Key, SavedAnswer], form: Form = "general"
) -> dict[str, Any]:
    """Table 10: real or fake? An answer that is missing or says neither, or both, is wrong."""
    counts, unreadable, missing = dict.fromkeys(("tp", "fp", "tn", "fn"), 0), 0, 0
    for key in images.keys("judgment"):
        fake = key[0] != REAL
        answer = answers.get(key)
        said = None if answer is None else read_judgment(answer.text, form)
        missing += answer is None
        unreadable += answer is not None and said is None
        right = said is fake
        counts[("tp" if right else "fn") if fake else ("tn" if right else "fp")] += 1
    return {"missing": missing, "unreadable": unreadable, **verdict_scores(**counts)}


def write_instances(
    images: Images, answers: Mapping[Key, SavedAnswer], path: Path, unit: Unit | None
) -> dict[str, int]:
    """Write the boxes of answers as the CSV file that ``score-instances`` reads; returns counts."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(INSTANCE_COLUMNS)
    counts = {"images": len(images.fakes), "missing": 0, "boxes": 0, "dropped": 0}
    for row in images.fakes:
        answer = answers.get((row.generator, row.uid, ""))
        if answer is None:
            counts["missing"] += 1
            continue
        size = (row.width, row.height)
        space = size
        if "[" in answer.text or "<" in answer.text:
            space = written_input_size(answer.row, size, unit, answer.where)
        boxes, dropped = read_instances(answer.text, size, space)
        counts["boxes"] += len(boxes)
        counts["dropped"] += dropped
        writer.writerows([row.generator, row.uid, one.category, *one.box] for one in boxes)
    write_text(path, text.getvalue())
    return counts


def run_presence(
    labels: Sequence[str | Path],
    out: str | Path,
    model: Answerer | str | Path,
    batch_size: int | None = None,
) -> dict[str, Any]:
    """Table 9: does an image show each category? Writes ``results.json`` and ``results.md``.

    Args:
        labels: parquet files of the annotated fakes, with images if a model is asked.
        out: folder of the files.
        model: a model, or a file of its answers.
        batch_size: see `answer_questions`.

    Returns:
        The content of ``results.json``.

    Raises:
        ArtifactNetError: the data, the model or the file cannot be used.
    """
    images = Images(read_labels(labels), {})

    def texts(pixels: bool) -> dict[str, str]:
        return {item.label: presence_question(item, pixels) for item in CATEGORIES}

    found = get_answers("presence", images, model, texts, Path(out), batch_size)
    return _finish_answers("presence", found, presence_figures(images, found.answers), Path(out))


def run_judgment(
    labels: Sequence[str | Path],
    real: str | Path,
    out: str | Path,
    model: Answerer | str | Path,
    form: Form = "general",
    question: str | None = None,
    batch_size: int | None = None,
) -> dict[str, Any]:
    """Table 10: real or fake? Writes ``results.json`` and ``results.md``.

    Args:
        labels: parquet files of the annotated fakes, with images if a model is asked.
        real: folder of the photographs (file stem = uid).
        out: folder of the files.
        model: a model, or a file of its answers.
        form: how the model is asked, and its answer read.
        question: in place of the form's own.
        batch_size: see `answer_questions`.

    Returns:
        The content of ``results.json``.

    Raises:
        ArtifactNetError: the data, the model or the file cannot be used.
    """
    warnings: list[str] = []
    fakes = read_labels(labels)
    images = Images(fakes, read_photographs(real, fakes, warnings))
    texts = {"": question or JUDGMENTS[form]}
    found = get_answers("judgment", images, model, lambda _: texts, Path(out), batch_size)
    found.warnings = warnings + found.warnings
    figures = judgment_figures(images, found.answers, form)
    return _finish_answers("judgment", found, figures, Path(out))


def run_instances(
    labels: Sequence[str | Path],
    out: str | Path,
    model: Answerer | str | Path,
    *,
    unit: Unit | None = None,
    inclusive: bool = False,
    only: Collection[tuple[str, str]] | None = None,
    batch_size: int | None = None,
    replace: bool = False,
    warnings: Sequence[str] = (),
) -> dict[str, Any]:
    """Table 12: boxes with categories; writes ``results.json`` and ``results.md``.

    Args:
        labels: parquet files of the annotated fakes, with images if a model is asked.
        out: folder of the files.
        model: a model, or a file of its answers.
        unit: what the numbers of a file's answers mean that have no ``input_size``.
        inclusive: a share of exactly 0.5 is enough, as in the paper's text.
        only: (generator, uid) of the fakes that are asked about; None: all.
        batch_size, replace: see `answer_questions`.
        warnings: to be said first.

    Returns:
        The content of ``results.json``.

    Raises:
        ArtifactNetError: the data, the model or the file cannot be used.
    """
    out = Path(out)
    fakes = read_labels(labels)
    if only is not None:
        fakes = [row for row in fakes if (row.generator, row.uid) in only]
    images = Images(fakes, {})

    def texts(pixels: bool) -> dict[str, str]:
        return {"": instances_question(pixels)}

    found = get_answers("instances", images, model, texts, out, batch_size, replace)
    found.warnings = [*warnings, *found.warnings]
    figures: dict[str, Any] = dict(write_instances(images, found.answers, out / INSTANCES, unit))
    figures |= {"inclusive": inclusive, "categories": {}}
    if figures["boxes"]:
        table = score_rows(fakes, out / INSTANCES, inclusive=inclusive)
        found.warnings += table.warnings
        figures["categories"] = {row["category"]: row for row in table.overall}
    else:
        found.warnings.append("no answer has a box with a category: every figure is 0")
    return _finish_answers("instances", found, figures, out)


def run_masks(
    labels: Sequence[str | Path], predictions: str | Path, out: str | Path, threshold: int = 127
) -> dict[str, Any]:
    """Table 11: a folder of predicted masks; writes ``results.json`` and ``results.md``.

    Beside the figures of ``score-pixels``: of photographs with a folder ``real/UID``, the share
    with a mask that is not empty. A model that never saw photographs marks something in all.

    Args:
        labels: parquet files of the annotated fakes.
        predictions: folder in the layout of ``score-pixels --task category-agnostic``.
        out: folder of the files.
        threshold: pixels above it are predicted, 0..255.

    Raises:
        ArtifactNetError: labels or predictions are invalid.
    """
    table = score_pixels(labels, PixelTask(str(predictions), AGNOSTIC, threshold=threshold))
    figures: dict[str, Any] = dict(table.overall[0])
    real = Path(predictions) / REAL
    folders = sorted(path for path in real.iterdir() if path.is_dir()) if real.is_dir() else []
    marked = sum(_is_marked(folder, threshold) for folder in folders)
    figures |= {"real_images": len(folders), "real_marked": marked}
    warnings = [text for text in table.warnings if str(real) not in text]
    return _finish("masks", str(predictions), figures, warnings, Path(out))


class _Pixels:
    """Reads each image when it is asked about; the last one is kept for its next question."""

    def __init__(self, images: Images) -> None:
        self._rows = {(row.generator, row.uid): row for row in images.fakes}
        self._photographs = images.photographs
        self._reader = ShardReader()
        self._last: tuple[tuple[str, str], UInt8Array] | None = None

    def question(self, generator: str, uid: str, text: str) -> ImageQuestion:
        """A question about an image."""
        key = (generator, uid)
        if self._last is None or self._last[0] != key:
            self._last = (key, self._load(key))
        return ImageQuestion(self._last[1], text)

    def _load(self, key: tuple[str, str]) -> UInt8Array:
        row = self._rows.get(key)
        if row is None:
            path = self._photographs[key[1]]
            return decode_image(Path(path), path)
        assert row.location is not None
        image = decode_image(self._reader.read(row.location)[0], str(row))
        if image.shape[:2] != (row.height, row.width):
            raise ArtifactNetError(
                f"{row}: the image is {image.shape[1]}x{image.shape[0]}, its annotation is for "
                f"{row.width}x{row.height}"
            )
        return image


def _is_marked(folder: Path, threshold: int) -> bool:
    """Whether any mask in a folder has a predicted pixel."""
    for path in sorted(folder.glob("*.png")):
        height, width = decode_image(path, str(path)).shape[:2]
        mask = read_masks(str(folder), (height, width), threshold)
        return mask is not None and bool(mask.any())
    return False


def _finish_answers(
    task: Task, found: Answered, figures: dict[str, Any], out: Path
) -> dict[str, Any]:
    warnings = found.warnings
    if figures["missing"]:
        warnings.append(f"{figures['missing']} questions have no answer and count as wrong")
    return _finish(task, found.by, figures, warnings, out)


def _finish(
    task: str, model: str, figures: dict[str, Any], warnings: list[str], out: Path
) -> dict[str, Any]:
    results = {"task": task, "model": model, "figures": figures, "warnings": warnings}
    write_json(out / "results.json", results)
    write_text(out / "results.md", page(results))
    return results
