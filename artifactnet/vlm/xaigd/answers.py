"""Reading what language models answer about the images of X-AIGD; nothing here raises."""

from __future__ import annotations

import re
from typing import Any

from artifactnet.llm.ask import strip_thinking
from artifactnet.llm.json_answer import last_json
from artifactnet.metrics.category_boxes import CategoryBox
from artifactnet.taxonomy import CATEGORIES
from artifactnet.vlm.boxes import find_boxes, read_boxes
from artifactnet.vlm.coordinates import Size
from artifactnet.vlm.xaigd.prompts import Form

_NOTHING = re.compile(r"\b(?:none|no(?: such)? artifacts?)\b")
_SENTENCE = re.compile(r"\bth(?:is|e) (?:is an? (real|fake) image|image is (real|fake))\b")
_VERDICT = re.compile(r"<verdict>\s*(real|generated)\s*</verdict>")
_LIST_STARTS = ("{", "[", "```")
# what a category may be called, in lower case
_NAMES = {name.lower(): item for item in CATEGORIES for name in (item.short, item.label)}


def read_presence(text: str) -> bool | None:
    """Whether an answer finds an artifact: any list of boxes that is not empty, however bad.

    The last JSON list of boxes behind the thoughts counts, fenced or not; without one, boxes in a
    family's own tokens; without those, "none" or "no artifact" in words.

    Returns:
        None if the answer says nothing of it.
    """
    text = strip_thinking(text)
    found = last_json(text, "[", _is_box_list)
    if found is not None:
        return bool(found)
    if find_boxes(text).boxes:
        return True
    return False if _NOTHING.search(text.lower()) else None


def read_judgment(text: str, form: Form) -> bool | None:
    """Whether an answer calls an image fake.

    Args:
        text: of the model.
        form: ``general`` reads what is inside ``<verdict>``; the others the sentence that FakeVLM
            begins with and FakeReasoning ends with: "This is a fake image", "This image is real".

    Returns:
        None if it says neither, or both.
    """
    text = strip_thinking(text).lower()
    if form == "general":
        words = set(_VERDICT.findall(text))
    else:
        words = {first or second for first, second in _SENTENCE.findall(text)}
    return words != {"real"} if len(words) == 1 else None


def read_instances(text: str, image_size: Size, input_size: Size) -> tuple[list[CategoryBox], int]:
    """Boxes with categories in pixels of the image, without repetition, and how many were dropped.

    A box whose category is none of the seven is dropped, too. The form that is asked for has its
    boxes in ``<think>``, while models that think write prose there, which is not read: if the last
    thoughts begin with a list, that is the answer's.

    Args:
        text: of any model.
        image_size: (width, height) of the image.
        input_size: (width, height) of the model's coordinates.
    """
    _, opening, inside = text.rpartition("<think>")
    is_list = opening and inside.lstrip().startswith(_LIST_STARTS)
    listed = inside if is_list else strip_thinking(text)
    found = read_boxes(listed, image_size, input_size)
    boxes, dropped = [], found.dropped
    for one in found.boxes:
        item = _NAMES.get(one.text("category", "label").strip().lower())
        if item is None:
            dropped += 1
        else:
            boxes.append(CategoryBox(item.label, one.box))
    return list(dict.fromkeys(boxes)), dropped


def _is_box_list(value: Any) -> bool:
    """Whether a JSON list is one of boxes: of objects or lists, or one box of four numbers."""
    if all(isinstance(one, dict | list) for one in value):
        return True
    return len(value) == 4 and all(type(one) in (int, float) for one in value)
