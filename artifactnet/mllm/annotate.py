"""Building a set like Expl-AIGI-Eval: explanations of defects that people have marked (Sec. 3.4).

Beside the output FILE.jsonl lie FILE.raw.jsonl, every answer as it came and the memory of what was
asked already, and FILE.rejected.jsonl, the images of which no answer was of use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from artifactnet.inference.inputs import Failure
from artifactnet.mllm.annotation_files import OutputFiles, count_rows, write_rows
from artifactnet.mllm.annotation_pairs import Pair, find_pairs
from artifactnet.mllm.annotation_record import Outcome, Work, annotate_one
from artifactnet.mllm.answer_log import AnswerLog
from artifactnet.mllm.chat import Chat, UnansweredError
from artifactnet.mllm.workers import work_through
from artifactnet.types import ArtifactNetError

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
    work_through(pairs, lambda pair: annotate_one(pair, work), finished, workers, paces)


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
