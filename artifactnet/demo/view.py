"""What the page shows of an analysis, as HTML. Every text from data or models is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

from artifactnet.demo.analysis import Analysis
from artifactnet.demo.examples import EXAMPLES, read_example
from artifactnet.demo.upload import UploadLimits
from artifactnet.explanation.methods import METHODS, scale_of
from artifactnet.explanation.report.content import LABELS
from artifactnet.explanation.report.encode import COLORS, heat_uri, picture_uri
from artifactnet.taxonomy import CATEGORIES, UNCATEGORIZED_BIT
from artifactnet.types import Instance, Prediction, Rationale, UInt8Array

PICTURE_SIDE = 1280  # pixels of the long side, as shown
HEAT_SIDE = 448  # of the heatmap, which the browser enlarges smoothly
MAX_REGIONS = 20  # listed and drawn
_PICTURE_QUALITY = 85
_THUMB_SIDE, _THUMB_QUALITY = 200, 70
_SMALLEST = 0.001  # of a probability, as shown
_HEADLINES = {
    "fake": "Looks made or edited by AI",
    "uncertain": "Not sure",
    "real": "No sign of AI found",
}
_BY_LABEL = {category.label: category for category in CATEGORIES}


def percent(share: float) -> str:
    """A share in [0, 1] with one decimal; what would look certain and is not is put as a bound."""
    if 0 < share < _SMALLEST:
        return f"under {100 * _SMALLEST:g} %"
    if 1 - _SMALLEST < share < 1:
        return f"over {100 * (1 - _SMALLEST):g} %"
    return f"{100 * share:.1f} %"


def intake_html(limits: UploadLimits) -> str:
    """Where an image is dropped or chosen, and the examples."""
    buttons = "".join(
        f'<li><button type="button" data-example="{number}">'
        f'<img alt="" src="{picture_uri(read_example(example), _THUMB_SIDE, _THUMB_QUALITY)}">'
        f"<span>{escape(example.caption)}</span></button></li>"
        for number, example in enumerate(EXAMPLES)
    )
    return (
        f'<label class="an-drop" data-bytes="{limits.bytes}">'
        '<input type="file" accept="image/*" aria-describedby="an-help">'
        "<strong>Drop, paste or choose an image</strong>"
        f'<span id="an-help">Up to {limits.bytes / 1e6:g} MB and {limits.pixels / 1e6:g} '
        "megapixels. It goes to the computer that runs this page, and is not kept.</span></label>"
        '<p class="an-note" role="alert"></p>'
        f'<h2>Or try one of these</h2><ul class="an-examples">{buttons}</ul>'
    )


def error_html(reason: str) -> str:
    """One sentence in place of a verdict."""
    return f'<div class="an-error" role="alert"><p>{escape(_sentence(reason))}</p></div>'


def verdict_html(
    analysis: Analysis, threshold: float, limits: tuple[float, float] | None
) -> str:  # fmt: skip
    """The verdict, its probability on a scale, what both mean in plain words, and warnings.

    Args:
        analysis: of an image.
        threshold: of the model, in [0, 1].
        limits: ``(real_below, fake_from)``, or None of a model that was not calibrated.
    """
    prediction = analysis.prediction
    verdict, probability = prediction.verdict, percent(prediction.probability)
    height, width = analysis.upload.pixels.shape[:2]
    parts = [
        f'<section class="an-verdict an-{verdict}" aria-label="Verdict">',
        f"<h2>{_HEADLINES[verdict]}</h2>",
        f'<p class="an-probability"><strong>{probability}</strong> probability that AI made or '
        "edited it</p>",
        _scale(prediction.probability, threshold, limits),
        f"<p>{_meaning(prediction, threshold, limits)}</p>",
    ]
    if prediction.score is not None:
        parts.append(
            f"<p>Plausibility {prediction.score:.2f} of 1, where 1 means that nothing looks "
            "wrong.</p>"
        )
    parts.append(
        f'<p class="an-quiet"><bdi>{escape(analysis.upload.name)}</bdi>, {width} &times; {height} '
        f"pixels</p></section>{_warnings(analysis.warnings)}"
    )
    return "".join(parts)


def picture_html(analysis: Analysis) -> str:
    """The image at its own proportions, with the heatmap and the regions over it."""
    pixels, regions = analysis.upload.pixels, analysis.prediction.instances[:MAX_REGIONS]
    height, width = pixels.shape[:2]
    layers = [
        f'<img class="an-image" alt="The image: {escape(analysis.upload.name)}" '
        f'width="{width}" height="{height}" '
        f'src="{picture_uri(pixels, PICTURE_SIDE, _PICTURE_QUALITY)}">'
    ]
    if analysis.heatmap is not None:
        layers.append(
            f'<img class="an-heat" alt="{_where(analysis)}" '
            f'src="{heat_uri(analysis.heatmap, HEAT_SIDE)}">'
        )
    layers += [_box(number, region, width, height) for number, region in enumerate(regions, 1)]
    return (
        f'<figure class="an-picture"><div class="an-layers" style="--ratio: {width / height:.5f}">'
        f"{''.join(layers)}</div>{_legend(analysis)}</figure>"
    )


def details_html(analysis: Analysis) -> str:
    """Regions, tags and the model's own words: what there is of them."""
    prediction = analysis.prediction
    parts = [_regions(prediction, analysis.upload.pixels)]
    if prediction.tags is not None:
        tags = ", ".join(map(escape, prediction.tags)) or "nothing"
        parts.append(f"<h2>Wrong with the image as a whole</h2><p>{tags}</p>")
    if prediction.explanation is not None:
        parts.append(_words(prediction.explanation))
    return f'<div class="an-details">{"".join(parts)}</div>' if any(parts) else ""


