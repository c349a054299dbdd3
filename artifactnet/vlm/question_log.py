"""Asking a model many questions about images, each answer kept at once in a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifactnet.files import staging_folder
from artifactnet.inference.answers import AnswerLines, settings_file
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.questions import Answerer, ImageQuestion, Written

_STAGING = "answers.partial"  # folder of temporary files


@dataclass(slots=True)
class LoggedQuestion:
    """A question that may have an answer already.

    Attributes:
        key: unique in its file.
        known: what its line says beside the answer.
        ask: makes the question; called only if it must be asked.
    """

    key: str
    known: Mapping[str, Any]
    ask: Callable[[], ImageQuestion]


def answer_questions(
    path: Path,
    questions: Iterator[LoggedQuestion],
    answerer: Answerer,
    settings: Mapping[str, Any],
    batch_size: int | None = None,
    report: Callable[[int], None] | None = None,
) -> list[str]:
    """Ask, and write lines ``{**known, "answer", "score"?, "cut_off"?}`` in the order of questions.

    Called again after a kill, it asks what is left. A question without an answer has no line, and
    is asked again by the next call.

    Args:
        path: JSON lines; one process at a time.
        questions: all of them.
        answerer: the model.
        settings: whatever else decides answers, ready for JSON; other ones are refused.
        batch_size: questions that are asked together; None: what suits the model.
        report: called with the number of answers so far, after each batch.

    Returns:
        Why questions have no answer, one reason each.

    Raises:
        ArtifactNetError: the file has answers of another model or other settings; or no question
            can be answered.
        OSError: the file cannot be written.
    """
    settings = {"model": answerer.fingerprint(), **settings}
    _check_settings(path, settings)
    size = answerer.batch_size if batch_size is None else batch_size
    problems: list[str] = []
    order: list[int] = []
    with (
        staging_folder(path.parent / _STAGING) as staging,
        AnswerLines(path, staging, settings, True, ("path", "answer")) as lines,
    ):
        waiting: list[tuple[int, LoggedQuestion, ImageQuestion]] = []

        def ask() -> None:
            written = answerer.ask([question for _, _, question in waiting])
            for (place, logged, _), one in zip(waiting, written, strict=True):
                if one.text is None:
                    problems.append(f"{logged.key}: {one.problem}")
                else:
                    order[place] = lines.append(_line(logged, one))
            waiting.clear()
            if report is not None:
                report(lines.earlier + lines.appended)

        for logged in questions:
            earlier = lines.find(logged.key)
            order.append(-1 if earlier is None else earlier[0])
            if earlier is not None:
                continue
            question = logged.ask()
            if waiting and waiting[0][2].yes_no != question.yes_no:
                ask()
            waiting.append((len(order) - 1, logged, question))
            if len(waiting) == size:
                ask()
        if waiting:
            ask()
        lines.finish(order)
    return problems


def _line(logged: LoggedQuestion, written: Written) -> dict[str, Any]:
    line = {"path": logged.key, **logged.known, "answer": written.text}
    if written.yes is not None:
        line["score"] = written.yes
    if written.cut_off:
        line["cut_off"] = True
    return line


def _check_settings(path: Path, settings: Mapping[str, Any]) -> None:
    file = settings_file(path)
    if not file.is_file():
        return
    saved = json.loads(file.read_bytes())
    differ = [key for key, value in settings.items() if saved.get(key) != value]
    if differ:
        raise ArtifactNetError(
            f"{path.parent}: holds answers of another {' and '.join(differ)}; choose another folder"
        )
