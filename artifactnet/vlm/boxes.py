"""Boxes in the text of any model's answer, read leniently and in time linear in its length.

They are JSON objects, alone or in lists, fenced or not (``bbox_2d`` or ``bbox``), or the tokens
with which Qwen and InternVL write boxes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from artifactnet.vlm.coordinates import Box, Size, to_image

# tokens around a name and around its boxes
QWEN = ("<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>")
INTERNVL = ("<ref>", "</ref>", "<box>", "</box>")

# Objects that hold no other object, from one `{` to its `}`. Outside strings there is neither
# brace nor backslash: of two searches that pass the same place, one is inside a string and one is
# not, so that no more than two pass any place, and the time is linear.
_STRING = r'"[^"\\]*(?:\\.[^"\\]*)*"'
_OBJECT = re.compile(rf'\{{\s*{_STRING}[^{{}}"\\]*(?:{_STRING}[^{{}}"\\]*)*\}}', re.DOTALL)
_BOX_KEY = re.compile(r'"bbox(?:_2d)?"\s*:')
_NATIVE_PARTS = re.compile("(" + "|".join(map(re.escape, (*QWEN, *INTERNVL))) + ")")
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
# floats never overflow when they are compared or scaled; line breaks in strings are let through
_LENIENT_JSON = json.JSONDecoder(parse_int=float, strict=False)
_FOUR_FLOATS = [float] * 4
_NOTHING: Box = (0.0, 0.0, 0.0, 0.0)


class WrittenBox(NamedTuple):
    """A box and what stands beside it."""

    box: Box
    keys: Mapping[str, Any]  # all of the JSON object; of boxes in tokens, ``label``

    def text(self, *names: str) -> str:
        """The first of these keys that is there, if it is text; else empty."""
        return text_of(self.keys, *names)


class WrittenBoxes(NamedTuple):
    """The boxes of an answer."""

    boxes: list[WrittenBox]
    others: list[Mapping[str, Any]]  # objects and names without a box
    dropped: int  # boxes that could not be used


def text_of(keys: Mapping[str, Any], *names: str) -> str:
    """The first of some keys that is there, if it is text; else empty."""
    value = next((keys[name] for name in names if name in keys), None)
    return value if isinstance(value, str) else ""


def read_boxes(text: str, image_size: Size, input_size: Size) -> WrittenBoxes:
    """Boxes in pixels of the image, clipped to it, in the order of the text; never raises.

    Those in tokens come after those in JSON. A box is dropped if it is not four finite numbers,
    is empty within the image, or stands in an object that is no JSON or was cut off.

    Args:
        text: of any model.
        image_size: (width, height) of the image.
        input_size: (width, height) of the model's coordinates.
    """
    found, others, dropped = find_boxes(text)
    boxes = []
    for box, keys in found:
        clipped = _clip(box, input_size)
        x1, y1, x2, y2 = to_image(clipped or _NOTHING, image_size, input_size)
        if x1 < x2 and y1 < y2:  # as scaling may round a sliver to nothing
            boxes.append(WrittenBox((x1, y1, x2, y2), keys))
        else:
            dropped += 1
    return WrittenBoxes(boxes, others, dropped)


def find_boxes(text: str) -> WrittenBoxes:
    """As `read_boxes`, but in the model's coordinates as they were written."""
    found = _json_boxes(text)
    if "<box>" in text or "<|box_start|>" in text or "<ref>" in text or QWEN[0] in text:
        native = _native_boxes(text)
        return WrittenBoxes(
            found.boxes + native.boxes,
            found.others + native.others,
            found.dropped + native.dropped,
        )
    return found


def _json_boxes(text: str) -> WrittenBoxes:
    boxes: list[WrittenBox] = []
    others: list[Mapping[str, Any]] = []
    for found in _decoded([match.group() for match in _OBJECT.finditer(text)]):
        corners = found.get("bbox_2d", found.get("bbox"))
        if corners is None:
            others.append(found)
        elif type(corners) is list and list(map(type, corners)) == _FOUR_FLOATS:
            boxes.append(WrittenBox(tuple(corners), found))
    return WrittenBoxes(boxes, others, max(0, len(_BOX_KEY.findall(text)) - len(boxes)))


def _decoded(objects: list[str]) -> list[dict[str, Any]]:
    """The objects that are JSON."""
    try:
        found: list[dict[str, Any]] = _LENIENT_JSON.decode("[" + ",".join(objects) + "]")
        return found  # one call is twice as fast
    except (ValueError, RecursionError):
        found = []
    for text in objects:
        try:
            found.append(_LENIENT_JSON.decode(text))
        except (ValueError, RecursionError):
            continue  # its box counts as dropped
    return found


def _native_boxes(text: str) -> WrittenBoxes:
    """Boxes in tokens; all that follow a name have that one."""
    boxes: list[WrittenBox] = []
    others: list[Mapping[str, Any]] = []
    dropped, name, unused = 0, "", False
    pieces = _NATIVE_PARTS.split(text)
    for opening, inside in zip(pieces[1::2], pieces[2::2], strict=True):
        if opening in (QWEN[0], INTERNVL[0]):
            if unused:
                others.append({"label": name})
            name = inside.strip()
            unused = bool(name)
        elif opening in (QWEN[2], INTERNVL[2]):
            numbers = [float(number) for number in _NUMBER.findall(inside)]
            unused = False
            if not numbers or len(numbers) % 4:
                dropped += 1
                continue
            for k in range(0, len(numbers), 4):
                x1, y1, x2, y2 = numbers[k : k + 4]
                boxes.append(WrittenBox((x1, y1, x2, y2), {"label": name}))
    if unused:
        others.append({"label": name})
    return WrittenBoxes(boxes, others, dropped)


def _clip(box: Box, input_size: Size) -> Box | None:
    """The box within the model's coordinates; None if nothing is left of it, or it is infinite."""
    w, h = input_size
    x1, y1, x2, y2 = box
    if 0 <= x1 < x2 <= w and 0 <= y1 < y2 <= h:
        return box  # as nearly all, and faster
    if not all(map(math.isfinite, box)):
        return None
    x1, y1, x2, y2 = max(x1, 0.0), max(y1, 0.0), min(x2, float(w)), min(y2, float(h))
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None
