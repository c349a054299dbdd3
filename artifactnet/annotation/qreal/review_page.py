"""The page on which a person answers Q-Real's questions about one image."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from importlib import resources

from artifactnet.annotation.pictures import to_jpeg
from artifactnet.data.crops import crop_entity
from artifactnet.data.qreal import (
    DIMENSIONS,
    PARTS,
    QUESTIONS,
    QRealEntity,
    QRealImage,
    answer_word,
)
from artifactnet.explanation.report.html import content_policy
from artifactnet.names import visible
from artifactnet.types import UInt8Array

_PACKAGE = __name__.rpartition(".")[0]  # style and script lie beside this file
_SHOWS = {
    "realism": "What does not look real: colour, material, light",
    "plausibility": "What is deformed or impossible",
}


def review_page(image: QRealImage, pixels: UInt8Array, page: str, annotators: Sequence[str]) -> str:
    """HTML of one file that opens from disk without requests.

    Texts from data are escaped. The page's security policy allows no request, and of scripts and
    styles only its own, by their hashes. What models have answered is folded away, and no answer is
    filled in: people should look first.

    Args:
        image: with its entities.
        pixels: (H, W, 3) of the image.
        page: its number, in the names of what is saved.
        annotators: names to choose from.
    """
    css, script = (
        resources.files(_PACKAGE).joinpath(name).read_text(encoding="utf-8")
        for name in ("review.css", "review.js")
    )
    title = _text(image.image)
    options = "".join(f"<option>{escape(name)}</option>" for name in annotators)
    sections = "".join(
        _section(entity, number, pixels) for number, entity in enumerate(image.entities, 1)
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{content_policy(css, script)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{css}</style>\n</head>\n"
        f'<body data-page="{escape(page)}">\n<header>\n<h1>{title}</h1>\n'
        '<label>Annotator <select id="annotator"><option value=""></option>'
        f'{options}</select></label>\n<button id="save" type="button">Save</button>\n'
        f'<span id="state" role="status"></span>\n</header>\n<main>\n'
        f"{_whole(image, pixels)}{sections}</main>\n<script>{script}</script>\n</body>\n</html>\n"
    )


def _whole(image: QRealImage, pixels: UInt8Array) -> str:
    """The image with numbered boxes."""
    height, width = pixels.shape[:2]
    size = max(height, width) / 40
    shapes = []
    for number, entity in enumerate(image.entities, 1):
        x1, y1, x2, y2 = entity.bbox
        shapes.append(
            f'<rect x="{x1:g}" y="{y1:g}" width="{x2 - x1:g}" height="{y2 - y1:g}"/>'
            f'<text x="{x1 + size / 4:g}" y="{y1 + size:g}" font-size="{size:g}">{number}</text>'
        )
    return (
        f'<div class="whole"><img alt="the image" src="{_data_uri(pixels)}">'
        f'<svg viewBox="0 0 {width} {height}" aria-hidden="true">{"".join(shapes)}</svg></div>\n'
    )


def _section(entity: QRealEntity, number: int, pixels: UInt8Array) -> str:
    name = f'data-entity="{escape(entity.id)}"'
    questions = "".join(
        f"<fieldset><legend>{escape(asked.text)}</legend>"
        + "".join(
            f'<label><input type="radio" name="{number}-{key}" value="{word}" {name} '
            f'data-question="{key}"> {word}</label>'
            for word in map(answer_word, (True, False))
        )
        + "</fieldset>\n"
        for key, asked in QUESTIONS.items()
    )
    asked_for = dict(_SHOWS)
    if entity.parts is not None:  # of a person, plausibility is described part by part
        what = asked_for.pop("plausibility")
        asked_for |= {part: f"{what}: {part}" for part in PARTS}
    areas = "".join(
        f'<label class="text">{escape(what)}<textarea {name} '
        f'data-dimension="{escape(dimension)}"></textarea></label>\n'
        for dimension, what in asked_for.items()
    )
    said = [f"{key}: {answer_word(answer)}" for key, answer in entity.answers.items()]
    lines = ["; ".join(said)]
    lines += [f"{d}: {text}" for d in DIMENSIONS if (text := entity.description(d)) is not None]
    told = "".join(f"<p>{_text(line)}</p>" for line in lines)
    label = _text(entity.label)
    return (
        f'<section>\n<img alt="{label}" src="{_data_uri(crop_entity(pixels, entity.bbox))}">\n'
        f"<div><h2>{number}. {label}</h2>\n{questions}{areas}"
        f"<details><summary>What stands in the file</summary>{told}</details></div>\n</section>\n"
    )


def _text(text: str) -> str:
    return escape(visible(text))


def _data_uri(pixels: UInt8Array) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(to_jpeg(pixels)).decode('ascii')}"
