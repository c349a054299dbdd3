"""What is said to a language model, and what it answers."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
