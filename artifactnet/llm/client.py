"""Client of an OpenAI-compatible endpoint: messages, rate limit, retries and errors.

`Chat` asks one model at an `Endpoint`. All threads and models that use the same server share one
`RateLimiter`. A request that may succeed later (429, 5xx, timeout, lost connection, unreadable
body) is repeated with exponential backoff; every other failure is raised at once.
"""

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
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from artifactnet.types import ArtifactNetError

if TYPE_CHECKING:
    from openai import OpenAI

KEY_VARIABLE = "OPENAI_API_KEY"
RETRIES = 6  # with pauses of 1, 2, 4, ... seconds: about a minute in total
TIMEOUT = 180.0  # seconds; large models take long to read an image
MAX_PAUSE = 600.0  # seconds; a server that asks for a longer pause is given up on
_FIRST_BACKOFF, _MAX_BACKOFF = 1.0, 60.0  # seconds
_TRANSIENT = (408, 409, 425, 429)
_REFUSALS = (400, 413, 422)  # may be about this very request, e.g. its image
_MAX_REASON = 200  # characters of the server's own message in an error

Message = Mapping[str, Any]  # {"role": ..., "content": ...} of the chat-completions API


@dataclass(frozen=True, slots=True)
class Token:
    """A token of an answer, and what else could have stood in its place.

    Attributes:
        text: of the token.
        choices: the likeliest tokens there, with their natural log-likelihoods.
    """

    text: str
    choices: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Answer:
    """One completion.

    Attributes:
        text: as received; empty if the model wrote nothing.
        finish: ``stop``, ``length`` (cut off), ``content_filter``, or whatever else the server
            reports; empty if it reports nothing.
        reasoning: what the server took out of the text as the model's thoughts; mostly empty.
        tokens: of the text with their likelihoods, if they were asked for and the server gives
            them; else empty.
    """

    text: str
    finish: str
    reasoning: str = ""
    tokens: tuple[Token, ...] = ()

    @property
    def with_reasoning(self) -> str:
        """The text with what the server took out of it put back as ``<think>``."""
        if self.reasoning and "<think>" not in self.text:
            return f"<think>{self.reasoning}</think>\n{self.text}"
        return self.text


def user_message(text: str, jpeg: bytes | None = None) -> Message:
    """A user turn: a text, after the content of a JPEG file if one is given."""
    if jpeg is None:
        return {"role": "user", "content": text}
    return {"role": "user", "content": [image_part(jpeg, "jpeg"), {"type": "text", "text": text}]}


def image_part(content: bytes, kind: str) -> dict[str, Any]:
    """A part of a turn: the content of an image file of a kind, ``jpeg`` or ``png``."""
    url = f"data:image/{kind};base64," + base64.b64encode(content).decode("ascii")
    return {"type": "image_url", "image_url": {"url": url}}


def assistant_message(text: str) -> Message:
    """An earlier answer of the model, to continue a conversation."""
    return {"role": "assistant", "content": text}


class EndpointError(ArtifactNetError):
    """No request of this kind can succeed: wrong key, URL or model, or no credit."""


class RefusedError(ArtifactNetError):
    """The server refuses this very request."""


class TemperatureError(RefusedError):
    """The model does not accept the temperature that was sent."""


class LogprobsError(RefusedError):
    """The server gives no likelihoods of tokens."""


class UnansweredError(ArtifactNetError):
    """The server gave no answer, after all retries."""


class Cancelled(ArtifactNetError):
    """The work was cancelled while a thread waited for its turn."""

    def __init__(self) -> None:
        super().__init__("cancelled; run the same command again to resume")


