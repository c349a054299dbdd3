"""Asking a language model behind an endpoint, patiently but not for ever."""

from __future__ import annotations

import base64
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from artifactnet.types import ArtifactNetError

if TYPE_CHECKING:
    from openai import OpenAI


Message = Mapping[str, Any]  # {"role": ..., "content": ...} of the chat-completions interface


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model wrote.

    Attributes:
        text: as it came; empty where the model wrote nothing.
        finish: why it ended: ``stop``, ``length`` (cut off), ``content_filter``, or what else the
            server says; empty where it does not say.
    """

    text: str
    finish: str


def user(text: str, picture: bytes | None = None) -> Message:
    """A message of ours.

    Args:
        text: what is said.
        picture: content of a JPEG file that goes before the text.
    """
    if picture is None:
        return {"role": "user", "content": text}
    url = "data:image/jpeg;base64," + base64.b64encode(picture).decode("ascii")
    return {
        "role": "user",
        "content": [
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "text", "text": text},
        ],
    }


def assistant(text: str) -> Message:
    """An earlier answer of the model, for a conversation that goes on."""
    return {"role": "assistant", "content": text}


LONGEST_WAIT = 600.0  # seconds; whoever asks for more is asked another day
_FIRST = 1.0  # seconds
_LONGEST_BACKOFF = 60.0
_TRANSIENT = (408, 409, 425, 429)


class Response(Protocol):
    """What is needed of an HTTP response."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Names in any case to values."""


def is_transient(status: int, code: str | None) -> bool:
    """Whether the same request may succeed later.

    Args:
        status: of HTTP.
        code: the server's own word for the error, where it has one; an account without credit
            says 429 like one that asks too fast, but no waiting helps.
    """
    if code == "insufficient_quota":
        return False
    return status in _TRANSIENT or status >= 500


def backoff(attempt: int, share: float) -> float:
    """Seconds to wait after a failure: doubled each time, with jitter so that threads spread.

    Args:
        attempt: 0 after the first failure.
        share: random number in [0, 1].

    Returns:
        between half of the full pause and all of it; the full pause is 1, 2, 4, ... up to 60.
    """
    full = min(_LONGEST_BACKOFF, _FIRST * 2.0 ** min(attempt, 30))
    return full * (0.5 + 0.5 * share)


def pause_asked_for(response: Response, now: float | None = None) -> float | None:
    """Seconds that a ``Retry-After`` header asks to wait.

    Args:
        response: with its headers.
        now: seconds since 1970, for the header's other form, a date; the clock's by default.

    Returns:
        0 or more; None without header, or with one that cannot be read.
    """
    text = response.headers.get("retry-after", "").strip()
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            date = parsedate_to_datetime(text)
            seconds = date.timestamp() - (time.time() if now is None else now)
        except (ValueError, TypeError, OverflowError):
            return None
    return max(0.0, seconds) if seconds == seconds else None  # not NaN


class Stopped(ArtifactNetError):
    """The work was called off while a thread waited for its turn."""

    def __init__(self) -> None:
        super().__init__("the work was called off; the same command goes on from there")


