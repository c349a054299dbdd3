"""The metadata of exported files: preprocessing, outputs, thresholds and origin."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from importlib.metadata import version
from typing import Any

from artifactnet.data.geometry import POLICIES
from artifactnet.types import ArtifactNetError

FORMAT = "artifactnet-export-1"
INPUT = "images"  # name of a graph's input

# where the heatmap comes from
HEAD, SEGMENTATION, NONE = "head", "segmentation", "none"
_OUTPUTS = {
    HEAD: ("logit", "heatmap", "sigma", "score"),
    SEGMENTATION: ("logit", "heatmap"),
    NONE: ("logit",),
}


@dataclass(frozen=True, slots=True)
class ExportFacts:
    """The metadata of an exported file.

    Attributes:
        version: of the ArtifactNet that wrote it.
        model: the whole `ModelConfig` as plain values.
        classes: names of the two answers; the logit is that of the second.
        categories: indices 1..7 of the artifact categories that its segmentation head learned.
        threshold: fake if probability >= threshold.
        map_threshold: artifact if heatmap > map_threshold.
        mean, std: the normalisation inside the graph, for pixel values in [0, 1].
        image_size: height and width of its input, pixels.
        resize: policy that brings an image to this size.
        patch_size: shortest side of an image that it accepts, pixels.
        heatmap: ``head`` (a heatmap head), ``segmentation`` (probability of any artifact) or
            ``none``.
        notices: warnings that every prediction repeats.
        kept_float: layers that were left in floating point; None unless the file is int8.
        fake_from, real_below: the verdict is fake if probability >= fake_from, real if it is below
            real_below, uncertain between; None of a model without these limits.
        calibrated: number of images that an int8 file was calibrated on; None if unknown.
    """

    version: str
    model: dict[str, Any]
    classes: tuple[str, ...]
    categories: tuple[int, ...]
    threshold: float
    map_threshold: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: tuple[int, int]
    resize: str
    patch_size: int
    heatmap: str
    notices: tuple[str, ...]
    kept_float: tuple[str, ...] | None = None
    calibrated: int | None = None
    fake_from: float | None = None
    real_below: float | None = None

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the graph's outputs, in order."""
        return _OUTPUTS[self.heatmap]

    def to_strings(self) -> dict[str, str]:
        """JSON strings by name, which all formats can hold."""
        values = {field.name: json.dumps(getattr(self, field.name)) for field in fields(self)}
        return {"format": FORMAT, "outputs": json.dumps(self.outputs), **values}


KEYS = ("format", "outputs", *(field.name for field in fields(ExportFacts)))


def facts_from_strings(strings: Mapping[str, str], where: str) -> ExportFacts:
    """Read what `ExportFacts.to_strings` wrote.

    Args:
        strings: metadata of a file; unknown keys are ignored.
        where: what errors call the file.

    Raises:
        ArtifactNetError: not exported by ArtifactNet, or in another format, or damaged.
    """
    written = strings.get("format")
    if written is None:
        raise ArtifactNetError(
            f"{where}: not exported by ArtifactNet (its metadata names no format); export a model "
            "with `artifactnet export`"
        )
    if written != FORMAT:
        raise ArtifactNetError(
            f"{where}: written in format {written} by ArtifactNet {strings.get('version', '?')}; "
            f"this is {version('artifactnet')}, which reads {FORMAT}: export the model again"
        )
    try:
        values: Any = {
            field.name: json.loads(strings[field.name])
            for field in fields(ExportFacts)
            if field.name in strings or field.default is MISSING
        }
        listed: Any = {k: tuple(v) for k, v in values.items() if isinstance(v, list)}
        facts = ExportFacts(**values | listed)
        _check(facts)
    except (KeyError, ValueError, TypeError, RecursionError, OverflowError) as error:
        raise ArtifactNetError(
            f"{where}: its metadata is damaged ({type(error).__name__}: {error}); export the "
            "model again"
        ) from error
    return facts


def _check(facts: ExportFacts) -> None:
    """Raise ValueError where the metadata cannot be true."""
    sound = {
        "version": isinstance(facts.version, str),
        "model": isinstance(facts.model, dict),
        "classes": _all(_is_text, facts.classes, 2),
        "categories": _all(_is_whole, facts.categories),
        "threshold": _is_number(facts.threshold) and 0 <= facts.threshold <= 1,
        "map_threshold": _is_number(facts.map_threshold) and 0 <= facts.map_threshold <= 1,
        "fake_from": _are_limits(facts),
        "mean": _all(_is_number, facts.mean, 3),
        "std": _all(_is_number, facts.std, 3) and min(facts.std) > 0,
        "image_size": _all(_is_whole, facts.image_size, 2),
        "resize": facts.resize in POLICIES,
        "patch_size": _is_whole(facts.patch_size),
        "heatmap": facts.heatmap in _OUTPUTS,
        "notices": _all(_is_text, facts.notices),
        "kept_float": facts.kept_float is None or _all(_is_text, facts.kept_float),
        "calibrated": facts.calibrated is None or _is_whole(facts.calibrated),
    }
    for name, good in sound.items():
        if not good:
            raise ValueError(f"{name} is {repr(getattr(facts, name))[:80]}")


def _are_limits(facts: ExportFacts) -> bool:
    """Whether there are no limits, or two with the threshold between them."""
    low, high = facts.real_below, facts.fake_from
    if low is None or high is None:
        return low is high
    return _is_number(low) and _is_number(high) and 0 <= low <= facts.threshold <= high <= 1


def _all(rule: Callable[[Any], bool], values: Any, length: int | None = None) -> bool:
    """Whether it is a list of such values, of the given length."""
    fits = isinstance(values, tuple) and (length is None or len(values) == length)
    return fits and all(map(rule, values))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    """Whether it counts something: 1, 2, ..."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
