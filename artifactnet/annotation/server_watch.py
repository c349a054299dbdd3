"""Ends a run whose server is gone or refuses everything, before each request waits in vain."""

from __future__ import annotations

from artifactnet.llm.answer_log import AnswerLog
from artifactnet.llm.client import UnansweredError
from artifactnet.types import ArtifactNetError

_MAX_UNANSWERED = 5  # in a row: the server is gone
_MAX_REFUSED = 3  # requests before a first answer: the images are not the reason


class ServerWatch:
    """Counts what a server did not answer; used by one thread.

    Args:
        log: of the answers.
        what: is asked about, in error messages: ``images``.
    """

    def __init__(self, log: AnswerLog, what: str) -> None:
        self._log, self._what = log, what
        self._unanswered = self._refused = 0

    def answered(self) -> None:
        """The server has just answered, or refused: it is there."""
        self._unanswered = 0

    def failed(self, error: ArtifactNetError) -> None:
        """A question failed.

        Raises:
            ArtifactNetError: the last questions all went unanswered.
        """
        if not isinstance(error, UnansweredError):
            return
        self._unanswered += 1
        if self._unanswered >= _MAX_UNANSWERED:
            raise ArtifactNetError(
                f"{error} ({self._unanswered} {self._what} in a row); all answers so far are in "
                f"{self._log.path}: run the same command again to resume"
            )

    def refused(self, reason: str, stage: str, model: str) -> None:
        """The server refused a question.

        Raises:
            ArtifactNetError: it refused the last ones too, and ``model`` has not answered any
                question of ``stage`` ever.
        """
        self.answered()
        if self._log.has(lambda key: key.get("stage") == stage and key.get("model") == model):
            return
        self._refused += 1
        if self._refused >= _MAX_REFUSED:
            raise ArtifactNetError(f"{reason}; the server has refused every request so far")
