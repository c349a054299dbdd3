"""JSON in a model's answer, which may stand between other words."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any


def last_json(text: str, opening: str, accepts: Callable[[Any], bool]) -> Any:
    """The last JSON value of a text that is accepted; None without one. Drafts come first.

    Args:
        text: an answer.
        opening: ``{`` for objects, ``[`` for lists.
        accepts: whether a value is meant; what is inside of an accepted one is not looked at.
    """
    last, end = None, 0
    for mark in re.finditer(re.escape(opening), text):
        if mark.start() < end:
            continue
        try:
            value, stop = json.JSONDecoder().raw_decode(text, mark.start())
        except (ValueError, RecursionError):
            continue
        if accepts(value):
            last, end = value, stop
    return last
