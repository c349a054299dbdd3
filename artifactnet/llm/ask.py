"""Many things asked about by several threads, and all of them stopped when one finds no sense."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TypeVar

from artifactnet.llm.answer_log import AnswerLog
from artifactnet.llm.client import (
    Answer,
    Chat,
    EndpointError,
    Message,
    Pace,
    Stopped,
    assistant,
    user,
)
from artifactnet.types import ArtifactNetError


@dataclass(frozen=True, slots=True)
class Question:
    """Something to ask a model.

    Attributes:
        key: what makes it this question and no other; with the model's name added, it finds the
            answers in a log.
        messages: makes the conversation; called only if the model must be asked.
        check: makes the result of an answer, which comes `without_thoughts`; an
            `ArtifactNetError` says why it is of no use.
        note: what it is about, for people.
    """

    key: Mapping[str, str]
    messages: Callable[[], list[Message]]
    check: Callable[[Answer], str]
    note: str


@dataclass(frozen=True, slots=True)
class ValidAnswer:
    """What came of a question.

    Attributes:
        result: of the first answer that is of use; None where none is.
        problem: why the last answer is of no use; empty where one is.
        answers: all of them, to the first that is of use.
        asked: how many of them were asked for just now.
    """

    result: str | None
    problem: str
    answers: list[Answer] = field(default_factory=list)
    asked: int = 0


def ask_until_valid(question: Question, chat: Chat, log: AnswerLog, attempts: int) -> ValidAnswer:
    """Look into the log, then ask; every answer goes to the log before it is looked at.

    After an answer of no use the model is shown it and told what is wrong with it.

    Args:
        question: what to ask.
        chat: whom.
        log: of earlier answers.
        attempts: answers to ask for at most, those in the log included.

    Raises:
        ArtifactNetError: the endpoint gave no answer; see `Chat.ask`.
    """
    key = {**question.key, "model": chat.model}
    with log.alone(key):
        answers = log.answers(key)
        problem = "no answer was asked for"
        for index, answer in enumerate(answers):
            try:
                return ValidAnswer(question.check(_said(answer)), "", answers[: index + 1])
            except ArtifactNetError as error:
                problem = str(error)
        asked = 0
        while len(answers) < attempts:
            messages = question.messages()
            answer = chat.ask(
                _again(messages, _said(answers[-1]), problem) if answers else messages
            )
            log.add(key, answer, question.note)
            answers.append(answer)
            asked += 1
            try:
                return ValidAnswer(question.check(_said(answer)), "", answers, asked)
            except ArtifactNetError as error:
                problem = str(error)
        return ValidAnswer(None, problem, answers, asked)


def without_thoughts(text: str) -> str:
    """What a model says after ``<think>...</think>``; nothing where its thoughts do not end.

    The opening tag may be missing: some servers send it to the model as part of the question.
    """
    _, ended, said = text.rpartition("</think>")
    return "" if not ended and text.lstrip().startswith("<think>") else said


def _said(answer: Answer) -> Answer:
    return replace(answer, text=without_thoughts(answer.text))


def _again(messages: list[Message], answer: Answer, problem: str) -> list[Message]:
    """The conversation after an answer that is of no use."""
    if not answer.text.strip():
        return messages  # many servers refuse a turn without text
    request = f"This cannot be used: {problem}. Please answer once more, with that mended."
    return [*messages, assistant(answer.text), user(request)]


Item = TypeVar("Item")
Result = TypeVar("Result")


def run_concurrently(
    items: Sequence[Item],
    work: Callable[[Item], Result],
    finished: Callable[[Item, Result | ArtifactNetError], None],
    workers: int,
    paces: Iterable[Pace],
) -> None:
    """Do work on all items, some at a time.

    Args:
        items: what to work on.
        work: done in a thread.
        finished: told of each item in their order, in the calling thread: its result, or the error
            that it alone has. What this raises ends the work.
        workers: threads.
        paces: those that the work asks for turns. Where it ends early, an interrupt included, they
            are stopped, so that waiting threads raise `Stopped`, until all threads have ended;
            what was already sent is waited for.

    Raises:
        EndpointError: no request can succeed.
        Stopped: somebody else stopped a pace.
        OSError: the disk is full, or the like.
    """
    shared = list(paces)

    def stop() -> None:
        for pace in shared:
            pace.stop()

    def guarded(item: Item) -> Result:
        try:
            return work(item)
        except BaseException as error:
            if _ends_all(error):
                stop()  # here already: until the caller looks, other threads would go on asking
            raise

    try:
        with ThreadPoolExecutor(workers) as pool:
            futures = [pool.submit(guarded, item) for item in items]
            try:
                _pass_on(items, futures, finished)
            except BaseException as error:
                stop()
                pool.shutdown(wait=True, cancel_futures=True)
                cause = next(filter(None, map(_cause, futures)), None)
                if isinstance(error, Stopped) and cause is not None:
                    raise cause from None
                raise
    finally:
        for pace in shared:
            pace.resume()  # the stop was for these threads, which have ended


def _pass_on(
    items: Sequence[Item],
    futures: Sequence[Future[Result]],
    finished: Callable[[Item, Result | ArtifactNetError], None],
) -> None:
    """Tell of each item what came of it, until something ends all work."""
    for item, future in zip(items, futures, strict=True):
        try:
            outcome: Result | ArtifactNetError = future.result()
        except ArtifactNetError as error:
            if _ends_all(error):
                raise
            outcome = error
        finished(item, outcome)


def _ends_all(error: BaseException) -> bool:
    """Whether an error is not that of its item alone: a full disk, a wrong key."""
    return not isinstance(error, ArtifactNetError) or isinstance(error, (EndpointError, Stopped))


def _cause(future: Future[Result]) -> BaseException | None:
    """Why a future that has ended ended all work, if it did."""
    error = None if future.cancelled() else future.exception()
    return error if error and _ends_all(error) and not isinstance(error, Stopped) else None
