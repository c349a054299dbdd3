"""Asking a model many questions about images, each answer kept at once in a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from artifactnet.files import staging_folder
from artifactnet.inference.answers import UNANSWERED, AnswerLines, can_continue
from artifactnet.llm.client import RefusedError
from artifactnet.llm.server_watch import ServerWatch
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.coordinates import Size
from artifactnet.vlm.questions import Answerer, ImageQuestion, Written

_STAGING = "answers.partial"  # folder of temporary files
_ADVICE = "choose another folder"


@dataclass(slots=True)
class LoggedQuestion:
    """A question that may have an answer already.

    Attributes:
        key: unique in its file.
        known: what its line says beside the answer.
        ask: makes the question; called only if it must be asked.
        boxes: whether boxes are asked for: the line also says in which ``input_size`` they are.
    """

    key: str
    known: Mapping[str, Any]
    ask: Callable[[], ImageQuestion]
    boxes: bool = False


class _Waiting(NamedTuple):
    """A question that will be asked with others."""

    place: int  # among all questions
    logged: LoggedQuestion
    question: ImageQuestion
    input_size: Size


def answer_questions(
    path: Path,
    questions: Iterator[LoggedQuestion],
    answerer: Answerer,
    settings: Mapping[str, Any],
    batch_size: int | None = None,
    report: Callable[[int], None] | None = None,
    replace: bool = False,
) -> list[str]:
    """Ask, and write a line for each answer, in the order of the questions.

    A line is ``{**known, "input_size"?, "answer", "score"?, "cut_off"?}``. Called again after a
    kill, it asks what is left. A question without an answer, or whose image the model cannot take,
    has no line, and is asked again by the next call.

    Args:
        path: JSON lines; one process at a time.
        questions: all of them.
        answerer: the model.
        settings: whatever else decides answers, ready for JSON.
        batch_size: questions that are asked together; None: what suits the model.
        report: called with the number of answers so far, after each batch.
        replace: answers of another model or other settings are replaced, and not refused.

    Returns:
        Why questions have no answer, one reason each.

    Raises:
        ArtifactNetError: the file has answers of another model or other settings; no question can
            be answered, or none was; or a server is gone (see `ServerWatch`). Answers so far are
            kept.
        OSError: the file cannot be written.
    """
    settings = {"model": answerer.fingerprint(), **settings}
    size = answerer.batch_size if batch_size is None else batch_size
    problems: list[str] = []
    order: list[int] = []
    resume = not replace or can_continue(path, settings)
    watch = ServerWatch("questions", path.parent)
    with (
        staging_folder(path.parent / _STAGING) as staging,
        AnswerLines(path, staging, settings, resume, ("path", "answer"), _ADVICE) as lines,
    ):
        waiting: list[_Waiting] = []

        def ask() -> None:
            written = answerer.ask([one.question for one in waiting])
            # first the answers, which were paid for
            for one, answer in zip(waiting, written, strict=True):
                if answer.problem is None:
                    order[one.place] = lines.append(_line(one, answer))
            for one, answer in zip(waiting, written, strict=True):
                if answer.problem is None:
                    watch.answered()
                    continue
                problems.append(f"{one.logged.key}: {answer.problem}")
                if isinstance(answer.problem, RefusedError):
                    watch.refused(problems[-1], bool(lines.earlier + lines.appended))
                else:
                    watch.failed(answer.problem)
            waiting.clear()
            if report is not None:
                report(lines.earlier + lines.appended)

        for logged in questions:
            earlier = lines.find(logged.key)
            order.append(UNANSWERED if earlier is None else earlier[0])
            if earlier is not None:
                continue
            try:
                question = logged.ask()
                input_size = answerer.input_size(question.size)
            except ArtifactNetError as error:  # about this image alone
                problems.append(f"{logged.key}: {error}")
                continue
            if waiting and waiting[0].question.yes_no != question.yes_no:
                ask()
            waiting.append(_Waiting(len(order) - 1, logged, question, input_size))
            if len(waiting) == size:
                ask()
        if waiting:
            ask()
        if problems and not lines.earlier + lines.appended:
            raise ArtifactNetError(
                f"none of {len(problems)} questions has an answer, e.g. {problems[0]}"
            )
        lines.finish(order)
    return problems


def _line(one: _Waiting, written: Written) -> dict[str, Any]:
    line = {"path": one.logged.key, **one.logged.known}
    if one.logged.boxes:
        line["input_size"] = list(one.input_size)
    line["answer"] = written.text
    if written.yes is not None:
        line["score"] = written.yes
    if written.cut_off:
        line["cut_off"] = True
    return line
