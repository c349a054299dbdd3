"""Reading and writing the answers of both tasks (Q-Real, Sec. 4; the form of lists is ours)."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import NamedTuple

from artifactnet.data.qreal import Dimension, QRealEntity
from artifactnet.data.regions import Corners
from artifactnet.llm.ask import strip_thinking
from artifactnet.vlm.boxes import read_boxes
from artifactnet.vlm.coordinates import Size, to_model
from artifactnet.vlm.qreal.prompts import NOTHING

_WORD = re.compile(r"[^\W_]+")
_YES_NO = {"yes": True, "no": False}


class NamedEntity(NamedTuple):
    """An entity that a model says has a problem."""

    bbox: Corners  # in pixels of the image, half-open
    label: str
    description: str


class EntityList(NamedTuple):
    """What an answer lists."""

    entities: tuple[NamedEntity, ...]
    dropped: int = 0  # boxes that could not be used
    readable: bool = True  # it names an entity, or says that there is none
    cut_off: bool = False  # at the limit of its length


def read_yes_no(text: str) -> bool | None:
    """True for Yes: the first of the two words in a text, in any case; None without one."""
    words = (match.group().lower() for match in _WORD.finditer(strip_thinking(text)))
    return next((_YES_NO[word] for word in words if word in _YES_NO), None)


def read_entities(text: str, image_size: Size, input_size: Size) -> EntityList:
    """The entities of an answer in any form that holds boxes; never raises.

    Args:
        text: of any model; its thoughts are not read.
        image_size: (width, height) of the image.
        input_size: (width, height) of the model's coordinates.
    """
    text = strip_thinking(text)
    found = read_boxes(text, image_size, input_size)
    entities = tuple(
        NamedEntity(one.box, one.text("label"), one.text("description", "explanation", "caption"))
        for one in found.boxes
    )
    words = [match.group().lower() for match in _WORD.finditer(text)]
    return EntityList(
        entities, found.dropped, bool(entities) or words == [NOTHING] or _is_list(text)
    )


def write_entities(
    entities: Sequence[QRealEntity], dimension: Dimension | None, image_size: Size, input_size: Size
) -> str:
    """The answer that lists entities, as it is taught; ``none`` for no entity.

    Args:
        entities: each with a description of the dimension.
        dimension: of the problem; None: nothing is said of one.
        image_size: (width, height) of the image.
        input_size: (width, height) of the model's coordinates.
    """
    lines = [
        json.dumps(
            {
                "label": entity.label,
                "bbox_2d": to_model(entity.bbox, image_size, input_size),
            }
            | ({} if dimension is None else {"description": entity.description(dimension)}),
            ensure_ascii=False,
        )
        for entity in entities
    ]
    return "\n".join(lines) or NOTHING


def _is_list(text: str) -> bool:
    """Whether a text is an empty JSON list, fenced or not."""
    return re.fullmatch(r"\s*(?:```\w*\s*)?\[\s*\]\s*(?:```\s*)?", text) is not None
