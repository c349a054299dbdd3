"""Counts of a data set, and warnings about what spoils detectors.

Detectors of this field have learned JPEG against PNG, or one size against another, instead of
artifacts: classes that differ in format, size or quality give a warning, images that occur in two
splits or under two labels are an error, and those that nearly do give a warning.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from artifactnet.config import AugmentConfig
from artifactnet.data.duplicates import content_of, describe_duplicates, find_duplicates
from artifactnet.data.images import jpeg_quality, probe_image
from artifactnet.data.near_duplicates import describe_near_duplicates, find_near_duplicates
from artifactnet.data.sources.base import Source, Splits
from artifactnet.taxonomy import CATEGORIES
from artifactnet.types import Annotation, ArtifactNetError, Record

LEVELS = ("full", "counts", "off")
CLASSES = ("real", "fake")  # index = label
PROBED = 500  # images per class whose header is read
RUN = 25  # of them neighbours: a parquet shard is decoded a row group at a time
FORMAT_TOLERANCE = 0.1  # total variation distance of the format shares
SIZE_TOLERANCE = 0.1  # relative difference of the median sizes
QUALITY_TOLERANCE = 5  # difference of the median JPEG qualities
LOSSLESS = ("BMP", "PNG", "PPM", "TIFF")  # as Pillow names them; WebP may be lossy


def summarize_data(splits: Splits, check: str) -> dict[str, Any]:
    """Count the images of each split and look for what would spoil a detector.

    ``check`` is ``full``, ``counts`` (no file is opened: no formats, sizes or duplicates) or
    ``off`` (an empty summary).

    Returns:
        JSON-ready: ``{"check", "splits": {split: counts}, "warnings": [str]}``. Counts are per
        class, generator, category and annotation state, and with ``full`` per class also the file
        formats, sizes (square root of the area, pixels) and JPEG qualities of up to `PROBED`
        images.

    Raises:
        ArtifactNetError: a uid or, with ``full``, an identical image occurs in two splits; with
            ``full``, an identical image has two labels.
        ValueError: unknown ``check``.
    """
    if check not in LEVELS:
        raise ValueError(f"check must be one of {LEVELS}, got {check!r}")
    summary: dict[str, Any] = {"check": check, "splits": {}, "warnings": []}
    if check == "off":
        return summary
    warnings = [text for source in splits.values() for text in getattr(source, "warnings", ())]
    for name, source in splits.items():
        counts = _counts(source.records)
        for label in CLASSES:
            if not counts["class"][label]:
                warnings.append(f"{name}: no {label} images")
        if check == "full":
            counts["files"], differences = compare_classes(name, source)
            warnings += differences
        summary["splits"][name] = counts
    home: dict[str, str] = {}
    for name, source in splits.items():
        for uid in {record.uid for record in source.records}:
            if home.setdefault(uid, name) != name:
                raise ArtifactNetError(
                    f"uid {uid!r} is in both {home[uid]} and {name}; a photograph and all fakes "
                    "made from it belong in one split"
                )
    if check == "full":
        pairs, skipped = find_duplicates(splits)
        if pairs:
            raise ArtifactNetError(describe_duplicates(splits, pairs))
        if skipped:
            warnings.append(f"{skipped} images inside shards were not compared across splits")
        near = find_near_duplicates(splits)
        warnings += describe_near_duplicates(splits, near)
        summary["near_duplicates"] = {"pairs": len(near.pairs), "compared": near.compared}
    summary["warnings"] = list(dict.fromkeys(warnings))
    return summary


def compare_classes(name: str, source: Source) -> tuple[dict[str, Any], list[str]]:
    """File formats, sizes and JPEG qualities of some images of each class, and where they differ.

    Args:
        name: of the images, in the warnings.
        source: of them; of at most `PROBED` per class the header is read.

    Returns:
        class -> its figures, JSON-ready, and the warnings.
    """
    files = {label: _probe(source, k) for k, label in enumerate(CLASSES)}
    return files, _bias(name, files["real"], files["fake"])


def choose_jpeg_classes(
    augment: AugmentConfig, files: Mapping[str, Any] | None
) -> tuple[str, str | None]:
    """Which classes training compresses as JPEG (both, fake or none), and a log line or None.

    Compressing the fakes alone evens out lossless fakes beside JPEG photographs. With any other
    file formats it writes the label into the images instead: ``auto`` compresses both classes
    unless the files call for ``fake``, and an explicit ``fake`` that they contradict becomes
    ``both``.

    ``files`` are ``summary["splits"]["train"]["files"]`` of `summarize_data`; None if not checked.
    """
    if not augment.jpeg_quality or augment.jpeg_on in ("both", "none"):
        return augment.jpeg_on if augment.jpeg_quality else "none", None
    explicit = augment.jpeg_on == "fake"
    if not augment.align_compression:
        if not files or not all(files[label]["probed"] for label in CLASSES):
            if not explicit:
                return "both", None
            return "fake", (
                "data.augment.jpeg_on=fake was not checked against the file formats "
                "(data.check=full does): with both classes in the same format it gives the label "
                "away"
            )
        formats = {label: files[label]["format"] for label in CLASSES}
        jpeg = formats["real"].get("JPEG", 0) / files["real"]["probed"]
        lossless = sum(formats["fake"].get(k, 0) for k in LOSSLESS) / files["fake"]["probed"]
        if min(jpeg, lossless) >= 1 - FORMAT_TOLERANCE:
            return "fake", None if explicit else (
                "data.augment.jpeg_on=auto compresses the fakes alone: their files are lossless, "
                "those of real images JPEG"
            )
    return "both", None if not explicit else (
        "data.augment.jpeg_on=fake would give the label away, since the fakes are not lossless "
        "files beside JPEG photographs: both classes are compressed"
    )


def _counts(records: Sequence[Record]) -> dict[str, Any]:
    labels = Counter(CLASSES[record.label] for record in records)
    states = Counter(record.annotation for record in records)
    generators = Counter(record.generator for record in records)
    held = [record.categories for record in records]
    categories = {item.label: sum(bool(bits & item.bit) for bits in held) for item in CATEGORIES}
    marked = [record.categories for record in records if record.annotation is Annotation.MASK]
    categories["uncategorized"] = sum(not bits & ~1 for bits in marked)
    return {
        "images": len(records),
        "uids": len({record.uid for record in records}),
        "class": {label: labels[label] for label in CLASSES},
        "generator": dict(sorted(generators.items())),
        "category": categories,
        "annotation": {state.name.lower(): states[state] for state in Annotation},
    }


def _probe(source: Source, label: int) -> dict[str, Any]:
    """Formats, sizes and JPEG qualities of some images of a class."""
    formats: Counter[str] = Counter()
    sizes: list[float] = []
    qualities: list[int] = []
    unreadable = []
    for index in _spread([k for k, item in enumerate(source.records) if item.label == label]):
        name = source.records[index].location
        try:
            content = content_of(source, index)
            if content is None:
                continue
            kind, width, height = probe_image(content, name)
            quality = jpeg_quality(content, name) if kind == "JPEG" else None
        except ArtifactNetError as error:  # a warning; loading it is an error, or a listed skip
            unreadable.append(str(error))
            continue
        formats[kind] += 1
        sizes.append((width * height) ** 0.5)
        qualities += [] if quality is None else [quality]
    return {
        "probed": len(sizes),
        "format": dict(sorted(formats.items())),
        "size": _range(sizes),
        "jpeg_quality": _range(qualities),
        "unreadable": unreadable,
    }


def _spread(indices: list[int]) -> list[int]:
    """At most `PROBED` of the indices, in evenly spaced runs."""
    if len(indices) <= PROBED:
        return indices
    runs = PROBED // RUN
    starts = [k * (len(indices) - RUN) // (runs - 1) for k in range(runs)]
    return sorted({index for start in starts for index in indices[start : start + RUN]})


def _range(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    figures = {"min": min(values), "median": median(values), "max": max(values)}
    return {key: round(float(value), 1) for key, value in figures.items()}


def _bias(split: str, real: dict[str, Any], fake: dict[str, Any]) -> list[str]:
    """Differences of the classes that a detector could learn instead of artifacts."""
    bad = real["unreadable"] + fake["unreadable"]
    warnings = [f"{split}: {len(bad)} probed images are unreadable, e.g. {bad[0]}"] if bad else []
    if not real["probed"] or not fake["probed"]:
        return warnings
    shares = [
        {kind: count / side["probed"] for kind, count in side["format"].items()}
        for side in (real, fake)
    ]
    kinds = shares[0].keys() | shares[1].keys()
    distance = sum(abs(shares[0].get(k, 0) - shares[1].get(k, 0)) for k in kinds) / 2
    advice = "a detector can learn that instead of artifacts"
    if distance > FORMAT_TOLERANCE:
        warnings.append(
            f"{split}: file formats differ: real {_percent(shares[0])}, fake "
            f"{_percent(shares[1])}; {advice} (see data.augment.jpeg_quality)"
        )
    a, b = real["size"]["median"], fake["size"]["median"]
    if abs(a - b) > SIZE_TOLERANCE * min(a, b):
        warnings.append(f"{split}: median sizes differ: real {a:.0f} px, fake {b:.0f} px; {advice}")
    if real["jpeg_quality"] and fake["jpeg_quality"]:
        a, b = real["jpeg_quality"]["median"], fake["jpeg_quality"]["median"]
        if abs(a - b) > QUALITY_TOLERANCE:
            warnings.append(
                f"{split}: median JPEG qualities differ: real {a:.0f}, fake {b:.0f}; {advice}"
            )
    return warnings


def _percent(shares: dict[str, float]) -> str:
    return ", ".join(f"{kind} {share:.0%}" for kind, share in sorted(shares.items()))
