"""One self-contained HTML file that opens from disk without requests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from artifactnet.explanation.overlay import colorize
from artifactnet.explanation.report.html import write_html
from artifactnet.explanation.report.tables import LABELS, summary_figures, summary_tables
from artifactnet.names import visible

_HEAT = "heat:"  # key of a method's layer is this and the method's name
# what could end a script element or start a comment in it; within JSON only strings hold these
_ESCAPES = {ord(mark): f"\\u{ord(mark):04x}" for mark in "<>&\u2028\u2029"}


def write_page(
    path: Path,
    head: dict[str, Any],
    entries: Sequence[dict[str, Any]],
    staging: Path | None = None,
) -> None:
    """Write a report as one HTML file, atomically.

    Texts from data (names, generators, reasons) are escaped. The page's security policy allows no
    request, and of scripts and styles only its own, by their hashes.

    Args:
        path: the HTML file to write.
        head: of the whole report; ``head["charts"]`` holds SVG elements that are inserted as they
            are: their texts must be escaped already, their inline styles have no effect.
        entries: one per image, with a unique ``id``, a ``thumb`` and ``layers`` as data URIs;
            ``score``, ``explanation``, ``regions`` and ``tags`` only where a model gives them.
        staging: folder for the temporary file, see `artifactnet.files.atomic_path`.

    Raises:
        ValueError: a number is NaN or infinite, or two entries have one id.
        OSError: the file cannot be written; an older file at ``path`` is untouched.
    """
    if len({entry["id"] for entry in entries}) != len(entries):
        raise ValueError("each entry of a report needs an id of its own")
    values = {
        "head": head,
        "entries": entries,
        "embed": embed,
        "words": words,
        "figures": summary_figures(head["summary"]),
        **_contents(head, entries),
    }
    write_html(path, "report.html", values, scripts=["report.js"], staging=staging)


def words(explanation: dict[str, str]) -> dict[str, str]:
    """The parts of an explanation as `prose`, without ``text``, which holds all of them again."""
    return {part: prose(explanation[part]) for part in ("description", "regions", "issues")}


def prose(text: str) -> str:
    """As `visible`, but line breaks of every kind become newlines, and tabs blanks."""
    return "\n".join(visible(line.expandtabs(4)) for line in text.splitlines()).strip("\n")


def embed(data: Any) -> str:
    """JSON for a script element: ASCII, and without any character that has a meaning in HTML.

    Raises:
        ValueError: ``data`` holds NaN or an infinite number, which are not JSON.
    """
    return json.dumps(data, allow_nan=False, separators=(",", ":")).translate(_ESCAPES)


def _contents(head: dict[str, Any], entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Values for the template and the script, derived from the data."""
    layers = _layers(head, entries)
    keys = [layer["key"] for layer in layers]
    occurring = {label for e in entries for label in (*e["annotated"], *e["predicted"])}
    categories = [c for c in head["categories"] if c["label"] in occurring]
    # nameless ones last
    index = [_index_entry(entry, keys) for entry in entries]
    generators = sorted({e["generator"] for e in index}, key=lambda g: (g is None, g or ""))
    names = {layer["key"].removeprefix(_HEAT): layer["label"] for layer in layers}
    share, labels = _share(layers), LABELS[head["summary"]["judges"]]
    return {
        "layers": layers,
        # the first map if the report has one
        "first_layer": (keys[1:] or keys)[0],
        "categories": categories,
        "generators": generators,
        "tables": summary_tables(head["summary"], names),
        "index": index,
        "share": share,
        "uncertain": head["summary"]["called_uncertain"] > 0,
        "labels": labels,
        "script_head": {
            "title": head["title"],
            "labels": labels,
            "called": _called(head["model"], labels),
            "layers": layers,
            "categories": categories,
            "generators": generators,
            "ramp": _ramp(),
            "share": share,
        },
    }


def _called(model: dict[str, Any], labels: dict[str, str]) -> str:
    """From which probability on an image is called what."""
    fake = labels["fake"].lower()
    if model["limits"] is None:
        return f"{fake} from {model['threshold']}"
    low, high = model["limits"]
    return f"{fake} from {high}, {labels['real'].lower().removeprefix('called ')} below {low}"


def _layers(head: dict[str, Any], entries: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """The layers that at least one image has, the image itself first."""
    existing = {"image"}.union(*(entry["layers"] for entry in entries))
    every = [
        {"key": "image", "label": "Original", "description": "The image without any layer"},
        *({**m, "key": f"{_HEAT}{m['name']}"} for m in head["methods"]),
        {"key": "mask", "label": "Predicted mask", "description": "Predicted artifacts"},
        {"key": "annotation", "label": "Annotation", "description": "Annotated artifacts"},
    ]
    return [layer for layer in every if layer["key"] in existing]


def _index_entry(entry: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """An entry without large pictures and texts, but with the names of missing pictures."""
    kept = {key: value for key, value in entry.items() if key not in ("layers", "explanation")}
    generator = entry["generator"]
    if "regions" in entry:  # texts of a model
        kept["regions"] = [
            {"bbox": region["bbox"], "caption": visible(region["caption"])}
            for region in entry["regions"]
        ]
    return {
        **kept,
        "name": visible(entry["name"]),
        "generator": None if generator is None else visible(generator),
        "missing": [key for key in keys if key not in entry["layers"]],
    }


def _share(layers: Sequence[dict[str, str]]) -> dict[str, str]:
    """Name and meaning of the artifact share: a high map is not yet a predicted artifact."""
    labels = {layer["key"]: layer["label"] for layer in layers}
    if "mask" in labels:
        return {"name": "Artifact share", "text": "of the pixels lie in the predicted mask"}
    maps = [label for key, label in labels.items() if key.startswith(_HEAT)]
    text = f"of the pixels are above 0.5 in {maps[0]}" if maps else "of the pixels"
    return {"name": "Area of the map above 0.5", "text": text}


def _ramp(steps: int = 11) -> list[str]:
    """CSS colours of a map's values from 0 to 1, as opaque as they are in the layers."""
    values = np.linspace(0, 1, steps)
    colors = colorize(values[None])[0]
    return [
        f"rgb({r} {g} {b} / {value:.2f})" for (r, g, b), value in zip(colors, values, strict=True)
    ]
