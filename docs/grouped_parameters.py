"""Docstrings explain parameters in groups (``window, stride: see X``); the site lists each alone.

An extension of griffe, which reads the docstrings for mkdocstrings.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

# a line that begins with two names or more, with the deeper lines that continue it
GROUP = re.compile(r"^( +)(\*{0,2}\w+(?:, \*{0,2}\w+)+):( .*(?:\n\1 +\S.*)*)", re.MULTILINE)


class GroupedParameters(griffe.Extension):
    """Repeats the text of a group for each of its parameters."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of everything that has one."""
        if obj.docstring is not None:
            obj.docstring.value = GROUP.sub(_one_by_one, obj.docstring.value)


def _one_by_one(match: re.Match[str]) -> str:
    indent, names, text = match.groups()
    return "\n".join(f"{indent}{name}:{text}" for name in names.split(", "))
