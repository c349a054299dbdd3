"""Annotate generated images as Q-Real does (Sec. 3.2), up to what people review.

Four stages, each for all images before the next: names of entities, boxes, quality, answers. What
each finds goes into one log, FILE.raw.jsonl, and the output FILE.jsonl is made of the log alone: a
run that was killed goes on where it stopped, and its output is that of an uninterrupted one.
FILE.rejected.jsonl lists the images that have no line, with the reason.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from artifactnet.annotation.files import OutputFiles, write_rows
from artifactnet.annotation.qreal import answers, detection, entities, quality
from artifactnet.annotation.qreal.detection import Box, Detector
from artifactnet.annotation.qreal.images import Picture, find_pictures
from artifactnet.annotation.qreal.quality import Scorer
from artifactnet.data.crops import crop_entity
from artifactnet.data.image_files import Skipped
from artifactnet.data.images import decode_image
from artifactnet.data.qreal import QRealEntity, QRealImage, write_qreal
from artifactnet.inference.inputs import Failure
from artifactnet.llm.answer_log import AnswerLog
from artifactnet.llm.ask import (
    Question,
    ValidAnswer,
    ask_until_valid,
    logged_answer,
    run_concurrently,
)
from artifactnet.llm.client import Chat, RefusedError
from artifactnet.llm.server_watch import ServerWatch
from artifactnet.types import ArtifactNetError, UInt8Array

STAGES = (entities.STAGE, detection.STAGE, quality.STAGE, answers.STAGE)
MAX_CALLS = 1000  # that are made without being confirmed
_NOT_YET = "not done yet"
Report = Callable[[str, str], None]


@dataclass(slots=True)
class Summary:
    """What became of the images."""

    images: int = 0  # with a line in ``out``
    entities: int = 0  # in these lines
    out: Path | None = None  # the file; None if the last stage did not run, or found nothing
    asked: int = 0  # answers that the endpoint gave to this run
    invalid: int = 0  # invalid answers, those of earlier runs included
    # without a line, and no further run will change that, unless options do
    set_aside: list[Failure] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)  # unusable, or still without an answer
    warnings: tuple[str, ...] = ()


def annotate_images(
    images: Path,
    out: Path,
    chat: Chat,
    detector: Detector,
    scorer: Scorer | None = None,
    *,
    until: str = STAGES[-1],
    attempts: int = 3,
    workers: int = 1,
    max_boxes: int = 1,
    generator_folders: bool = False,
    max_calls: int | None = MAX_CALLS,
    report: Report | None = None,
) -> Summary:
    """Let models name, find, rate and describe the entities of images; resumes an earlier run.

    Args:
        images: folder, searched recursively.
        out: file of Q-Real annotations to write, ending in ``.jsonl``; its lines are marked as not
            verified.
        chat: model that sees images and answers.
        detector: finds each name in its image.
        scorer: rates each crop; None leaves quality out.
        until: the last of `STAGES` to run; only the last of all writes ``out``.
        attempts: maximum number of answers to a question, earlier runs included.
        workers: questions asked at the same time.
        max_boxes: entities of one name in an image.
        generator_folders: see `find_pictures`.
        max_calls: calls of the endpoint, repeated ones not counted, that may be made; None: any
            number.
        report: called with a name and what became of it: images, entities, costs.

    Raises:
        ArtifactNetError: a folder, the output, a model or the endpoint is unusable, the server is
            gone, or more calls than ``max_calls`` may be needed (then nothing is asked). All that
            was found so far is in the log; the same holds for KeyboardInterrupt.
        OSError: the disk is full, or the like.
    """
    if until not in STAGES:
        raise ArtifactNetError(f"unknown stage {until!r}; known: {', '.join(STAGES)}")
    files = OutputFiles(out)
    files.check((images,), None, False)
    skipped = Skipped()
    pictures, failures = find_pictures(images, generator_folders, skipped)
    with AnswerLog(files.raw) as log:
        models = _Models(chat, detector, scorer)
        run = _Run(pictures, log, models, attempts, workers, max_boxes, report or _silent)
        stages = STAGES[: STAGES.index(until) + 1]
        run.announce_cost(stages, max_calls)
        for stage in stages:
            run.fill(stage)
        summary = Summary(failures=failures, asked=run.asked)
        summary.warnings = (*skipped.describe(images), *log.warnings)
        summary.invalid = run.invalid(stages)
        if stages == STAGES:
            _write(files, run, summary)
        else:
            _sum_up(run, summary)
    return summary


@dataclass(frozen=True, slots=True)
class _Models:
    chat: Chat
    detector: Detector
    scorer: Scorer | None


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What is known of a picture: its entities, or why there are none."""

    entities: tuple[QRealEntity, ...] = ()
    stage: str = ""
    reason: str = ""
    pending: bool = False  # another run may get further


