"""Building a set like Expl-AIGI-Eval: explanations of defects that people have marked (Sec. 3.4).

Beside the output FILE.jsonl lie FILE.raw.jsonl, every answer as it came and the memory of what was
asked already, and FILE.rejected.jsonl, the images of which no answer was of use.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

from artifactnet.annotation import contours
from artifactnet.annotation import prompts as prompts
from artifactnet.annotation.files import OutputFiles, Pair, count_rows, find_pairs, write_rows
from artifactnet.config import MllmConfig
from artifactnet.data.duplicates import digest
from artifactnet.data.heatmaps import store
from artifactnet.data.images import decode
from artifactnet.files import atomic_path
from artifactnet.inference.inputs import Failure
from artifactnet.llm.answer_log import AnswerLog
from artifactnet.llm.ask import Question, ValidAnswer, ask_until_valid, run_concurrently
from artifactnet.llm.client import Answer, Chat, RefusedError, UnansweredError
from artifactnet.types import ArtifactNetError

STAGES = ("analysis", "formatting")


@dataclass(frozen=True, slots=True)
class Work:
    """What is the same for all images.

    Attributes:
        analyst: model of stage 2; sees pictures.
        formatter: model of stage 3; may be the same.
        log: every answer.
        attempts: answers per image and stage at most.
        folder: of the output; paths of heatmaps are relative to it.
        bit_fields: whether masks are bit fields of categories.
        heatmaps: where heatmaps of bit fields go.
        pictures: where the pictures with red lines go, or None.
    """

    analyst: Chat
    formatter: Chat
    log: AnswerLog
    attempts: int
    folder: Path
    bit_fields: bool
    heatmaps: Path
    pictures: Path | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one image.

    Attributes:
        record: its line of the output, or, of an image that was set aside, of the rejected ones.
        reason: why it was set aside; None for a finished one.
        asked: answers asked for just now.
        invalid: answers of no use, earlier ones included.
        refused: whether the server refused the request.
    """

    record: dict[str, Any]
    reason: str | None
    asked: int
    invalid: int
    refused: bool = False


class _Picture:
    """The drawn image, made when something needs it."""

    def __init__(self, pair: Pair, bit_fields: bool) -> None:
        self._pair = pair
        self._bit_fields = bit_fields

    @cached_property
    def image(self) -> Any:
        return decode(self._pair.image, self._pair.image)

    @cached_property
    def region(self) -> contours.Region:
        return contours.read_region(self._pair.mask, self.image.shape[:2], self._bit_fields)

    @cached_property
    def jpeg(self) -> bytes:
        return contours.picture(self.image, self.region)


def annotate_one(pair: Pair, work: Work) -> Outcome:
    """Draw, analyse and format one image, as far as the log has not got it.

    Raises:
        ArtifactNetError: image or mask cannot be used, or the endpoint gave no answer.
        OSError: the disk is full, or the like.
    """
    content = _content(pair, work.bit_fields)
    picture = _Picture(pair, work.bit_fields)
    heatmap = Path(pair.mask)
    if work.bit_fields:  # whose readers take heatmaps: 255 is artifact
        heatmap = work.heatmaps / f"{pair.name}.png"
        store(heatmap, picture.region.astype("uint8") * 255)
    if work.pictures is not None:
        _keep(work.pictures / f"{pair.name}.jpg", picture)
    # by real folders: ".." after a link leads elsewhere
    real = heatmap.parent.resolve() / heatmap.name
    place = PurePath(os.path.relpath(real, work.folder.resolve())).as_posix()
    record = {"id": pair.name, "image": pair.relative, "heatmap": place}
    asked = invalid = 0
    text = ""
    for stage in STAGES:
        question = _question(stage, content, text, picture, pair)
        chat = work.analyst if stage == "analysis" else work.formatter
        try:
            settled = ask_until_valid(question, chat, work.log, work.attempts)
        except RefusedError as error:
            earlier = work.log.answers({**question.key, "model": chat.model})
            set_aside = _set_aside(record, stage, ValidAnswer(None, str(error), earlier))
            return Outcome(set_aside, str(error), asked, invalid + len(earlier), refused=True)
        asked += settled.asked
        invalid += len(settled.answers) - (settled.result is not None)
        if settled.result is None:
            reason = f"{stage}: {len(settled.answers)} answers of no use; {settled.problem}"
            return Outcome(_set_aside(record, stage, settled), reason, asked, invalid)
        text = settled.result
    human = {"from": "human", "value": f"<image>\n{MllmConfig().question}"}
    talk = [human, {"from": "gpt", "value": text}]
    # no score: nobody has given one, and the models that wrote the text were not asked
    return Outcome({**record, "score": None, "conversations": talk}, None, asked, invalid)


