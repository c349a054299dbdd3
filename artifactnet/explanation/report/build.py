"""A report: one HTML page of verdicts and maps, and the same figures as JSON and PNG.

`report` opens the model and the images that a command line names; `write_report` takes them as
objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifactnet import files
from artifactnet.config import load
from artifactnet.data.image_files import Skipped
from artifactnet.explanation.detector import Detector, OwnDetector, as_detector
from artifactnet.explanation.explainer import Explainer
from artifactnet.explanation.methods import METHODS, PREDICTED, default_method, scale_of, why_not
from artifactnet.explanation.predicted import PredictionExplainer
from artifactnet.explanation.report.charts import CHART_NAMES, Chart, draw_charts
from artifactnet.explanation.report.content import LABELS, MAP_THRESHOLD, Content, gather_content
from artifactnet.explanation.report.html import made
from artifactnet.explanation.report.items import Item, file_items, record_items, spread_evenly
from artifactnet.explanation.report.page import write_page
from artifactnet.explanation.report.summary import CATEGORY_NAMES, summarize
from artifactnet.inference.base import BasePredictor
from artifactnet.inference.inputs import Failure
from artifactnet.inference.load import LANGUAGE_MODELS, find_model, load_model
from artifactnet.inference.predictor import Predictor
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.taxonomy import CATEGORIES, UNCATEGORIZED, UNCATEGORIZED_COLOR
from artifactnet.types import ArtifactNetError

HTML, JSON, FIGURES = "report.html", "report.json", "figures"
_STAGING = "report.partial"  # folder of temporary files


@dataclass(frozen=True, slots=True)
class About:
    """Names and warnings for the head of a report."""

    title: str | None = None  # of the page; None: of model and data
    model: str | None = None  # None: its backbone
    data: str = "images"
    split: str | None = None
    warnings: tuple[str, ...] = ()  # about model and data


@dataclass(frozen=True, slots=True)
class ReportResult:
    """Files and counts of a report."""

    html: Path
    json: Path  # the same without pictures
    pngs: tuple[Path, ...]  # its charts
    images: int  # in the report
    of: int  # found
    called_fake: int  # of ``images``; implausible if that is what the model judges
    uncertain: int  # of ``images``
    failures: tuple[Failure, ...]  # not read or explained, and inputs without images
    warnings: tuple[str, ...]  # about model and data
    judges: str  # what its verdicts are about: authenticity or plausibility


def report(
    source: str | Path,
    images: Sequence[str | Path] = (),
    out: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    methods: Sequence[str] | None = None,
    limit: int = 500,
    title: str | None = None,
    text: str | None = None,
    device: str | None = None,
    batch_size: int | None = None,
    window: int = 224,
    stride: int = 224,
    levels: int | None = None,
) -> ReportResult:
    """Write a report on files, or on the test images of a run with their annotation.

    Args:
        source: the folder of a run; with ``images`` any model that `load_model` opens.
        images: files, folders (searched recursively), X-AIGD parquet shards and patterns; none:
            the run's test images.
        out: folder to write to; None: ``report`` in the model's folder, or in the current one for
            a packaged model. An older report in it is replaced.
        overrides: ``dotted.key=value`` strings, without ``images``: ``data.*``, ``train.device``,
            and of a detector ``model.threshold``.
        title: of the page; None: names of model and data.
        text: of a HEIE on a language model, see `load_model`.
        device: see `load_model`; None: ``auto``, or the run's ``train.device``.
        methods, limit, batch_size, window, stride: see `write_report`.
        levels: the value of white in ``images`` of more than 8 bits, where it is not evident; for
            the images of a run, ``data.levels`` says it.

    Raises:
        ArtifactNetError: no such model or run, an option that it does not support, data that cannot
            be used, or any error of `write_report`.
    """
    kind, path = find_model(source)
    predictor: BasePredictor
    items: Iterable[Item | Failure]
    folder = path if path.is_dir() else path.parent
    packaged = not Path(source).exists()
    if levels is not None and not images:
        raise ArtifactNetError(
            f"levels={levels} is for images that are given; for those of a run use data.levels"
        )
    if images:
        if overrides:
            raise ArtifactNetError(
                f"{overrides[0]} changes the data of the run, but images are given instead of it"
            )
        predictor = load_model(source, device or "auto", text=text)
        out = out or (Path("report") if packaged else folder / "report")
        skipped = Skipped()
        items = file_items(images, out, skipped, levels)
        data = ", ".join(Path(image).name or str(image) for image in images[:3])
        data += f" and {len(images) - 3} more" if len(images) > 3 else ""
        name = str(source) if packaged else folder.resolve().name
        about = About(title, name, data, None, (*predictor.warnings, *skipped.describe(data)))
    elif kind in LANGUAGE_MODELS:
        predictor, items, about = _open_language_run(path, overrides, title, text, device)
    else:
        if text is not None:
            raise ArtifactNetError(f"{source}: text={text} is for a HEIE on a language model only")
        from artifactnet.evaluation.samples import open_samples

        moved = [f"train.device={device}"] if device else []
        run = open_samples(source, [*overrides, *moved])
        predictor, folder = Predictor(run.model), run.folder
        items = record_items(run.records, run.load)
        about = About(title, run.name, run.config.data.name, run.split, run.warnings)
    return write_report(
        predictor,
        items,
        out or folder / "report",
        methods=methods,
        limit=limit,
        about=about,
        batch_size=batch_size,
        window=window,
        stride=stride,
    )


def _open_language_run(
    folder: Path, overrides: Sequence[str], title: str | None, text: str | None, device: str | None
) -> tuple[BasePredictor, list[Item], About]:
    """Model and test images of a run that trained a model on a language model."""
    from artifactnet.data.datamodule import drop_and_summarize
    from artifactnet.evaluation.samples import VALIDATION_ONLY, evaluated_split
    from artifactnet.evaluation.selection import select_images
    from artifactnet.runs.run_folder import CONFIG

    if not (folder / CONFIG).is_file():
        raise ArtifactNetError(
            f"{folder}: without the {CONFIG} of its run the test images are unknown; give --images"
        )
    for override in overrides:
        if not override.startswith(("data.", "train.device=")):
            key = override.partition("=")[0]
            raise ArtifactNetError(
                f"{key} cannot be changed for a report of a HEIE or FakeXplainer, only data.* "
                "and train.device"
            )
    config = load(folder / CONFIG, ["data.check=counts", *overrides])
    predictor = load_model(folder, device or config.train.device, text=text)
    selection = select_images(config, load(folder / CONFIG), overrides)
    splits, summary = drop_and_summarize(selection.splits, config.data)
    split = evaluated_split(splits)
    warnings = [*summary["warnings"], *selection.warnings]
    warnings += [VALIDATION_ONLY] if split == "val" else []
    items = record_items(splits[split].records, splits[split].load)
    about = About(title, config.name, config.data.name, selection.name or split, tuple(warnings))
    return predictor, items, about


def write_report(
    model: Detector | ArtifactNet | BasePredictor,
    images: Iterable[Item | Failure],
    out: str | Path,
    *,
    methods: Sequence[str] | None = None,
    limit: int = 500,
    about: About = About(),
    batch_size: int | None = None,
    window: int = 224,
    stride: int = 224,
) -> ReportResult:
    """Write ``report.html``, ``report.json`` and ``figures/*.png``, each of them atomically.

    Args:
        model: one of ours, a `Classifier` around any torch or timm classifier, or any other
            predictor, whose own heatmap, score and explanation are shown.
        images: see `artifactnet.explanation.report.items`; failures are listed in the report.
        out: folder to write to; an older report in it is replaced.
        methods: of explanation; None: a predicted heatmap and the paper's choice, where possible.
        limit: at most this many images are taken, evenly spread.
        about: names and warnings for the head.
        batch_size: images in memory, and per forward pass; None: the predictor's default, or 8.
        window, stride: see `artifactnet.explanation.explainer.Explainer`.

    Raises:
        ArtifactNetError: an unsupported method, ``limit`` below 1, or ``out`` cannot be written; an
            older report is untouched then.
    """
    if limit < 1:
        raise ArtifactNetError(f"limit must be 1 or more, not {limit}")
    if batch_size is None:
        batch_size = model.default_batch_size if isinstance(model, BasePredictor) else 8
    explainer: Explainer | PredictionExplainer
    if isinstance(model, BasePredictor) and not isinstance(model, Predictor):
        explainer = PredictionExplainer(model, methods, batch_size)
    else:
        detector = as_detector(model)
        methods = methods or _default_methods(detector)
        options = {"batch_size": batch_size, "window": window, "stride": stride}
        explainer = Explainer(detector, methods, **options)
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)  # before the work
    except OSError as error:
        raise ArtifactNetError(f"{folder}: no folder for the report: {error}") from error
    everything = list(images)
    items = [item for item in everything if isinstance(item, Item)]
    chosen = spread_evenly(items, limit)
    content = gather_content(explainer, chosen, batch_size)
    content.failures[:0] = [item for item in everything if isinstance(item, Failure)]
    judge = explainer.detector
    plausibility = isinstance(judge, BasePredictor) and judge.judges_plausibility
    summary = summarize(content.facts, explainer.methods, plausibility)
    charts, left_out = draw_charts(summary)
    notices = []
    if len(chosen) < len(items):
        notices.append(
            f"{len(chosen)} of {len(items)} images were taken, evenly spread over the data; all "
            "figures are for these images."
        )
    if content.entries and all(entry["label"] is None for entry in content.entries):
        notices.append("The images have no labels: no verdict is called right or wrong.")
    head = _head(explainer, content, len(items), about)
    head |= {"notices": notices + left_out, "summary": summary}
    head["failures"] = [{"name": f.path, "reason": f.reason} for f in content.failures]
    try:
        with files.staging_folder(folder / _STAGING) as staging:
            pngs = _write(folder, head, charts, content, staging)
    except OSError as error:
        raise ArtifactNetError(f"{folder}: the report cannot be written: {error}") from error
    counts = summary["images"], len(items), summary["called_fake"], summary["called_uncertain"]
    failures, warnings = tuple(content.failures), tuple(head["warnings"])
    html, json = folder / HTML, folder / JSON
    return ReportResult(html, json, pngs, *counts, failures, warnings, summary["judges"])


def _default_methods(detector: Detector) -> list[str] | None:
    """The default of a report; None leaves the choice to the explainer."""
    if why_not(detector, [PREDICTED])[PREDICTED] is not None:
        return None
    usual = default_method(detector)
    return [PREDICTED, *(name for name, no in why_not(detector, [usual]).items() if no is None)]


def _head(
    explainer: Explainer | PredictionExplainer, content: Content, total: int, about: About
) -> dict[str, Any]:
    """The head of the report without figures, notices and failures."""
    detector = explainer.detector
    map_threshold = MAP_THRESHOLD
    if isinstance(detector, OwnDetector):
        config = detector.model.config
        backbone, map_threshold = config.backbone, config.map_threshold
    elif isinstance(detector, BasePredictor):
        backbone = about.model or type(detector).__name__
    else:
        backbone = type(detector.net).__name__
    name = about.model or backbone
    colors = {category.label: category.color for category in CATEGORIES}
    colors[UNCATEGORIZED] = UNCATEGORIZED_COLOR
    return {
        "title": about.title or f"{name} on {about.data}",
        **made(),
        "model": {
            "name": name,
            "backbone": backbone,
            "threshold": detector.threshold,
            "limits": None if detector.limits is None else list(detector.limits),
            "map_threshold": map_threshold,
        },
        "data": {
            "name": about.data,
            "split": about.split,
            "images": len(content.entries),
            "of": total,
            "labelled": any(entry["label"] is not None for entry in content.entries),
        },
        "warnings": list(dict.fromkeys((*detector.warnings, *about.warnings))),
        "methods": [
            {
                "name": method,
                "label": LABELS.get(method, method),
                "scale": scale_of(method),
                "description": METHODS[method],
            }
            for method in explainer.methods
        ],
        "categories": [
            {"label": label, "name": short, "color": "#{:02x}{:02x}{:02x}".format(*colors[label])}
            for label, short in CATEGORY_NAMES.items()
        ],
    }


def _write(
    folder: Path, head: dict[str, Any], charts: Sequence[Chart], content: Content, staging: Path
) -> tuple[Path, ...]:
    """Write all files; remove charts of an older report that this one does not have."""
    pngs = {chart.name: folder / FIGURES / f"{chart.name}.png" for chart in charts}
    for chart in charts:
        with files.atomic_path(pngs[chart.name], staging) as temporary:
            temporary.write_bytes(chart.png)
    for name in CHART_NAMES:
        if name not in pngs:
            (folder / FIGURES / f"{name}.png").unlink(missing_ok=True)
    texts = [{"name": c.name, "title": c.title, "description": c.description} for c in charts]
    pictures = ("thumb", "layers")
    entries = [{k: e[k] for k in e if k not in pictures} for e in content.entries]
    listed = [{**text, "file": f"{FIGURES}/{text['name']}.png"} for text in texts]
    files.write_json(folder / JSON, {**head, "charts": listed, "entries": entries}, staging)
    drawn = [{**text, "svg": chart.svg} for text, chart in zip(texts, charts, strict=True)]
    write_page(folder / HTML, {**head, "charts": drawn}, content.entries, staging)
    return tuple(pngs.values())