class RequestFailed(Exception):
    """One request without a usable answer.

    ``transient``: the same request may succeed later; ``pause``: seconds the server asks to wait.
    """

    def __init__(
        self,
        reason: str,
        status: int | None = None,
        transient: bool = True,
        pause: float | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason, self.status, self.transient, self.pause = reason, status, transient, pause


def is_transient(status: int, code: str | None) -> bool:
    """Whether the same request may succeed later, by HTTP status and the server's error code.

    An account without credit gets 429 like one that asks too fast, but waiting does not help.
    """
    return code != "insufficient_quota" and (status in _TRANSIENT or status >= 500)


def backoff(attempt: int, jitter: float) -> float:
    """Seconds to wait after failure number ``attempt`` (from 0).

    Between half of the full pause and all of it, by ``jitter`` in [0, 1], so that threads spread
    out; the full pause is 1, 2, 4, ... up to 60.
    """
    full = min(_MAX_BACKOFF, _FIRST_BACKOFF * 2.0 ** min(attempt, 30))
    return full * (0.5 + 0.5 * jitter)


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds to wait (0 or more) by a ``Retry-After`` header; None without a readable one.

    Args:
        headers: of the response, case-insensitive.
        now: Unix time, for a header that holds a date; the clock's by default.
    """
    text = headers.get("retry-after", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            date = parsedate_to_datetime(text)
            seconds = date.timestamp() - (time.time() if now is None else now)
        except (ValueError, TypeError, OverflowError):
            return None
    return max(0.0, seconds) if seconds == seconds else None  # not NaN


class RateLimiter:
    """Spaces requests evenly, over any number of threads.

    ``per_minute`` 0 is no limit; ``clock`` gives monotonic seconds; ``wait`` waits so many and
    returns whether `stop` was called meanwhile.
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

    def acquire(self) -> None:
        """Wait until one more request may be sent; raises `Cancelled` after `stop`."""
        while True:
            if self._stopped.is_set():
                raise Cancelled
            with self._lock:
                now = self._clock()
                left = self._next - now
                if left <= 0:
                    self._next = now + self._interval
                    return
            self.sleep(left)  # then check again: another thread may have been faster

    def pause(self, seconds: float) -> None:
        """Let no thread send a request for so many seconds: the server asked for it."""
        with self._lock:
            self._next = max(self._next, self._clock() + seconds)

    def sleep(self, seconds: float) -> None:
        """Let the calling thread wait; raises `Cancelled` after `stop`."""
        if self._wait(seconds):
            raise Cancelled

    def stop(self) -> None:
        """Wake all waiting threads with `Cancelled`, and refuse new requests until `resume`."""
        self._stopped.set()

    def resume(self) -> None:
        """Accept requests again."""
        self._stopped.clear()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to ask, and how patiently.

    Attributes:
        base_url: up to and including the version: ``http://localhost:8000/v1``.
        key_variable: environment variable with the API key; must be set unless it is the default,
            since some servers need no key.
        retries: how often a request is repeated after a transient failure.
        timeout: seconds without a byte after which a request has failed.
    """

    base_url: str
    key_variable: str = KEY_VARIABLE
    retries: int = RETRIES
    timeout: float = TIMEOUT


class Chat:
    """One model behind an endpoint; thread-safe.

    Args:
        endpoint: of the server.
        model: its name there.
        limiter: shared by all that ask the same server.
        seed: of the pauses' jitter.

    Attributes:
        endpoint, model, limiter: as given.
        counts: ``requests`` sent, ``answers`` received, and retries by their reason.

    Raises:
        ArtifactNetError: the package openai is missing, the URL is not one, or the key is unset.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        model: str,
        limiter: RateLimiter | None = None,
        seed: int | None = None,
    ) -> None:
        if not model.strip():
            raise ArtifactNetError("the model's name is empty; give the one that the server knows")
        self.endpoint = endpoint
        self.model = model
        self.limiter = limiter or RateLimiter()
        self.counts: Counter[str] = Counter()
        self._key = _read_api_key(endpoint.key_variable)
        self._client = _connect(endpoint, self._key)
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    def ask(
        self,
        messages: Sequence[Message],
        temperature: float | None = None,
        *,
        max_tokens: int | None = None,
        logprobs: int | None = None,
    ) -> Answer:
        """Send a conversation and wait for the model's next turn.

        Servers differ in all parameters, so those that are None are not sent.

        Args:
            messages: see `user_message` and `assistant_message`.
            temperature: of the sampling; None: the server's default.
            max_tokens: of the answer; None: the server's default.
            logprobs: of each token of the answer, the likelihoods of so many choices.

        Raises:
            EndpointError: wrong key, URL or model.
            RefusedError: the server refuses this request (400, 413, 422); as `TemperatureError`
                or `LogprobsError` if it names that parameter (400).
            UnansweredError: all `Endpoint.retries` failed too, or the server asks for a longer
                pause than `MAX_PAUSE`.
            Cancelled: the work was cancelled while this thread waited.
        """
        options: dict[str, Any] = {}
        if temperature is not None:
            options["temperature"] = temperature
        if max_tokens is not None:
            options["max_tokens"] = max_tokens
        if logprobs is not None:
            options |= {"logprobs": True, "top_logprobs": logprobs}
        for attempt in range(self.endpoint.retries + 1):
            self.limiter.acquire()
            self._count("requests")
            try:
                answer = _send(self._client, self.model, messages, options)
            except RequestFailed as failure:
                if not failure.transient:
                    raise self._permanent_error(failure, options) from failure
                self._wait_or_give_up(failure, attempt)
            else:
                self._count("answers")
                return answer
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _permanent_error(
        self, failure: RequestFailed, options: Mapping[str, Any]
    ) -> EndpointError | RefusedError:
        status = failure.status
        message = f"{self._where()}: {self._describe(failure)}"
        named = failure.reason.lower() if status == 400 else ""
        if "temperature" in options and "temperature" in named:
            return TemperatureError(message)
        if "logprobs" in options and "logprobs" in named:
            return LogprobsError(message)
        if status in _REFUSALS:
            return RefusedError(message)
        variable = self.endpoint.key_variable
        hint = {
            401: f"set the environment variable {variable} to a valid key",
            403: f"the key in {variable} may not use this model",
            404: "check the URL (it ends in the version, usually /v1) and the model's name",
            429: "the account has no credit",
        }.get(status or 0, "the server cannot be used like this")
        return EndpointError(f"{message}; {hint}")

    def _wait_or_give_up(self, failure: RequestFailed, attempt: int) -> None:
        if attempt == self.endpoint.retries:
            times = "once" if attempt == 0 else f"{attempt + 1} times"
            raise UnansweredError(f"{self._where()}: asked {times}; {self._describe(failure)}")
        if failure.pause is not None and failure.pause > MAX_PAUSE:
            raise UnansweredError(
                f"{self._where()}: asks for a pause of {failure.pause:.0f} s; try again later"
            )
        reason = f"status {failure.status}" if failure.status else failure.reason.split(" (")[0]
        with self._lock:
            jitter = self._random.random()
            self.counts[f"retried: {reason}"] += 1
        pause = max(backoff(attempt, jitter), failure.pause or 0.0)
        if failure.status == 429:
            self.limiter.pause(pause)  # all threads together ask too much
        else:
            self.limiter.sleep(pause)

    def _where(self) -> str:
        return f"{self.endpoint.base_url}, model {self.model}"

    def _describe(self, failure: RequestFailed) -> str:
        """A failure on one short line, never with the key in it."""
        line = " ".join(failure.reason.split())
        if failure.status is not None:
            line = f"status {failure.status}: {line}"
        if self._key is not None:
            line = line.replace(self._key, "***")
        return line if len(line) <= _MAX_REASON else line[:_MAX_REASON] + "..."

    def _count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1


