"""Asking until an answer is of use, a bounded number of times, and nothing twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from artifactnet.mllm.answer_log import AnswerLog
from artifactnet.mllm.chat import Chat
from artifactnet.mllm.messages import Answer, Message, assistant, user
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
class Settled:
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


def settle(question: Question, chat: Chat, log: AnswerLog, attempts: int) -> Settled:
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
                return Settled(question.check(_said(answer)), "", answers[: index + 1])
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
                return Settled(question.check(_said(answer)), "", answers, asked)
            except ArtifactNetError as error:
                problem = str(error)
        return Settled(None, problem, answers, asked)


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