class Pace:
    """Hands out turns, evenly spaced; safe with any number of threads.

    Args:
        per_minute: requests per minute; 0 for no limit.
        clock: seconds that never run backwards.
        wait: waits so many seconds and returns whether the work was called off meanwhile; by
            default until `stop` is called.
    """

    def __init__(
        self,
        per_minute: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        self._interval = 60.0 / per_minute if per_minute > 0 else 0.0
        self._clock = clock
        self._stopped = threading.Event()
        self._wait = wait or self._stopped.wait
        self._lock = threading.Lock()
        self._next = clock()

    def turn(self) -> None:
        """Wait until one more request may be sent.

        Raises:
            Stopped: `stop` was called.
        """
        while True:
            if self._stopped.is_set():
                raise Stopped
            with self._lock:
                now = self._clock()
                left = self._next - now
                if left <= 0:
                    self._next = now + self._interval
                    return
            self.sleep(left)  # then look again: another thread may have been faster

    def hold(self, seconds: float) -> None:
        """Give no new turn for so many seconds: the server has asked for a pause."""
        with self._lock:
            self._next = max(self._next, self._clock() + seconds)

    def sleep(self, seconds: float) -> None:
        """Wait without a turn.

        Raises:
            Stopped: `stop` was called.
        """
        if self._wait(seconds):
            raise Stopped

    def stop(self) -> None:
        """Wake every thread that waits; nobody gets a turn until `resume`."""
        self._stopped.set()

    def resume(self) -> None:
        """Give turns again, to those who ask from now on."""
        self._stopped.clear()


KEY_VARIABLE = "OPENAI_API_KEY"
RETRIES = 6  # with pauses of 1, 2, 4, ... seconds: about a minute in all
TIMEOUT = 180.0  # seconds; a large model takes its time over a picture


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where models are asked, and how patiently.

    Attributes:
        base_url: up to and including the version: ``http://localhost:8000/v1``.
        key_variable: environment variable that holds the key.
        retries: how often a request is repeated after 429, 5xx, a timeout or a lost connection.
        timeout: seconds without a byte after which a request counts as failed.
    """

    base_url: str
    key_variable: str = KEY_VARIABLE
    retries: int = RETRIES
    timeout: float = TIMEOUT


def read_key(variable: str) -> str | None:
    """The key, or None where none is set under the usual name: servers of one's own need none.

    Args:
        variable: name of the environment variable.

    Raises:
        ArtifactNetError: another variable than `KEY_VARIABLE` is unset, or no key is in it.
    """
    key = os.environ.get(variable, "").strip()
    if not key and variable != KEY_VARIABLE:
        raise ArtifactNetError(f"the environment variable {variable} is not set; put the key there")
    if not key.isascii() or not key.isprintable():
        raise ArtifactNetError(f"the environment variable {variable} holds no key: odd characters")
    return key or None


def connect(endpoint: Endpoint, key: str | None) -> OpenAI:
    """The client, whose own retries are off: they are neither counted nor paced.

    Args:
        endpoint: whose.
        key: see `read_key`.

    Raises:
        ArtifactNetError: the URL is none, or the package is missing.
    """
    try:
        parts = urlsplit(endpoint.base_url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # no port, no IPv6 address
        good = False
    if not good:
        raise ArtifactNetError(
            f"{endpoint.base_url!r}: no URL of an endpoint; give one like http://localhost:8000/v1"
        )
    if parts.username or parts.password:
        raise ArtifactNetError(
            f"the URL of {parts.hostname} holds a password, which would be printed; put the key "
            f"into the environment variable {endpoint.key_variable}"
        )
    if find_spec("openai") is None:
        raise ArtifactNetError(
            "asking an endpoint needs the package openai: pip install 'artifactnet[endpoint]'"
        )
    import openai

    return openai.OpenAI(
        base_url=endpoint.base_url,
        api_key=key or "none",  # the client insists on one; a server without keys ignores it
        max_retries=0,
        timeout=endpoint.timeout,
    )


class Failed(Exception):
    """A request without a usable answer.

    Attributes:
        reason: in the words of a log: no line breaks are promised.
        status: of HTTP; None where no answer came.
        transient: whether it may succeed another time.
        pause: seconds that the server asks to wait, or None.
    """

    def __init__(
        self,
        reason: str,
        status: int | None = None,
        transient: bool = True,
        pause: float | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status
        self.transient = transient
        self.pause = pause


def send(client: OpenAI, model: str, messages: Sequence[Message]) -> Answer:
    """One request. Only the model's name and the messages: servers differ in all else.

    Args:
        client: see `connect`.
        model: its name at the server.
        messages: the conversation.

    Raises:
        Failed: of any kind.
    """
    import openai

    try:
        reply = client.chat.completions.create(
            model=model,
            messages=messages,  # type: ignore[arg-type]  # plain dictionaries will do
        )
    except openai.APIStatusError as error:
        status = error.status_code
        transient = is_transient(status, error.code)
        raise Failed(_said(error), status, transient, pause_asked_for(error.response)) from error
    except openai.APITimeoutError as error:
        raise Failed("no answer in time") from error
    except openai.APIConnectionError as error:
        raise Failed(f"connection failed ({error.__cause__ or error})") from error
    except (openai.APIError, ValueError) as error:  # a body that is not JSON is a ValueError
        raise Failed(f"unreadable answer ({error})") from error
    return _answer(reply)


def _said(error: Any) -> str:
    """The server's own words about an error."""
    body = error.body
    message = body.get("message") if isinstance(body, dict) else None
    return message if isinstance(message, str) and message else str(error.message)


def _answer(reply: Any) -> Answer:
    """The text of a completion; servers are not always as exact as their own documentation.

    Raises:
        Failed: it is no completion.
    """
    choices = getattr(reply, "choices", None)
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = getattr(choice, "message", None)
    content = getattr(message, "content", None)
    if message is None or not (content is None or isinstance(content, str)):
        raise Failed("unreadable answer (no chat completion; does the URL end in /v1?)")
    # half a surrogate pair, which JSON can hold, could be neither sent on nor written as UTF-8
    text = (content or "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return Answer(text, str(getattr(choice, "finish_reason", None) or ""))


_REFUSALS = (400, 413, 422)  # may be about this very request, say its picture
_SAID = 200  # characters of a server's own words in a message of ours


class EndpointError(ArtifactNetError):
    """No request of this kind can succeed: wrong key, URL or model, no credit left."""


class RefusedError(ArtifactNetError):
    """The server will not answer this very request."""


class UnansweredError(ArtifactNetError):
    """The server gave no answer, however often it was asked."""


class Chat:
    """One model behind an endpoint; safe with several threads.

    Only the model's name and the messages are sent: servers differ in every other parameter.

    Args:
        endpoint: where it is.
        model: its name there.
        pace: shared by all that ask the same server.
        seed: of the jitter of the pauses.

    Attributes:
        endpoint: as given.
        model: as given.
        pace: as given.
        counts: ``requests`` sent, ``answers`` received, and retries by their reason.

    Raises:
        ArtifactNetError: the extra is missing, the URL is none, or the key variable is unset.
    """

    def __init__(
        self, endpoint: Endpoint, model: str, pace: Pace | None = None, seed: int | None = None
    ) -> None:
        if not model.strip():
            raise ArtifactNetError("the model's name is empty; give the one that the server knows")
        self.endpoint = endpoint
        self.model = model
        self.pace = pace or Pace()
        self.counts: Counter[str] = Counter()
        self._key = read_key(endpoint.key_variable)
        self._client = connect(endpoint, self._key)
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    def ask(self, messages: Sequence[Message]) -> Answer:
        """Send one conversation and wait for the model's next turn.

        Args:
            messages: see `user` and `assistant`.

        Raises:
            EndpointError: wrong key, URL or model; asking again is of no use.
            RefusedError: the server refuses this request (400, 413, 422).
            UnansweredError: it failed `Endpoint.retries` times more, or the server wants a longer
                pause than `LONGEST_WAIT`.
            Stopped: the work was called off while this thread waited.
        """
        for attempt in range(self.endpoint.retries + 1):
            self.pace.turn()
            self._count("requests")
            try:
                answer = send(self._client, self.model, messages)
            except Failed as failure:
                if not failure.transient:
                    raise self._final(failure) from failure
                self._give_up_or_wait(failure, attempt)
            else:
                self._count("answers")
                return answer
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _final(self, failure: Failed) -> EndpointError | RefusedError:
        """What to raise for a failure that would only repeat itself."""
        status = failure.status
        where = f"{self._where()}: {self._said(failure)}"
        if status in _REFUSALS:
            return RefusedError(where)
        variable = self.endpoint.key_variable
        hint = {
            401: f"put the right key into the environment variable {variable}",
            403: f"the key in {variable} may not use this model",
            404: "look at the URL (it ends in the version, mostly /v1) and the model's name",
            429: "the account has no credit left",
        }.get(status or 0, "the server cannot be used like this")
        return EndpointError(f"{where}; {hint}")

    def _give_up_or_wait(self, failure: Failed, attempt: int) -> None:
        """Pause before the next attempt, if there is one."""
        reason = f"status {failure.status}" if failure.status else failure.reason.split(" (")[0]
        if attempt == self.endpoint.retries:
            times = "once" if attempt == 0 else f"{attempt + 1} times"
            raise UnansweredError(f"{self._where()}: asked {times}; {self._said(failure)}")
        if failure.pause is not None and failure.pause > LONGEST_WAIT:
            raise UnansweredError(
                f"{self._where()}: wants a pause of {failure.pause:.0f} s; try again later"
            )
        with self._lock:
            share = self._random.random()
            self.counts[f"retried: {reason}"] += 1
        pause = backoff(attempt, share)
        if failure.pause is not None:
            pause = max(pause, failure.pause)
        if failure.status == 429:
            self.pace.hold(pause)  # all threads ask too much together
        else:
            self.pace.sleep(pause)

    def _where(self) -> str:
        return f"{self.endpoint.base_url}, model {self.model}"

    def _said(self, failure: Failed) -> str:
        """A failure on one line, of not too many words, and never with the key in it."""
        line = " ".join(failure.reason.split())
        if failure.status is not None:
            line = f"status {failure.status}: {line}"
        if self._key is not None:
            line = line.replace(self._key, "***")
        return line if len(line) <= _SAID else line[:_SAID] + "..."

    def _count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1
