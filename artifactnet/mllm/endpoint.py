"""An OpenAI-compatible endpoint: its key, its client, and one request (the openai importer)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from artifactnet.mllm.messages import Answer, Message
from artifactnet.mllm.retry import is_transient, pause_asked_for
from artifactnet.types import ArtifactNetError

if TYPE_CHECKING:
    from openai import OpenAI

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
