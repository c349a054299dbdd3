"""Asking many questions: log every answer, ask again after a bad one, work in parallel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TypeVar

from artifactnet.llm.answer_log import AnswerLog
from artifactnet.llm.client import (
    Answer,
    Cancelled,
    Chat,
    EndpointError,
    Message,
    RateLimiter,
    assistant_message,
    user_message,
)
from artifactnet.types import ArtifactNetError

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Question:
    """A question to a model.

    Attributes:
        key: identifies it in a log, with the model's name (and temperature) added; everything
            that changes what is asked must be in it.
        messages: builds the conversation; called only if the model must be asked.
        check: turns an answer, after `strip_thinking`, into the result; raises an
            `ArtifactNetError` that says what is wrong with it.
        note: for people, e.g. the image's name.
        temperature: see `Chat.ask`.
    """

    key: Mapping[str, str]
    messages: Callable[[], list[Message]]
    check: Callable[[Answer], str]
    note: str
    temperature: float | None = None

    def log_key(self, model: str) -> dict[str, str]:
        """Key of the answers of ``model`` in a log."""
        key = {**self.key, "model": model}
        if self.temperature is not None:
            key["temperature"] = f"{self.temperature:g}"
        return key


@dataclass(frozen=True, slots=True)
class ValidAnswer:
    """The outcome of a question."""

    result: str | None  # of the first valid answer; None without one
    problem: str  # why the last answer is invalid; empty if one is valid
    answers: list[Answer] = field(default_factory=list)  # all up to the first valid one
    asked: int = 0  # how many of them were requested just now


def ask_until_valid(question: Question, chat: Chat, log: AnswerLog, attempts: int) -> ValidAnswer:
    """Look into the log, then ask; every answer is logged before it is checked.

    After an invalid answer the model sees it again, and what is wrong with it. At most ``attempts``
    answers are used, those in the log included.

    Raises:
        ArtifactNetError: the endpoint gave no answer; see `Chat.ask`.
    """
    key = question.log_key(chat.model)
    with log.exclusive(key):
        found = logged_answer(question, chat.model, log)
        logged = len(found.answers)
        while found.result is None and len(found.answers) < attempts:
            messages = question.messages()
            # many servers refuse a turn without text
            if found.answers and (last := strip_thinking(found.answers[-1].text)).strip():
                again = (
                    f"This cannot be used: {found.problem}. Please answer once more and fix that."
                )
                messages = [*messages, assistant_message(last), user_message(again)]
            log.add(key, chat.ask(messages, question.temperature), question.note)
            found = logged_answer(question, chat.model, log)
        return replace(found, asked=len(found.answers) - logged)


def logged_answer(question: Question, model: str, log: AnswerLog) -> ValidAnswer:
    """What `ask_until_valid` finds in the log, where nothing is asked."""
    answers = log.answers(question.log_key(model))
    problem = "no answer was requested"
    for index, answer in enumerate(answers, 1):
        try:
            result = question.check(replace(answer, text=strip_thinking(answer.text)))
        except ArtifactNetError as error:
            problem = str(error)
        else:
            return ValidAnswer(result, "", answers[:index])
    return ValidAnswer(None, problem, answers)


def strip_thinking(text: str) -> str:
    """The text after ``<think>...</think>``; empty if the thinking does not end.

    The opening tag may be missing: some servers send it to the model as part of the question.
    """
    _, end, answer = text.rpartition("</think>")
    return "" if not end and text.lstrip().startswith("<think>") else answer


def run_concurrently(
    items: Sequence[Item],
    work: Callable[[Item], Result],
    on_result: Callable[[Item, Result | ArtifactNetError], None],
    workers: int,
    limiters: Sequence[RateLimiter],
) -> None:
    """Work on all items in a pool of threads, until an error that concerns all of them.

    Args:
        items: what to work on.
        work: runs in a thread.
        on_result: called for each item in order, in the calling thread, with its result or the
            error of this item alone. What it raises ends the work.
        workers: threads.
        limiters: stopped if the work ends early (an interrupt included), so that waiting threads
            raise `Cancelled`, until all threads have ended; requests in flight are waited for.

    Raises:
        EndpointError: no request can succeed.
        Cancelled: a limiter was stopped from outside.
        OSError: the disk is full, or the like.
    """

    def stop() -> None:
        for limiter in limiters:
            limiter.stop()

    def run(item: Item) -> Result:
        try:
            return work(item)
        except BaseException as error:
            if _is_fatal(error):
                stop()  # here: until the caller notices, other threads would go on asking
            raise

    try:
        with ThreadPoolExecutor(workers) as pool:
            futures = [pool.submit(run, item) for item in items]
            try:
                for item, future in zip(items, futures, strict=True):
                    outcome: Result | ArtifactNetError
                    try:
                        outcome = future.result()
                    except ArtifactNetError as error:
                        if _is_fatal(error):
                            raise
                        outcome = error
                    on_result(item, outcome)
            except BaseException as error:
                stop()
                pool.shutdown(wait=True, cancel_futures=True)
                cause = next(filter(None, map(_cause, futures)), None)
                if isinstance(error, Cancelled) and cause is not None:
                    raise cause from None
                raise
    finally:
        for limiter in limiters:
            limiter.resume()  # the stop was for these threads, which have ended


def _is_fatal(error: BaseException) -> bool:
    """Whether an error concerns all items: a full disk, a wrong key."""
    return not isinstance(error, ArtifactNetError) or isinstance(error, (EndpointError, Cancelled))


def _cause(future: Future[Result]) -> BaseException | None:
    """The fatal error of a future that has ended, other than being cancelled itself."""
    error = None if future.cancelled() else future.exception()
    return error if error and _is_fatal(error) and not isinstance(error, Cancelled) else None