class _Run:
    """Fills the log stage by stage; everything else is read from the log."""

    def __init__(
        self,
        pictures: list[Picture],
        log: AnswerLog,
        models: _Models,
        attempts: int,
        workers: int,
        max_boxes: int,
        report: Report,
    ) -> None:
        self.pictures = pictures
        self.asked = 0
        self._log, self._models = log, models
        self._attempts, self._workers, self._max_boxes = attempts, workers, max_boxes
        self._report = report
        self._failed: dict[str, tuple[str, bool]] = {}  # note -> reason, whether it may change
        # by digest, as they become known
        self._all_names: dict[str, list[str]] = {}
        self._all_boxes: dict[str, list[Box]] = {}
        self._works: set[str] = set()  # stages whose local model has proved to work

    def announce_cost(self, stages: Sequence[str], max_calls: int | None) -> None:
        """Report how many calls the stages need at most.

        Raises:
            ArtifactNetError: more than ``max_calls``.
        """
        first = self._open(entities.STAGE)
        certain = self._open(answers.STAGE) if answers.STAGE in stages else []
        possible = 0
        if answers.STAGE in stages:
            for picture in self.pictures:
                possible += self._possible_answers(picture)
        total = len(first) + len(certain) + possible
        at_most = "at most " if possible else ""
        cost = (
            f"{len(self.pictures)} images: {len(first)} calls for names, "
            f"{at_most}{len(certain) + possible} for answers; an invalid answer is asked for "
            f"again, {self._attempts} times in all"
        )
        self._report("cost", cost)
        if max_calls is not None and total > max_calls:
            raise ArtifactNetError(
                f"{cost}: {at_most}{total} calls are more than {max_calls}; nothing was asked; add "
                "--yes to go on, or --until entities to find out more"
            )

    def _possible_answers(self, picture: Picture) -> int:
        """How many questions about its entities a picture may bring, beside those known."""
        names, boxes = self._names(picture), self._boxes(picture)
        if names is None:
            tried = len(self._logged(entities.entities_question(picture)).answers)
            return entities.MAX_NAMES * self._max_boxes if tried < self._attempts else 0
        if boxes is None:
            return len(names) * self._max_boxes
        return len(boxes) if self._qualities(picture) is None else 0

    def fill(self, stage: str) -> None:
        """Let a stage find what the log lacks, as far as the stages before got."""
        if stage in (entities.STAGE, answers.STAGE):
            self._ask(stage, self._open(stage))
        elif stage == detection.STAGE:
            for picture in self.pictures:
                self._compute(stage, picture, self._undetected(picture), self._detect)
        elif self._models.scorer is not None:
            for picture in self.pictures:
                self._compute(stage, picture, self._unrated(picture), self._rate)

    def outcome(self, picture: Picture) -> _Outcome:
        """What the log and this run's failures say of a picture."""
        names = self._names(picture)
        if names is None:
            return self._without_answer(entities.STAGE, entities.entities_question(picture))
        if not names:
            return _Outcome(stage=entities.STAGE, reason="the model sees nothing to annotate")
        boxes = self._boxes(picture)
        if boxes is None:
            return self._unfinished(detection.STAGE, picture)
        if not boxes:
            reason = f"no box, or only small ones, for {', '.join(names)}"
            return _Outcome(stage=detection.STAGE, reason=reason)
        qualities = self._qualities(picture)
        if qualities is None:
            return self._unfinished(quality.STAGE, picture)
        found = []
        for number, (question, box, value) in enumerate(self._answer_questions(picture)):
            result = self._logged(question).result
            if result is None:
                return self._without_answer(answers.STAGE, question)
            found.append(answers.read_entity(result, f"{picture.key}-{number}", box, value))
        return _Outcome(tuple(found))

    def invalid(self, stages: Sequence[str]) -> int:
        """Invalid answers in the log to the questions of these stages."""
        count = 0
        for stage in stages:
            for question in self._questions(stage):
                answer = self._logged(question)
                count += len(answer.answers) - (answer.result is not None)
        return count

    # what the log holds; None where it lacks something

    def _names(self, picture: Picture) -> list[str] | None:
        if picture.digest not in self._all_names:
            result = self._logged(entities.entities_question(picture)).result
            if result is None:
                return None
            self._all_names[picture.digest] = entities.read_names(result)
        return self._all_names[picture.digest]

    def _boxes(self, picture: Picture) -> list[Box] | None:
        if picture.digest not in self._all_boxes:
            names = self._names(picture)
            if names is None or self._undetected(picture):
                return None
            found = []
            for name in names:
                answer = self._log.answers(self._detection_key(picture, name))[0]
                found.append(detection.read_boxes(name, answer))
            chosen = detection.choose_boxes(found, picture.size, self._max_boxes)
            self._all_boxes[picture.digest] = chosen
        return self._all_boxes[picture.digest]

    def _qualities(self, picture: Picture) -> list[float | None] | None:
        boxes = self._boxes(picture)
        scorer = self._models.scorer
        if boxes is None or self._unrated(picture):
            return None
        if scorer is None:
            return [None] * len(boxes)
        keys = [quality.quality_key(picture, box.bbox, scorer.identity) for box in boxes]
        return [quality.read_quality(self._log.answers(key)[0]) for key in keys]

    def _logged(self, question: Question) -> ValidAnswer:
        return logged_answer(question, self._models.chat.model, self._log)

    # what it lacks

    def _undetected(self, picture: Picture) -> list[str]:
        names = self._names(picture) or []
        return [n for n in names if not self._log.answers(self._detection_key(picture, n))]

    def _unrated(self, picture: Picture) -> list[Box]:
        scorer = self._models.scorer
        if scorer is None:
            return []
        return [
            box
            for box in self._boxes(picture) or []
            if not self._log.answers(quality.quality_key(picture, box.bbox, scorer.identity))
        ]

    def _open(self, stage: str) -> list[Question]:
        """Questions that will be asked, each once."""
        found: dict[str, Question] = {}
        for question in self._questions(stage):
            answer = self._logged(question)
            if answer.result is None and len(answer.answers) < self._attempts:
                found.setdefault(str(question.key), question)
        return list(found.values())

    def _questions(self, stage: str) -> list[Question]:
        """All questions of a stage that are known by now."""
        if stage == entities.STAGE:
            return [entities.entities_question(picture) for picture in self.pictures]
        if stage == answers.STAGE:
            return [q for picture in self.pictures for q, _, _ in self._answer_questions(picture)]
        return []

    def _answer_questions(self, picture: Picture) -> list[tuple[Question, Box, float | None]]:
        boxes, qualities = self._boxes(picture), self._qualities(picture)
        if boxes is None or qualities is None:
            return []
        return [
            (answers.answers_question(picture, box, value, number), box, value)
            for number, (box, value) in enumerate(zip(boxes, qualities, strict=True))
        ]

    def _detection_key(self, picture: Picture, name: str) -> dict[str, str]:
        return detection.detection_key(picture, name, self._models.detector.identity)

    # finding it

    def _ask(self, stage: str, questions: list[Question]) -> None:
        chat = self._models.chat
        watch = ServerWatch("questions", self._log.path)

        def take(question: Question, outcome: ValidAnswer | ArtifactNetError) -> None:
            if isinstance(outcome, ValidAnswer):
                watch.answered()
                said = "done" if outcome.result is not None else f"rejected: {outcome.problem}"
                self.asked += outcome.asked
                self._report(question.note, f"{stage}: {said}")
                return
            refused = isinstance(outcome, RefusedError)
            self._failed[question.note] = str(outcome), not refused
            said = "refused" if refused else "failed"
            self._report(question.note, f"{stage}: {said}: {outcome}")
            if refused:
                watch.refused(str(outcome), self._log.has_answer(stage, chat.model))
            else:
                watch.failed(outcome)

        def work(question: Question) -> ValidAnswer:
            return ask_until_valid(question, chat, self._log, self._attempts)

        run_concurrently(questions, work, take, self._workers, [chat.limiter])

    def _compute(
        self,
        stage: str,
        picture: Picture,
        lacking: Sequence[Any],
        find: Callable[[Picture, Any, UInt8Array], None],
    ) -> None:
        """Let a local model find what is lacking of a picture.

        Raises:
            ArtifactNetError: the model does not even work for the first picture.
        """
        if not lacking:
            return
        try:
            pixels = decode_image(picture.path, picture.path)
        except ArtifactNetError as error:
            self._fail(picture, error)
            return
        try:
            for one in lacking:
                find(picture, one, pixels)
        except ArtifactNetError as error:
            if stage not in self._works:  # it is not about this picture
                raise
            self._fail(picture, error)
        else:
            self._works.add(stage)

    def _fail(self, picture: Picture, error: ArtifactNetError) -> None:
        self._failed[picture.relative] = str(error), True
        self._report(picture.relative, f"failed: {error}")

    def _detect(self, picture: Picture, name: str, pixels: UInt8Array) -> None:
        key = self._detection_key(picture, name)
        if self._log.answers(key):  # of the same image under another name
            return
        found = detection.detect(self._models.detector, pixels, name)
        self._log.add(key, found, picture.relative)
        boxes = detection.read_boxes(name, found)
        best = f"best score {boxes[0].score:.2f}" if boxes else "not found"
        self._report(picture.relative, f"{detection.STAGE}: {name}: {best}")

    def _rate(self, picture: Picture, box: Box, pixels: UInt8Array) -> None:
        scorer = self._models.scorer
        assert scorer is not None
        key = quality.quality_key(picture, box.bbox, scorer.identity)
        if self._log.answers(key):
            return
        found = quality.score(scorer, crop_entity(pixels, box.bbox))
        self._log.add(key, found, picture.relative)
        value = quality.read_quality(found)
        self._report(picture.relative, f"{quality.STAGE}: {box.label}: {value:.2f}")

    # what is not there

    def _without_answer(self, stage: str, question: Question) -> _Outcome:
        failed = self._failed.get(question.note)
        if failed is not None:
            return _Outcome((), stage, failed[0], failed[1])
        answer = self._logged(question)
        pending = len(answer.answers) < self._attempts
        count = len(answer.answers)
        reason = f"{count} invalid answers; {answer.problem}" if count else _NOT_YET
        return _Outcome((), stage, reason, pending)

    def _unfinished(self, stage: str, picture: Picture) -> _Outcome:
        reason, _ = self._failed.get(picture.relative, (_NOT_YET, True))
        return _Outcome((), stage, reason, True)


