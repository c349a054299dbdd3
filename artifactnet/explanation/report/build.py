"""Writing a report: one HTML file, and the same figures as JSON and PNG."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from artifactnet import files
from artifactnet.explanation.detector import Detector, OwnDetector, as_detector
from artifactnet.explanation.explainer import Explainer, Options, Predicted
from artifactnet.explanation.methods import METHODS, PREDICTED, default_method, scale_of, why_not
from artifactnet.explanation.report.charts import CHART_NAMES, Chart, draw_charts
from artifactnet.explanation.report.content import (
    LABELS,
    MAP_THRESHOLD,
    Content,
    Explains,
    Item,
    gather,
    spread,
)
from artifactnet.explanation.report.page import write_page
from artifactnet.explanation.report.summary import CATEGORY_NAMES, summarize
from artifactnet.inference.inputs import Failure
from artifactnet.inference.predictor import Predictor, PredictorLike
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.taxonomy import CATEGORIES, UNCATEGORIZED, UNCATEGORIZED_COLOR
from artifactnet.types import ArtifactNetError

HTML, JSON, FIGURES = "report.html", "report.json", "figures"


@dataclass(frozen=True, slots=True)
class About:
    """What a report is about, for its head.

    Attributes:
        title: of the page; None makes one.
        model: what the model is called; None: its backbone.
        data: what the images are called.
        split: of the data; None where it has none.
        warnings: what must be known about model and data before trusting the report.
    """

    title: str | None = None
    model: str | None = None
    data: str = "images"
    split: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReportResult:
    """What was written.

    Attributes:
        html: the report.
        json: the same without pictures.
        pngs: its charts.
        images: number of images in it.
        of: number of images there were.
        called_fake: how many of ``images`` were called fake.
        failures: images that could not be read or explained, and inputs that stand for none.
    """

    html: Path
    json: Path
    pngs: tuple[Path, ...]
    images: int
    of: int
    called_fake: int
    failures: tuple[Failure, ...]


def report(
    model: Detector | ArtifactNet | Predictor | PredictorLike,
    images: Iterable[Item | Failure],
    out: str | Path,
    *,
    methods: Sequence[str] | None = None,
    limit: int = 500,
    about: About = About(),
    options: Options | None = None,
) -> ReportResult:
    """Write ``report.html``, ``report.json`` and ``figures/*.png``, each of them atomically.

    Args:
        model: one of ours, a `Classifier` around any torch or timm classifier, or anything else
            that answers as a `Predictor` does: its own heatmap, score and explanation are shown.
        images: what is to be looked at (see `artifactnet.explanation.report.content`), and inputs
            that could not be found, which the report lists.
        out: folder to write to; an older report in it is replaced.
        methods: of explanation; None: a predicted heatmap and the paper's choice, where possible.
        limit: of more images than this, so many are taken, evenly spread.
        about: names and warnings for the head.
        options: how maps are made, None as by default; ``batch_size`` images are in memory
            together.

    Raises:
        ArtifactNetError: a method cannot serve this model, ``limit`` is below 1, or ``out`` cannot
            be written; an older report is untouched then.
    """
    if limit < 1:
        raise ArtifactNetError(f"limit must be 1 or more, not {limit}")
    options = options or Options()
    explainer = _explainer(model, methods, options)
    folder = _folder(out)  # fails now rather than after the work
    everything = list(images)
    items = [item for item in everything if isinstance(item, Item)]
    chosen = spread(items, limit)
    content = gather(explainer, chosen, options.batch_size)
    content.failures[:0] = [item for item in everything if isinstance(item, Failure)]
    summary = summarize(content.facts, explainer.methods)
    charts, left_out = draw_charts(summary)
    notices = _notices(content, len(chosen), len(items)) + left_out
    head = {
        **_head(explainer, content, len(items), about),
        "notices": notices,
        "summary": summary,
        "failures": _failures(content),
    }
    try:
        pngs = _write(folder, head, charts, content)
    except OSError as error:
        raise ArtifactNetError(f"{folder}: the report cannot be written: {error}") from error
    return ReportResult(
        folder / HTML,
        folder / JSON,
        pngs,
        len(content.entries),
        len(items),
        summary["called_fake"],
        tuple(content.failures),
    )


def _explainer(
    model: Detector | ArtifactNet | Predictor | PredictorLike,
    methods: Sequence[str] | None,
    options: Options,
) -> Explains:
    if isinstance(model, PredictorLike) and not isinstance(model, Predictor):
        return Predicted(model, methods, options.batch_size)
    detector = as_detector(model)
    return Explainer(detector, methods or _methods(detector), options)


def _methods(detector: Detector) -> list[str] | None:
    """What a report shows unless somebody chooses; None leaves the choice to the explainer."""
    if why_not(detector, [PREDICTED])[PREDICTED] is not None:
        return None
    usual = default_method(detector)
    return [PREDICTED, *(name for name, no in why_not(detector, [usual]).items() if no is None)]


def _folder(out: str | Path) -> Path:
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtifactNetError(f"{folder}: no folder for the report: {error}") from error
    return folder


def _head(explainer: Explains, content: Content, total: int, about: About) -> dict[str, Any]:
    """What concerns the whole report, but for its figures, notices and failures."""
    model = _model(explainer.detector, about)
    return {
        "title": about.title or f"{model['name']} on {about.data}",
        "created": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "version": _version(),
        "model": model,
        "data": {
            "name": about.data,
            "split": about.split,
            "images": len(content.entries),
            "of": total,
            "labelled": any(entry["label"] is not None for entry in content.entries),
        },
        "warnings": list(dict.fromkeys((*explainer.detector.warnings, *about.warnings))),
        "methods": [
            {
                "name": name,
                "label": LABELS.get(name, name),
                "scale": scale_of(name),
                "description": METHODS[name],
            }
            for name in explainer.methods
        ],
        "categories": _categories(),
    }


def _notices(content: Content, chosen: int, total: int) -> list[str]:
    """What a reader should know of how the images came together."""
    notices = []
    if chosen < total:
        notices.append(
            f"{chosen} of {total} images were taken, evenly spread over the data; the figures are "
            "those of these images."
        )
    if content.entries and all(entry["label"] is None for entry in content.entries):
        notices.append("Nobody said which images are fake: no verdict is called right or wrong.")
    return notices


def _model(detector: Detector | PredictorLike, about: About) -> dict[str, Any]:
    map_threshold = MAP_THRESHOLD
    if isinstance(detector, OwnDetector):
        config = detector.model.config
        backbone, map_threshold = config.backbone, config.map_threshold
    elif isinstance(detector, PredictorLike):
        backbone = about.model or type(detector).__name__  # what it is made of is its own affair
    else:
        backbone = type(detector.net).__name__
    return {
        "name": about.model or backbone,
        "backbone": backbone,
        "threshold": detector.threshold,
        "map_threshold": map_threshold,
    }


def _version() -> str:
    try:
        return version("artifactnet")
    except PackageNotFoundError:  # a checkout that was never installed
        return "of unknown version"


def _categories() -> list[dict[str, str]]:
    colors = {category.label: category.color for category in CATEGORIES}
    colors[UNCATEGORIZED] = UNCATEGORIZED_COLOR
    return [
        {"label": label, "name": name, "color": "#{:02x}{:02x}{:02x}".format(*colors[label])}
        for label, name in CATEGORY_NAMES.items()
    ]


def _failures(content: Content) -> list[dict[str, str]]:
    return [{"name": failure.path, "reason": failure.reason} for failure in content.failures]


def _write(
    folder: Path, head: dict[str, Any], charts: Sequence[Chart], content: Content
) -> tuple[Path, ...]:
    """All files; charts of an older report that this one does not have are removed."""
    pngs = {chart.name: folder / FIGURES / f"{chart.name}.png" for chart in charts}
    for chart in charts:
        with files.atomic_path(pngs[chart.name]) as temporary:
            temporary.write_bytes(chart.png)
    for name in CHART_NAMES:
        if name not in pngs:
            (folder / FIGURES / f"{name}.png").unlink(missing_ok=True)
    texts = [{"name": c.name, "title": c.title, "description": c.description} for c in charts]
    entries = [
        {key: value for key, value in entry.items() if key not in ("thumb", "layers")}
        for entry in content.entries
    ]
    listed = [{**text, "file": f"{FIGURES}/{text['name']}.png"} for text in texts]
    files.write_json(folder / JSON, {**head, "charts": listed, "entries": entries})
    drawn = [{**text, "svg": chart.svg} for text, chart in zip(texts, charts, strict=True)]
    write_page(folder / HTML, {**head, "charts": drawn}, content.entries)
    return tuple(pngs.values())