def _sentence(text: str) -> str:
    """One line that begins as given and ends with a full stop."""
    text = " ".join(text.split())
    return text if text.endswith((".", "?", "!")) else f"{text}."


def _meaning(
    prediction: Prediction, threshold: float, limits: tuple[float, float] | None
) -> str:  # fmt: skip
    """What a verdict means and what it does not, for people who do not know detectors."""
    hint = "Take it as a hint to look closer, not as proof: such models make mistakes."
    if limits is None:
        side = "at or above" if prediction.is_fake else "below"
        start = f"The probability is {side} {percent(threshold)}, where this model divides."
        doubt = " It was not calibrated, so numbers near that limit say little."
        return f"{start}{doubt} {hint}"
    low, high = map(percent, limits)
    if prediction.verdict == "uncertain":
        return (
            f"Between {low} and {high} this model does not decide. Treat the image as unchecked, "
            "and look for its source."
        )
    if prediction.verdict == "fake":
        return f"This model says so from {high} up. {hint}"
    return (
        f"Below {low} this model finds nothing. That does not make it a photograph: an edit may be "
        "too small, or of a kind that the model never met."
    )


def _scale(probability: float, threshold: float, limits: tuple[float, float] | None) -> str:
    low, high = limits or (threshold, threshold)
    between = "<span>not sure</span>" if high > low else ""
    return (
        f'<div class="an-scale" style="--low: {100 * low:.2f}%; --high: {100 * high:.2f}%" '
        f'aria-hidden="true"><div class="an-bar"><i style="left: {100 * probability:.2f}%"></i>'
        f'</div><div class="an-zones"><span>real</span>{between}<span>AI</span></div></div>'
    )


def _where(analysis: Analysis) -> str:
    """The heatmap in words, for those who cannot see it."""
    assert analysis.heatmap is not None
    assert analysis.method is not None
    height, width = analysis.heatmap.shape
    y, x = np.unravel_index(int(analysis.heatmap.argmax()), analysis.heatmap.shape)
    return (
        f"Heatmap, {LABELS[analysis.method]}: highest at {100 * (x + 0.5) / width:.0f} % from the "
        f"left and {100 * (y + 0.5) / height:.0f} % from the top"
    )


