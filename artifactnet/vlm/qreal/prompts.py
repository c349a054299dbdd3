"""What a model is asked about the images of Q-Real (Q-Real, Sec. 3.2 and 4)."""

from __future__ import annotations

import json
from typing import Literal

from artifactnet.data.qreal import QUESTIONS, Dimension, QRealEntity
from artifactnet.vlm.coordinates import THOUSANDTHS, Size, to_model

Context = Literal["crop", "image"]

YES_OR_NO = " Answer with Yes or No."  # for a model that was not taught to; our wording
NOTHING = "none"  # the answer where no entity has a problem
_LIST = (
    "Analyze this AI-generated image, provide all entities with their type labels, coordinates "
    "within the image, and an explanation of {} for each object."
)
_MEANINGS: dict[Dimension, str] = {
    # the paper's words; its prompt for realism is not printed, so that meaning is ours
    "plausibility": "plausibility (whether each entity looks like unnatural or not match the real "
    "world)",
    "realism": "realism (whether its color, material and lighting differ from the real world)",
}
_EXAMPLE = {"label": "violin", "bbox_2d": [112, 96, 448, 380], "description": "..."}
# of the chain of three models; all of this is our wording
_DETECT = (
    "Analyze this AI-generated image, provide all entities with their type labels and coordinates "
    "within the image."
)


def entity_question(
    key: str,
    entity: QRealEntity,
    context: Context = "crop",
    image_size: Size = THOUSANDTHS,
    input_size: Size = THOUSANDTHS,
    tuned: bool = False,
) -> str:
    """The text of a question about an entity (ObjectQA).

    Args:
        key: of `artifactnet.data.qreal.QUESTIONS`.
        entity: that it is about.
        context: whether the model sees the entity's ``crop``, or the whole ``image`` and is told
            where the entity is.
        image_size: (width, height) of the image, for ``image``.
        input_size: (width, height) of the model's coordinates, likewise.
        tuned: whether the model was taught to answer Yes or No.
    """
    about = ""
    if context == "image":
        box = list(to_model(entity.bbox, image_size, input_size))
        # as JSON, so that no label can go on as an instruction
        about = f"This is about {json.dumps(entity.label, ensure_ascii=False)} at {box}. "
    return about + QUESTIONS[key].text + ("" if tuned else YES_OR_NO)


def list_question(dimension: Dimension, pixels: bool) -> str:
    """The text that asks for all entities with a problem (ImageQA).

    Args:
        dimension: of the problem.
        pixels: whether the model counts pixels of its image, and not from 0 to 1000.
    """
    return (
        f"{_LIST.format(_MEANINGS[dimension])}\n\n"
        "List only entities with such a problem, one JSON object a line, with coordinates x1, y1, "
        f"x2, y2 {_unit(pixels)}:\n{json.dumps(_EXAMPLE)}\n"
        f"If no entity has one, answer with the one word {NOTHING}."
    )


def detection_question(pixels: bool) -> str:
    """The text that asks for all entities, whatever is wrong with them; ``pixels`` as above."""
    example = {key: value for key, value in _EXAMPLE.items() if key != "description"}
    return (
        f"{_DETECT}\n\nOne JSON object a line, with coordinates x1, y1, x2, y2 {_unit(pixels)}:\n"
        f"{json.dumps(example)}\nIf there is no entity, answer with the one word {NOTHING}."
    )


def filter_question(label: str, dimension: Dimension) -> str:
    """The text that asks whether an entity, of which the crop is shown, has a problem."""
    shown = json.dumps(label, ensure_ascii=False)  # as JSON, as above
    return f"This shows {shown}. Does it have a problem of {_MEANINGS[dimension]}?"


def description_question(label: str, dimension: Dimension) -> str:
    """The text that asks what the problem of an entity is, of which the crop is shown."""
    shown = json.dumps(label, ensure_ascii=False)
    return f"This shows {shown}. Explain its problem of {_MEANINGS[dimension]}."


def _unit(pixels: bool) -> str:
    return "in pixels of the image" if pixels else "from 0 to 1000 over the whole image"
