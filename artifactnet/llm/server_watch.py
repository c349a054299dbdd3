"""Ends a run whose server is gone or refuses everything, before each request waits in vain."""

from __future__ import annotations

from pathlib import Path

from artifactnet.llm.client import EndpointError, UnansweredError
from artifactnet.types import ArtifactNetError

_MAX_UNANSWERED = 5  # in a row: the server is gone
_MAX_REFUSED = 3  # requests before a first answer: the images are not the reason


class ServerWatch:
    """Counts what a server did not answer; used by one thread.

    Args:
        what: is asked about, in error messages: ``images``.
        kept: where all answers so far are, so that the same command can go on; None: nowhere.
    """

    def __init__(self, what: str, kept: Path | None = None) -> None:
        self._what, self._kept = what, kept
        self._unanswered = self._refused = 0

    def answered(self) -> None:
        """The server has just answered, or refused: it is there."""
        self._unanswered = 0

    def failed(self, error: ArtifactNetError) -> None:
        """A question failed.

        Raises:
            EndpointError: the last questions all went unanswered.
        """
        if not isinstance(error, UnansweredError):
            return
        self._unanswered += 1
        if self._unanswered >= _MAX_UNANSWERED:
            advice = (
                ""
                if self._kept is None
                else f"; all answers so far are in {self._kept}: run the same command again to "
                "resume"
            )
            raise EndpointError(f"{error} ({self._unanswered} {self._what} in a row){advice}")

    def refused(self, reason: str, ever_answered: bool) -> None:
        """The server refused a question.

        Args:
            reason: that it gave.
            ever_answered: whether it has answered any question of this kind, in earlier runs too.

        Raises:
            EndpointError: it has not, and refused the last ones too.
        """
        self.answered()
        if ever_answered:
            return
        self._refused += 1
        if self._refused >= _MAX_REFUSED:
            raise EndpointError(f"{reason}; the server has refused every request so far")
