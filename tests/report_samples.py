"""Heads and entries of reports as `write_page` takes them, with small generated pictures."""

import base64
import functools
import io

import numpy as np
from PIL import Image

from artifactnet.explanation.overlay import colorize
from artifactnet.explanation.report.summary import Fact, summarize
from artifactnet.taxonomy import CATEGORIES

HOSTILE = [
    "<img src=x onerror=alert(1)>.png",
    "</script><script>alert(1)</script>.png",
    "<!--<script>.png",
    "]]>.png",
    "\"'`&amp;&lt;.png",
    "line\u2028and\u2029paragraph.png",
    "{{ 7 * 7 }}{% raw %}.png",
    "\u202egnp.exe",
    "a" * 180 + ".png",
    "two\nlines.png",
]
# the same as a reader sees them: what is invisible is spelled out
ESCAPES = str.maketrans({mark: f"\\u{ord(mark):04x}" for mark in "\u2028\u2029\u202e\n"})
SHOWN = [name.translate(ESCAPES) for name in HOSTILE]
SIZES = [(320, 240), (240, 320), (300, 300), (900, 60), (1, 200), (1, 1)]  # width, height
METHODS = [
    {"name": name, "label": label, "scale": scale, "description": f"What {label} show."}
    for name, label, scale in (
        ("relevance", "Relevance map", "minmax"),
        ("sliding_patch", "Sliding patches", "probability"),
        ("heatmap", "Model's heatmap", "model"),
    )
]
CHART = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 300 200" role="img"
 aria-label="ROC curve" fill="currentColor">
<path d="M 30 170 L 280 170 L 280 20 L 30 20 z" fill="none" stroke="currentColor"/>
<path d="M 30 170 L 60 60 L 280 20" fill="none" stroke="#d9730d" stroke-width="2"/>
<text x="155" y="195" font-size="12px" text-anchor="middle">false positive rate</text></svg>"""


def _uri(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _within(size, side):
    scale = min(1, side / max(size))
    return [max(1, round(length * scale)) for length in size]


def _grid(size, side):
    width, height = _within(size, side)
    return np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))


@functools.cache
def picture(size, seed, side):
    """A disc on a gradient; the disc stays round only if the picture is not distorted."""
    x, y = _grid(size, side)
    width, height = size
    longest = max(size)
    disc = ((x - 0.5) * width) ** 2 + ((y - 0.5) * height) ** 2 < (0.3 * longest) ** 2
    pixels = np.stack([90 + 120 * x, 90 + 100 * y, np.full_like(x, 40 * (seed % 5))], axis=-1)
    pixels[disc] = (210, 190 - 20 * (seed % 4), 160)
    return _uri(pixels.astype(np.uint8))


@functools.cache
def heat(size, seed, kind):
    x, y = _grid(size, 160)
    angle = seed + 2.1 * kind
    center = 0.5 + 0.3 * np.cos(angle), 0.5 + 0.3 * np.sin(angle)
    values = np.exp(-((x - center[0]) ** 2 + (y - center[1]) ** 2) / 0.03)
    alpha = np.uint8(255 * values)[..., None]
    return _uri(np.concatenate([colorize(values), alpha], axis=-1))


@functools.cache
def mask(size, seed, category):
    x, y = _grid(size, 640)
    inside = (abs(x - 0.3 - 0.05 * (seed % 5)) < 0.15) & (abs(y - 0.6) < 0.2)
    pixels = np.zeros((*x.shape, 4), np.uint8)
    pixels[inside] = (*CATEGORIES[category].color, 150)
    return _uri(pixels)


def entry(number=0, name=None, *, labelled=True, methods=METHODS, masks=True):
    """One image: probability, verdict, generator and layers follow from its number."""
    size = SIZES[number % 4 if number % 17 else number % 6]
    fake = number % 3 != 0
    probability = round(0.5 + (0.49 if fake else -0.49) * np.cos(number * 1.7), 4)
    is_fake = probability >= 0.5
    category = number % 7
    label = CATEGORIES[category].label
    predicted = [label] if masks and is_fake else []
    annotated = [label] if labelled and fake and number % 2 else []
    layers = {"image": picture(size, number % 20, 640)}
    layers |= {f"heat:{m['name']}": heat(size, number % 20, k) for k, m in enumerate(methods)}
    if predicted:
        layers["mask"] = mask(size, number % 5, category)
    if annotated:
        layers["annotation"] = mask(size, (number + 2) % 5, category)
    score = {"iou": 0.25, "pointing": 1.0, "mass": 0.5}
    return {
        "id": number,
        "name": f"folder/image_{number:03d}.png" if name is None else name,
        "generator": (f"generator {number % 4}" if fake else "real") if labelled else None,
        "label": int(fake) if labelled else None,
        "probability": float(probability),
        "is_fake": bool(is_fake),
        "verdict": "fake" if is_fake else "real",
        "correct": bool(is_fake == fake) if labelled else None,
        "confidence": float(max(probability, 1 - probability)),
        "width": size[0],
        "height": size[1],
        "annotated": annotated,
        "predicted": predicted,
        "artifact_share": 0.01 * number % 1 if masks else None,
        "instances": [
            {"category": label, "box": [3, 4, 60, 90], "area": 1234, "confidence": 0.8125}
            for label in predicted
        ],
        "scores": {m["name"]: score for m in methods} if annotated else {},
        "warnings": ["the map is constant"] if number % 11 == 5 else [],
        "thumb": picture(size, number % 20, 192),
        "layers": layers,
    }


def entries(count=12, **options):
    return [entry(number, **options) for number in range(count)]


def head(images, *, methods=METHODS, **changes):
    """The head that belongs to these entries."""
    facts = [
        Fact(
            probability=e["probability"],
            is_fake=e["is_fake"],
            uncertain=e["verdict"] == "uncertain",
            label=e["label"],
            generator=e["generator"],
            annotated=tuple(e["annotated"]),
            predicted=tuple(e["predicted"]),
            regions=dict.fromkeys(e["predicted"], 1),
            pixels={m: (300, 200, 100) for m in e["scores"]},
            scores=e["scores"],
        )
        for e in images
    ]
    labelled = any(e["label"] is not None for e in images)
    return {
        "title": "Report on a demonstration",
        "created": "2026-01-31 18:00 UTC",
        "version": "0.0.0",
        "model": {"name": "demo", "backbone": "vit", "threshold": 0.5, "map_threshold": 0.5}
        | {"limits": None},
        "data": {
            "name": "demonstration",
            "split": "test",
            "images": len(images),
            "of": len(images),
            "labelled": labelled,
        },
        "notices": [],
        "warnings": [],
        "methods": list(methods),
        "categories": [
            {"label": c.label, "name": c.short, "color": "#" + bytes(c.color).hex()}
            for c in CATEGORIES
        ],
        "summary": summarize(facts, [m["name"] for m in methods]),
        "charts": [{"name": "roc", "title": "ROC", "description": "Area 0.9.", "svg": CHART}],
        "failures": [],
    } | changes
