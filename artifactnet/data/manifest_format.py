"""The manifest format: JSON lines, one per image, that say what is known of it.

`artifactnet.data.sources.manifest` turns manifests into training data.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from artifactnet.data.folder_names import SPLITS, split_of
from artifactnet.data.regions import parse_regions, parse_tags
from artifactnet.data.text import brief, parse_json, read_text
from artifactnet.files import write_text
from artifactnet.taxonomy import BY_LABEL, CATEGORIES
from artifactnet.types import Annotation, ArtifactNetError, Record, Region

REQUIRED = ("image", "uid", "label", "annotation")
OPTIONAL = (
    "split",
    "generator",
    "heatmap",
    "mask",
    "score",
    "categories",
    "text",
    "regions",
    "tags",
)
_LONGEST = 4096  # characters of a path or name, as in the file systems of Linux
_STATES = {state.name.lower(): state for state in Annotation}


@dataclass(frozen=True, slots=True)
class ManifestLine:
    """One image of a manifest.

    Attributes:
        image: path of the image file.
        uid: shared by a photograph and every fake made from it; splits are disjoint in it.
        label: 0 real, 1 fake.
        annotation: ``CLEAN`` for every real image; ``MASK`` if and only if it has a heatmap, a
            mask, or at least one region.
        split: ``train``, ``val``, ``test``, or None: drawn by uid.
        generator: ``real`` for real images.
        heatmap: path of a single-channel PNG, 255 = artifact, or None.
        mask: path of a bit-field PNG (see `artifactnet.taxonomy`), or None.
        score: plausibility in [0, 1], 1 = nothing looks wrong, or None.
        categories: bit field of the annotated categories; 0 where they are unknown.
        text: explanation in Expl-AIGI-Eval's form with ``[MAP]`` and ``[SCORE]``, or None.
        regions: flawed places with captions, in the image as shown; empty: looked for, none found;
            None: not annotated. Bounds are checked when the image is loaded.
        tags: of `artifactnet.taxonomy.TAGS`, or None: not annotated.
        where: ``FILE:LINE`` for error messages; ignored in comparisons.
    """

    image: str
    uid: str
    label: int
    annotation: Annotation
    split: str | None = None
    generator: str = "fake"
    heatmap: str | None = None
    mask: str | None = None
    score: float | None = None
    categories: int = 0
    text: str | None = None
    regions: tuple[Region, ...] | None = None
    tags: tuple[str, ...] | None = None
    where: str = field(default="", compare=False)

    @property
    def image_path(self) -> str:
        """Absolute path of the image file; lines that share it describe one image."""
        return os.path.abspath(self.image)


def read_manifest(path: Path) -> list[ManifestLine]:
    """Lines of a manifest, their paths joined to its folder; empty lines are skipped.

    Raises:
        ArtifactNetError: the file cannot be read, or `parse_line` refuses a line.
    """
    return [
        parse_line(line, path.parent, f"{path}:{number}")
        for number, line in enumerate(read_text(path).split("\n"), 1)
        if line.strip()
    ]


def write_manifest(path: Path, lines: Iterable[ManifestLine]) -> None:
    """Atomically write a manifest; paths are stored relative to its folder.

    Raises:
        ArtifactNetError: a line that `parse_line` refuses; the message names its image.
    """
    folder = os.path.realpath(path.parent)

    def relative(target: str | None) -> str | None:
        if target is None:
            return None
        # Of the folder alone: an image may be a link to a file without its name and suffix.
        place = os.path.join(os.path.realpath(os.path.dirname(target)), os.path.basename(target))
        return Path(os.path.relpath(place, folder)).as_posix()

    texts = []
    for line in lines:
        row = {
            "image": relative(line.image),
            "split": line.split,
            "uid": line.uid,
            "label": line.label,
            "generator": line.generator,
            "annotation": line.annotation.name.lower(),
            "heatmap": relative(line.heatmap),
            "mask": relative(line.mask),
            "score": line.score,
            "categories": [c.label for c in CATEGORIES if line.categories & c.bit] or None,
            "text": line.text,
            "regions": None if line.regions is None else [asdict(one) for one in line.regions],
            "tags": line.tags,
        }
        texts.append(json.dumps(row))
        parse_line(texts[-1], path.parent, line.image)  # NaN is refused there too
    write_text(path, "".join(row + "\n" for row in texts))


def parse_line(text: str, folder: Path, where: str) -> ManifestLine:
    """Check one line: a JSON object with the keys `REQUIRED`, any of `OPTIONAL`; null is absent.

    Relative paths are joined to ``folder``; ``where`` names the line in error messages.

    Raises:
        ArtifactNetError: it is no JSON object; a key is unknown, repeated, missing or of another
            type; or values contradict each other.
    """
    row = parse_json(text, where)
    if not isinstance(row, dict):
        raise ArtifactNetError(f"{where}: must be a JSON object, not {brief(row)}")
    unknown = [key for key in row if key not in (*REQUIRED, *OPTIONAL)]
    if unknown:
        known = ", ".join((*REQUIRED, *OPTIONAL))
        raise ArtifactNetError(f"{where}: unknown key {brief(unknown[0])}; known: {known}")
    row = {key: value for key, value in row.items() if value is not None}
    missing = [key for key in REQUIRED if key not in row]
    if missing:
        raise ArtifactNetError(f"{where}: {missing[0]!r} is missing; every image needs it")
    for key in ("image", "uid", "generator", "heatmap", "mask"):
        value = row.get(key, "?")
        if not isinstance(value, str) or not value or "\0" in value:
            raise ArtifactNetError(f"{where}: {key!r} must be text, not {brief(value)}")
        if len(value) > _LONGEST:
            raise ArtifactNetError(f"{where}: {key!r} is longer than {_LONGEST} characters")
    label = row["label"]
    if type(label) is not int or label not in (0, 1):
        raise ArtifactNetError(f"{where}: 'label' must be 0 (real) or 1 (fake), not {brief(label)}")
    score = row.get("score")
    numeric = isinstance(score, int | float) and not isinstance(score, bool)
    if score is not None and not (numeric and 0 <= score <= 1):
        raise ArtifactNetError(f"{where}: 'score' must be a number from 0 to 1, not {brief(score)}")
    state = _choice(row, "annotation", tuple(_STATES), where)
    line = ManifestLine(
        image=str(folder / row["image"]),
        uid=row["uid"],
        label=label,
        annotation=_STATES[state],
        split=_split(row["split"], where) if "split" in row else None,
        generator=row.get("generator", "fake" if label else "real"),
        heatmap=str(folder / row["heatmap"]) if "heatmap" in row else None,
        mask=str(folder / row["mask"]) if "mask" in row else None,
        score=None if score is None else float(score),
        categories=_categories(row.get("categories", []), where),
        text=_text(row["text"], where) if "text" in row else None,
        regions=parse_regions(row["regions"], where) if "regions" in row else None,
        tags=parse_tags(row["tags"], f"{where}: 'tags'") if "tags" in row else None,
        where=where,
    )
    for key, found in (("regions", line.regions), ("tags", line.tags)):
        if found and line.label == 0:
            raise ArtifactNetError(f"{where}: {key!r} of a real image (label 0) must be empty")
    marked = line.heatmap is not None or line.mask is not None or bool(line.regions)
    if (line.annotation is Annotation.MASK) != marked:
        problem = "a heatmap, mask or region is given"
        if not marked:
            problem = "neither heatmap nor mask is given, nor a region"
        raise ArtifactNetError(f"{where}: 'annotation' is {state!r}, but {problem}")
    if line.annotation is Annotation.NONE and line.regions is not None:
        raise ArtifactNetError(
            f"{where}: 'regions' is empty, which means that none were found; 'annotation' must be "
            "'clean' then, not 'none'"
        )
    if line.categories and not marked:
        raise ArtifactNetError(f"{where}: 'categories' are given, but 'annotation' is not 'mask'")
    if line.label == 0 and line.annotation is not Annotation.CLEAN:
        raise ArtifactNetError(f"{where}: a real image (label 0) must have annotation 'clean'")
    if (line.generator == "real") != (line.label == 0):
        raise ArtifactNetError(
            f"{where}: 'generator' is {brief(line.generator)} and 'label' is {line.label}; 'real' "
            "is the generator of real images (label 0) and of no other"
        )
    return line


def _choice(row: dict[str, Any], key: str, words: tuple[str, ...], where: str) -> str:
    value = row[key]
    if not isinstance(value, str) or value not in words:
        raise ArtifactNetError(
            f"{where}: {key!r} must be one of {', '.join(words)}, not {brief(value)}"
        )
    return value


def _split(value: Any, where: str) -> str:
    """Split of a line; it may have any name that a folder of this split may have."""
    split = split_of(value) if isinstance(value, str) else None
    if split is None:
        known = ", ".join(SPLITS)
        raise ArtifactNetError(f"{where}: 'split' must be one of {known}, not {brief(value)}")
    return split


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ArtifactNetError(f"{where}: 'text' must be text, not {brief(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # half a character, which no tokenizer takes
        raise ArtifactNetError(f"{where}: 'text' is no Unicode text ({error.reason})") from None
    return value


def _categories(value: Any, where: str) -> int:
    """Bit field of a list of labels."""
    if not isinstance(value, list):
        raise ArtifactNetError(
            f"{where}: 'categories' must be a list of labels, not {brief(value)}"
        )
    unknown = [label for label in value if not isinstance(label, str) or label not in BY_LABEL]
    if unknown:
        known = ", ".join(BY_LABEL)
        raise ArtifactNetError(
            f"{where}: 'categories' has unknown {brief(unknown[0])}; known: {known}"
        )
    return sum({BY_LABEL[label].bit for label in value})


def record_of(line: ManifestLine) -> Record:
    """What is known of an image without decoding it."""
    described = line.uid, line.label, line.generator, line.annotation
    return Record(*described, line.image, line.categories, path=line.image, where=line.where)


def named_splits(lines: Iterable[ManifestLine]) -> dict[str, tuple[str, ManifestLine]]:
    """Splits that lines name: uid -> its split, and the first line that names it.

    Raises:
        ArtifactNetError: a uid, or an image, is put into two splits.
    """
    named: dict[tuple[str, str], tuple[str, ManifestLine]] = {}
    for line in lines:
        if line.split is None:
            continue
        for key in (("uid", line.uid), ("image", line.image_path)):
            split, first = named.setdefault(key, (line.split, line))
            if split != line.split:
                raise ArtifactNetError(
                    f"{line.where or line.image}: {key[0]} {key[1]!r} is in {line.split} here and "
                    f"in {split} in {first.where or first.image}; a photograph and all fakes made "
                    "from it belong in one split"
                )
    return {what: found for (kind, what), found in named.items() if kind == "uid"}
