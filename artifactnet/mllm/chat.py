"""Asking a language model behind an endpoint, patiently but not for ever."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Sequence

from artifactnet.mllm.endpoint import Endpoint, Failed, connect, read_key, send
from artifactnet.mllm.messages import Answer, Message
from artifactnet.mllm.pace import Pace
from artifactnet.mllm.retry import LONGEST_WAIT, backoff
from artifactnet.types import ArtifactNetError

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