def _write(files: OutputFiles, run: _Run, summary: Summary) -> None:
    """Write the lines, and the list of images without one."""
    folder = files.out.parent.resolve()
    lines = []
    rejected = []
    for picture in run.pictures:
        outcome = run.outcome(picture)
        if outcome.entities:
            # of the folder alone: an image may be a link to a file of another name
            place = Path(picture.path).parent.resolve() / Path(picture.path).name
            lines.append(
                QRealImage(
                    image=PurePath(os.path.relpath(place, folder)).as_posix(),
                    uid=picture.uid,
                    entities=outcome.entities,
                    generator=picture.generator,
                    verified=False,
                    folder=files.out.parent,
                )
            )
            continue
        _add(summary, picture, outcome)
        rejected.append(
            {"image": picture.relative, "stage": outcome.stage, "reason": outcome.reason}
        )
    summary.images, summary.entities = len(lines), sum(len(line.entities) for line in lines)
    if lines:
        write_qreal(files.out, lines)
        summary.out = files.out
    elif files.out.exists():
        summary.warnings += (f"{files.out}: from an earlier run; this one annotated no image",)
    if rejected:
        write_rows(files.rejected, rejected)
    else:
        files.rejected.unlink(missing_ok=True)  # of an earlier run


def _sum_up(run: _Run, summary: Summary) -> None:
    """What went wrong before the last stage; what merely has not been done yet is not wrong."""
    for picture in run.pictures:
        outcome = run.outcome(picture)
        if not outcome.entities and outcome.reason != _NOT_YET:
            _add(summary, picture, outcome)


def _add(summary: Summary, picture: Picture, outcome: _Outcome) -> None:
    failure = Failure(picture.path, f"{outcome.stage}: {outcome.reason}")
    (summary.failures if outcome.pending else summary.set_aside).append(failure)


def _silent(name: str, what: str) -> None:
    pass