def _read_api_key(variable: str) -> str | None:
    key = os.environ.get(variable, "").strip()
    if not key and variable != KEY_VARIABLE:
        raise ArtifactNetError(f"the environment variable {variable} is not set; put the key there")
    if not key.isascii() or not key.isprintable():
        raise ArtifactNetError(f"the environment variable {variable} holds no key: odd characters")
    return key or None


def _connect(endpoint: Endpoint, key: str | None) -> OpenAI:
    """The client, without its own retries, which are neither counted nor rate-limited."""
    try:
        parts = urlsplit(endpoint.base_url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # not a port, or not an IPv6 address
        good = False
    if not good:
        raise ArtifactNetError(
            f"{endpoint.base_url!r}: not the URL of an endpoint, like http://localhost:8000/v1"
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


def _send(
    client: OpenAI, model: str, messages: Sequence[Message], options: Mapping[str, Any]
) -> Answer:
    """One request; raises `RequestFailed` without a usable answer."""
    import openai

    try:
        reply: Any = client.chat.completions.create(
            model=model,
            messages=messages,  # type: ignore[arg-type]  # plain dictionaries are fine
            **options,
        )
    except openai.APIStatusError as error:
        text = error.body.get("message") if isinstance(error.body, dict) else None
        reason = text if isinstance(text, str) and text else str(error.message)
        raise RequestFailed(
            reason,
            error.status_code,
            is_transient(error.status_code, error.code),
            retry_after(error.response.headers),
        ) from error
    except openai.APITimeoutError as error:
        raise RequestFailed("no answer in time") from error
    except openai.APIConnectionError as error:
        raise RequestFailed(f"connection failed ({error.__cause__ or error})") from error
    except (openai.APIError, ValueError) as error:  # a body that is not JSON is a ValueError
        raise RequestFailed(f"unreadable answer ({error})") from error
    # servers do not always follow their own documentation
    choices = getattr(reply, "choices", None)
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = getattr(choice, "message", None)
    content = getattr(message, "content", None)
    if message is None or not (content is None or isinstance(content, str)):
        raise RequestFailed("unreadable answer (no chat completion; does the URL end in /v1?)")
    finish = str(getattr(choice, "finish_reason", None) or "")
    reasoning = getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None)
    reasoning = reasoning if isinstance(reasoning, str) else ""
    return Answer(_unicode(content or ""), finish, _unicode(reasoning), _tokens(choice))


def _unicode(text: str) -> str:
    """The text without halves of characters.

    JSON can hold half a surrogate pair, which can be neither sent on nor written as UTF-8.
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _tokens(choice: Any) -> tuple[Token, ...]:
    """The likelihoods of an answer's tokens; empty where they are missing or unreadable."""
    content = getattr(getattr(choice, "logprobs", None), "content", None)
    try:
        return tuple(
            Token(str(t.token), {str(c.token): float(c.logprob) for c in t.top_logprobs})
            for t in content or ()
        )
    except (AttributeError, TypeError, ValueError):
        return ()
