"""How fast an endpoint is asked: one clock for all threads that ask it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from artifactnet.types import ArtifactNetError


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
