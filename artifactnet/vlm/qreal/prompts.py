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
    unit = "in pixels of the image" if pixels else "from 0 to 1000 over the whole image"
    return (
        f"{_LIST.format(_MEANINGS[dimension])}\n\n"
        "List only entities with such a problem, one JSON object a line, with coordinates x1, y1, "
        f"x2, y2 {unit}:\n{json.dumps(_EXAMPLE)}\n"
        f"If no entity has one, answer with the one word {NOTHING}."
    )