def _question(stage: str, content: str, text: str, picture: _Picture, pair: Pair) -> Question:
    """What is asked in a stage; ``text`` is what the one before has brought."""
    if stage == "analysis":
        wording = prompts.version(prompts.analysis(b"")) + f"-{contours.DRAWING}"
        key = {"stage": stage, "image": content, "prompt": wording}
        return Question(
            key, lambda: prompts.analysis(picture.jpeg), prompts.check_analysis, pair.relative
        )
    key = {
        "stage": stage,
        "image": content,
        "prompt": prompts.version(prompts.formatting("")),
        "input": digest(text.encode()).hex(),
    }
    return Question(key, lambda: prompts.formatting(text), prompts.check_formatted, pair.relative)


def _content(pair: Pair, bit_fields: bool) -> str:
    """Fingerprint of image and mask as files, so that a finished one need not be decoded.

    Raises:
        ArtifactNetError: one cannot be read.
    """
    parts = [b"bit field" if bit_fields else b"gray"]
    for path in (pair.image, pair.mask):
        try:
            parts.append(digest(Path(path).read_bytes()))
        except OSError as error:
            raise ArtifactNetError(f"{path}: cannot be read ({error.strerror})") from None
    return digest(b"".join(parts)).hex()


def _keep(path: Path, picture: _Picture) -> None:
    """Write the picture, unless it is there already."""
    if path.is_file() and path.read_bytes() == picture.jpeg:
        return
    with atomic_path(path) as temporary:
        temporary.write_bytes(picture.jpeg)


def _set_aside(record: dict[str, Any], stage: str, settled: ValidAnswer) -> dict[str, Any]:
    answers = [_answer_row(answer) for answer in settled.answers]
    return {**record, "stage": stage, "reason": settled.problem, "answers": answers}


def _answer_row(answer: Answer) -> dict[str, str]:
    return {"text": answer.text, "finish": answer.finish}


_UNANSWERED = 5  # images in a row without any answer: the server is gone
_REFUSED = 3  # refused requests before a first answer: it is not about the pictures


@dataclass(slots=True)
class Summary:
    """What became of the images.

    Attributes:
        records: images with an explanation, all in ``out``.
        out: the file, or None where there is nothing to write.
        asked: answers asked for by this run.
        invalid: answers of no use, those of earlier runs included.
        set_aside: images of which no answer was of use, with the reason.
        failures: images that could not be used, or got no answer.
        warnings: what a reader must know.
    """

    records: int = 0
    out: Path | None = None
    asked: int = 0
    invalid: int = 0
    set_aside: list[Failure] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    warnings: tuple[str, ...] = ()


def annotate(
    images: Path,
    masks: Path,
    out: Path,
    analyst: Chat,
    formatter: Chat | None = None,
    *,
    attempts: int = 3,
    workers: int = 1,
    bit_fields: bool = False,
    pictures: Path | None = None,
    report: Callable[[str, str], None] | None = None,
) -> Summary:
    """Let models explain the marked defects of images; go on where an earlier run stopped.

    Args:
        images: folder, searched deeply.
        masks: folder of a gray mask or heatmap for each; see `find_pairs`, `contours.read_region`.
        out: file of Expl-AIGI-Eval records to write, ending in ``.jsonl``.
        analyst: model that sees the pictures and analyses them freely.
        formatter: model that brings the analysis into form; the analyst by default.
        attempts: answers per image and stage at most, earlier runs included.
        workers: images that are worked on at a time.
        bit_fields: masks are bit fields of categories (see `artifactnet.taxonomy`); heatmaps of
            them are written to the folder ``FILE_heatmaps``.
        pictures: folder to keep the pictures with red lines in.
        report: called with an image's name and what became of it.

    Raises:
        ArtifactNetError: a folder or the output is unusable, the endpoint is, or it has gone: what
            was answered until then is kept, and what is finished is in ``out``, unless that holds
            more of an earlier run. The same goes for KeyboardInterrupt; both say which.
        OSError: the disk is full, or the like.
    """
    files = OutputFiles(out)
    files.check((images, masks), pictures, bit_fields)
    pairs, failures = find_pairs(images, masks)
    summary = Summary(failures=failures)
    with AnswerLog(files.raw) as log:
        summary.warnings = log.warnings
        work = Work(
            analyst=analyst,
            formatter=formatter or analyst,
            log=log,
            attempts=attempts,
            folder=out.parent,
            bit_fields=bit_fields,
            heatmaps=files.heatmaps,
            pictures=pictures,
        )
        outcomes: list[Outcome] = []
        try:
            _all(pairs, work, workers, summary, outcomes, report or (lambda name, what: None))
        except (ArtifactNetError, KeyboardInterrupt) as error:
            said = _write_unfinished(files, outcomes)
            error.args = ("; ".join(filter(None, (str(error), said))),)
            raise
    summary.asked = log.added
    _write(files, outcomes, summary)
    return summary