def _legend(analysis: Analysis) -> str:
    if analysis.method is None:
        return "<figcaption>This model has no heatmap.</figcaption>"
    if analysis.heatmap is None:
        return "<figcaption>No heatmap by this method.</figcaption>"
    peak = float(analysis.heatmap.max())
    scale = (
        "Stretched from 0 to 1 in each image, so two images cannot be compared."
        if scale_of(analysis.method) == "minmax"
        else f"Highest value here: {peak:.2f}."
    )
    return (
        '<figcaption><span class="an-ramp" aria-hidden="true"><span>0</span><i></i><span>1</span>'
        f"</span>{escape(METHODS[analysis.method])}. {scale}</figcaption>"
    )


def _box(number: int, region: Instance, width: int, height: int) -> str:
    left, top, right, bottom = region.box
    place = (
        f"left: {100 * left / width:.3f}%; top: {100 * top / height:.3f}%; "
        f"width: {100 * (right - left) / width:.3f}%; height: {100 * (bottom - top) / height:.3f}%"
    )
    return f'<div class="an-box" style="{place}; --color: {_color(region)}"><b>{number}</b></div>'


def _regions(prediction: Prediction, pixels: UInt8Array) -> str:
    """Table of regions; nothing of a model that finds none by design."""
    if prediction.mask is None and prediction.regions is None:
        return ""
    found = prediction.instances
    if not found:
        return "<h2>Regions</h2><p>The model marks no region.</p>"
    more = len(found) - MAX_REGIONS
    rows = "".join(
        _row(number, region, pixels) for number, region in enumerate(found[:MAX_REGIONS], 1)
    )
    rest = f"<p>{more} smaller ones are left out.</p>" if more > 0 else ""
    return (
        '<h2>Regions</h2><div class="an-table" tabindex="0" role="region" aria-label="Regions">'
        '<table><thead><tr><th scope="col">No.</th><th scope="col">What</th>'
        '<th scope="col">Size</th><th scope="col">Confidence</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>{rest}"
    )


def _row(number: int, region: Instance, pixels: UInt8Array) -> str:
    left, top, right, bottom = region.box
    share = percent(region.area / (pixels.shape[0] * pixels.shape[1]))
    category = _BY_LABEL.get(region.category)
    name = region.category if category is None else f"{category.short} ({category.level} level)"
    caption = "" if region.caption is None else f"<br>{escape(region.caption)}"
    return (
        f'<tr><td>{number}</td><td><i class="an-swatch" style="--color: {_color(region)}"></i>'
        f"{escape(name)}{caption}</td>"
        f"<td>{right - left} &times; {bottom - top} px<br>{share} of the image</td>"
        f"<td>{percent(region.confidence)}</td></tr>"
    )


def _color(region: Instance) -> str:
    category = _BY_LABEL.get(region.category)
    red, green, blue = COLORS[UNCATEGORIZED_BIT if category is None else category.bit]
    return f"#{red:02x}{green:02x}{blue:02x}"


def _words(rationale: Rationale) -> str:
    parts: Sequence[tuple[str, str]] = (
        ("What it shows", rationale.description),
        ("Where it looks wrong", rationale.regions),
        ("What is wrong", rationale.issues),
    )
    if not any(text for _, text in parts):
        parts = (("", rationale.text),)
    blocks = "".join(
        (f"<h3>{title}</h3>" if title else "") + f'<p class="an-words">{escape(text)}</p>'
        for title, text in parts
        if text
    )
    return f"<h2>In the model's words</h2>{blocks}"


def _warnings(warnings: Iterable[str]) -> str:
    lines = "".join(f"<li>{escape(_sentence(text))}</li>" for text in warnings)
    if not lines:
        return ""
    return f'<div class="an-warnings"><h2>Before you trust this</h2><ul>{lines}</ul></div>'