def _write(files: OutputFiles, outcomes: list[Outcome], summary: Summary) -> None:
    """Write what is finished and what was set aside, and count it."""
    finished = [outcome.record for outcome in outcomes if outcome.reason is None]
    rejected = [outcome.record for outcome in outcomes if outcome.reason is not None]
    summary.records = len(finished)
    summary.invalid = sum(outcome.invalid for outcome in outcomes)
    if finished:
        write_rows(files.out, finished)
        summary.out = files.out
    elif files.out.exists():
        summary.warnings += (f"{files.out}: of an earlier run; this one explained no image",)
    if rejected:
        write_rows(files.rejected, rejected)
    else:
        files.rejected.unlink(missing_ok=True)  # of an earlier run: all are settled now


def _write_unfinished(files: OutputFiles, outcomes: list[Outcome]) -> str:
    """Write what a broken-off run has finished, unless an earlier one got further; say which."""
    finished = [outcome.record for outcome in outcomes if outcome.reason is None]
    before = count_rows(files.out)
    if before > len(finished):
        return (
            f"{files.out}: as an earlier run left it, with {before} images; this one got to "
            f"{len(finished)}"
        )
    if not finished:
        return ""
    write_rows(files.out, finished)
    return f"{files.out}: holds the {len(finished)} images explained so far"


def _all(
    pairs: list[Pair],
    work: Work,
    workers: int,
    summary: Summary,
    outcomes: list[Outcome],
    report: Callable[[str, str], None],
) -> None:
    """Work on all images, some at a time; failures go to the summary."""
    watch = _Watch(work)

    def finished(pair: Pair, outcome: Outcome | ArtifactNetError) -> None:
        if isinstance(outcome, ArtifactNetError):
            report(pair.relative, f"failed: {outcome}")
            summary.failures.append(Failure(pair.image, str(outcome)))
            watch.failed(outcome)
            return
        outcomes.append(outcome)
        if outcome.reason is not None:
            summary.set_aside.append(Failure(pair.image, outcome.reason))
        report(pair.relative, outcome.reason or "done")
        watch.answered(outcome)

    paces = [work.analyst.pace, work.formatter.pace]
    run_concurrently(pairs, lambda pair: annotate_one(pair, work), finished, workers, paces)


class _Watch:
    """Notices that going on is of no use."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._unanswered = 0
        self._refused = 0

    def failed(self, error: ArtifactNetError) -> None:
        """An image failed.

        Raises:
            ArtifactNetError: it is one of many that got no answer.
        """
        if not isinstance(error, UnansweredError):
            return
        self._unanswered += 1
        if self._unanswered >= _UNANSWERED:
            raise ArtifactNetError(
                f"{error} ({self._unanswered} images in a row); what was answered until now is in "
                f"{self._work.log.path}: the same command goes on from there"
            )

    def answered(self, outcome: Outcome) -> None:
        """The endpoint answered or refused.

        Raises:
            ArtifactNetError: it refuses everything.
        """
        if outcome.asked or outcome.refused:  # all others came from the log
            self._unanswered = 0
        if not outcome.refused or self._has_answered(outcome.record["stage"]):
            return
        self._refused += 1
        if self._refused >= _REFUSED:
            raise ArtifactNetError(f"{outcome.reason}; the server has refused every request so far")

    def _has_answered(self, stage: str) -> bool:
        chat = self._work.analyst if stage == "analysis" else self._work.formatter
        return self._work.log.has(
            lambda key: key.get("stage") == stage and key.get("model") == chat.model
        )
