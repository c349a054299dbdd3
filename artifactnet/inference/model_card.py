"""The card of a detector on the hub: what it is, its data, figures, limits, how to train it again.

All of it comes from the model and from the files of its runs. What came from data (names of
generators, warnings) is escaped, and of paths only the last part is shown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from artifactnet.config import Config, to_dict
from artifactnet.evaluation.tables import markdown_table, mean_spread
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.names import visible
from artifactnet.runs import run_folder
from artifactnet.taxonomy import AGNOSTIC
from artifactnet.types import ArtifactNetError

RESULTS = "results.json"  # in the folder of a run
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
# what marks up or links; not |, which `markdown_table` escapes
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#~&!@$^]|:(?=//)|(?<=www)\.)", re.IGNORECASE)
_FOLDERS = re.compile(r"(?<![\w/\\.:])(?:~|[A-Za-z]:)?(?:[/\\][^/\\\s'\"]+)*[/\\](?=[^/\\\s'\"]+)")
_VERDICT = {  # title -> field of the figures of all images
    "balanced accuracy": "balanced_accuracy",
    "precision": "precision",
    "recall (fakes called fake)": "recall",
    "real images called real": "real_accuracy",
    "F1": "f1",
    "AUC": "auc",
}
_REAL = {  # with three verdicts: title -> share
    "real images called fake, of three verdicts": "fake",
    "real images called uncertain": "uncertain",
}
_FAKE = {
    "fakes called real, of three verdicts": "real",
    "fakes called uncertain": "uncertain",
}
_PIXELS = ("IoU", "PixP", "PixR", "PixF1")
_SALIENCY = ("MSE", "KLD", "CC", "SIM", "AUC-Judd", "NSS")
_SCORES = ("PLCC", "SRCC")
# of a config: where things were on the machine, not what was learned
_MACHINE = {"name", "out", "resume", "overwrite", "data.workers", "distill.cache"}


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """What the folder of a run says about its training."""

    folder: Path
    config: Config
    results: dict[str, Any]
    data: dict[str, Any]
    starts: list[dict[str, Any]]  # provenance, one per start


def read_run(folder: str | Path) -> TrainedRun:
    """Read the folder of a finished run of a detector.

    Raises:
        ArtifactNetError: it is no such folder, or one of its files is missing or damaged.
    """
    folder, config = run_folder.find_run(folder)
    found = []
    for name in (RESULTS, run_folder.DATA, run_folder.PROVENANCE):
        try:
            found.append(json.loads((folder / name).read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise ArtifactNetError(
                f"{folder / name}: cannot be read ({error!s:.200}), so there are no results for a "
                "model card; finish the run with resume=true"
            ) from error
    return TrainedRun(folder, config, *found)


def check_seeds(runs: Sequence[TrainedRun]) -> None:
    """Raise ArtifactNetError unless the runs are one training with several seeds."""
    first = runs[0]
    for other in runs[1:]:
        changed = run_folder.changed_keys(first.config, other.config)
        changed = [text for text in changed if not text.startswith("seed was ")]
        if changed:
            raise ArtifactNetError(
                f"{other.folder}: not the training of {first.folder} with another seed: "
                f"{'; '.join(changed):.300}"
            )
        for key in ("data", "images"):
            if first.results[key] != other.results[key]:
                raise ArtifactNetError(
                    f"{other.folder / RESULTS}: not evaluated on the images of {first.folder}, so "
                    "there is no mean of their figures"
                )
    seeds = [run.config.seed for run in runs]
    if len(set(seeds)) < len(seeds):
        raise ArtifactNetError(f"the runs share a seed ({seeds}); name each one once")


def model_card(
    repository: str,
    model: ArtifactNet,
    runs: Sequence[TrainedRun] = (),
    *,
    licence: str | None = None,
    trained_on: str | None = None,
    title: str | None = None,
) -> str:
    """The ``README.md`` of a detector on the hub, with YAML front matter.

    Args:
        repository: ``OWNER/NAME``.
        model: as it is uploaded.
        runs: that which made the model, and the same training with other seeds (see
            `check_seeds`); none: the card says that there are no figures.
        licence: identifier of the hub, as ``apache-2.0``; None: the card says that none was stated.
        trained_on: the training data in a few words, where the model records them.
        title: of the page; None: the repository's name.

    Raises:
        ArtifactNetError: the licence is no identifier.
    """
    if licence is not None and not _LICENCE.fullmatch(licence):
        raise ArtifactNetError(
            f"licence {licence!r:.80} is not an identifier of the hub, such as apache-2.0, mit, "
            "cc-by-nc-4.0 or other"
        )
    front = {
        "library_name": "artifactnet",
        "pipeline_tag": "image-classification",
        "tags": ["artifactnet", "ai-generated-image-detection", "image-forensics"],
    }
    if licence is not None:
        front["license"] = licence
    lines = [
        "---",
        *yaml.safe_dump(front, sort_keys=False).splitlines(),
        "---",
        "",
        f"# {plain(title or repository.partition('/')[2])}",
        "",
        *_what(model),
        *_warnings(model, runs),
        "## Use",
        "",
        "```python",
        "import artifactnet",
        "",
        f'model = artifactnet.load_model("hf:{repository}")',
        'prediction = model.predict("photo.jpg")',
        "print(prediction.probability, prediction.verdict)",
        "```",
        "",
        "## Training data",
        "",
        *_data(runs, trained_on),
        "## Figures",
        "",
        *(_figures(model, runs) if runs else [_NO_FIGURES, ""]),
        "## Limits",
        "",
        *_limits(model, runs),
        "",
        "## Licence",
        "",
        "The model's licence is " + plain(licence) + "." if licence else "No licence was stated.",
        "The images that it was trained on have licences of their own, not checked here.",
        "",
        "## Train it again",
        "",
        *_again(runs),
    ]
    return "\n".join(lines).rstrip() + "\n"


_NO_FIGURES = (
    "None: the model was uploaded without the results of a run. Evaluate it on your own images "
    "before you rely on it."
)


def plain(text: str) -> str:
    """Text from data on one line of Markdown, as itself: no link, markup, HTML or whole path."""
    return _MARKDOWN.sub(r"\\\1", visible(_FOLDERS.sub("", " ".join(text.split()))))


def _what(model: ArtifactNet) -> list[str]:
    config = model.config
    height, width = model.image_size
    parts = ["the probability that an image is AI-made"]
    if model.has_heatmap or model.has_attention:
        parts.append("a heatmap of where it looks wrong")
    if model.has_segmentation:
        parts.append(f"masks of {len(model.known_categories)} categories of artifacts")
    verdict = f"called fake from a probability of {config.threshold:g}"
    if config.limits is not None:
        low, high = config.limits
        verdict = f"called fake from a probability of {high:g}, real below {low:g}, else uncertain"
    count = sum(parameter.numel() for parameter in model.parameters())
    return [
        f"A detector of ArtifactNet: {_listed(parts)}. "
        f"Backbone {plain(config.backbone)}, {count:,} parameters; it sees images at "
        f"{height} x {width} pixels ({plain(config.resize)}). An image is {verdict}.",
        "",
    ]


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _warnings(model: ArtifactNet, runs: Sequence[TrainedRun]) -> list[str]:
    texts = list(model.notices)
    for run in runs:
        texts += [*run.results["notices"], *run.results["data_warnings"]]
    return [line for text in dict.fromkeys(texts) for line in (f"> **Warning:** {plain(text)}", "")]


def _data(runs: Sequence[TrainedRun], trained_on: str | None) -> list[str]:
    if not runs:
        return [plain(trained_on) if trained_on else "Not stated.", ""]
    config, splits = runs[0].config.data, runs[0].data["splits"]
    root = f", {plain(Path(config.root).name)}" if config.root else ""
    rows = [
        (
            name,
            str(split["images"]),
            *(str(split["class"].get(kind, 0)) for kind in ("real", "fake")),
            str(split["annotation"].get("mask", 0)),
            ", ".join(
                f"{plain(generator)} {count}"
                for generator, count in split["generator"].items()
                if generator != "real"
            ),
        )
        for name, split in splits.items()
    ]
    header = ("split", "images", "real", "fake", "with marked artifacts", "generators")
    seeds = "; other seeds may draw other splits" if len(runs) > 1 else ""
    return [
        *([plain(trained_on), ""] if trained_on else []),
        f"Data source {plain(config.name)}{root} (seed {runs[0].config.seed}{seeds}).",
        "",
        *markdown_table(header, rows),
        "",
    ]


def _figures(model: ArtifactNet, runs: Sequence[TrainedRun]) -> list[str]:
    results = [run.results for run in runs]
    first = results[0]
    seeds = ", ".join(str(run.config.seed) for run in runs)
    spread = (
        f"Mean and sample standard deviation of {len(runs)} trainings with the seeds {seeds}; the "
        f"uploaded model is that of seed {runs[0].config.seed}."
        if len(runs) > 1
        else f"Of one training (seed {seeds}), so how much they vary between seeds is not known."
    )
    where = (
        "all images" if first["data"]["split"] == "all" else f"the {first['data']['split']} split"
    )
    scores = first["authenticity"]["all"]
    lines = [
        f"{spread} On {where}: {scores['real']} real images and {scores['fake']} fakes; called "
        f"fake from a probability of {first['threshold']:g}.",
        "",
    ]
    if first["threshold"] != model.config.threshold:
        lines += [
            f"**The uploaded model calls images fake from {model.config.threshold:g}**: of these "
            "figures, only AUC and those of the heatmap are its own.",
            "",
        ]
    rows = [
        *_rows(results, _VERDICT, "authenticity", "all"),
        *_rows(results, _REAL, "verdicts", "real"),
        *_rows(results, _FAKE, "verdicts", "fake"),
        *_rows(results, {f"heatmap {k}": k for k in _PIXELS}, "heatmap"),
        *_rows(results, {f"masks {k}": k for k in _PIXELS}, "masks", "all", AGNOSTIC),
        *_rows(results, {f"heatmap {k}": k for k in _SALIENCY}, "saliency"),
        *_rows(results, {f"score {k}": k for k in _SCORES}, "scores"),
    ]
    lines += [*markdown_table(("figure", "value"), rows), ""]
    generators = [
        (
            plain(name),
            str(row["fake"]),
            _cell([r["authenticity"]["generators"].get(name, {}).get("recall") for r in results]),
        )
        for name, row in first["authenticity"]["generators"].items()
        if row["fake"]
    ]
    if generators:
        lines += [*markdown_table(("generator", "fakes", "called fake"), generators), ""]
    if first["heatmap"] or first["masks"]:
        lines += [
            "IoU, PixP, PixR and PixF1 are over all pixels of the annotated fakes at the model's "
            f"size; a pixel is called artifact above {first['map_threshold']:g}.",
            "",
        ]
    return lines


def _group(results: dict[str, Any], *keys: str) -> dict[str, Any] | None:
    """Nested figures; None where the model or the data has none."""
    found: dict[str, Any] | None = results
    for key in keys:
        found = None if found is None else found.get(key)
    return found


def _rows(
    results: Sequence[dict[str, Any]], fields: dict[str, str], *keys: str
) -> list[tuple[str, str]]:
    """Title and value of the figures below ``keys`` that all results have."""
    found = [_group(result, *keys) or {} for result in results]
    rows = [(title, _cell([each.get(field) for each in found])) for title, field in fields.items()]
    return [row for row in rows if row[1] != "-"]


def _cell(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return mean_spread(known, 4) if len(known) == len(values) else "-"


def _limits(model: ArtifactNet, runs: Sequence[TrainedRun]) -> list[str]:
    height, width = model.image_size
    lines = ["- A probability is no proof: let people look before anything follows from it."]
    if runs:
        scores = [run.results["authenticity"]["all"] for run in runs]
        if scores[0]["real"] and scores[0]["fake"]:
            alarms = _cell([1 - row["real_accuracy"] for row in scores])
            missed = _cell([1 - row["recall"] for row in scores])
            lines.append(
                f"- Measured as above, a share of {alarms} of real images is called fake and "
                f"{missed} of fakes are missed; on other images expect more of both."
            )
        lines.append(
            "- The figures are of the generators named here, in the files of this data: others, "
            "and images that were compressed, resized or edited afterwards, were not measured."
        )
        if len(runs) == 1:
            lines.append("- One training: a difference to another model may be chance.")
        if not (runs[0].results["heatmap"] or runs[0].results["masks"]):
            lines.append("- How well it finds artifacts was not measured.")
    lines.append(
        f"- It sees an image at {height} x {width} pixels, and nothing that is lost at that size."
    )
    return lines


def _again(runs: Sequence[TrainedRun]) -> list[str]:
    if not runs:
        return ["How it was trained was not recorded with it.", ""]
    run = runs[0]
    start = run.starts[-1]
    packages = ", ".join(
        f"{name} {number}" for name, number in start["packages"].items() if number is not None
    )
    recipe = yaml.safe_dump(_recipe(run.config), sort_keys=False)
    fence = "`" * (3 + max((len(found) for found in re.findall("`+", recipe)), default=0))
    commands = [f"artifactnet train train.yaml seed={r.config.seed}" for r in runs]
    git = start.get("git")
    changed = " with local changes" if git and git["dirty"] else ""
    revision = f", revision {git['revision']:.40}{changed}" if git else ""
    return [
        "Save this as `train.yaml`; keys not named here have their defaults. Paths are shortened "
        "to their last part: put in your own.",
        "",
        f"{fence}yaml",
        *recipe.splitlines(),
        fence,
        "",
        "```bash",
        *commands,
        "```",
        "",
        f"Trained with Python {plain(start['python'])}, {plain(packages)}{plain(revision)} on "
        f"{plain(start['device'])}; this card was written by ArtifactNet {version('artifactnet')}.",
        "",
    ]


def _recipe(config: Config) -> dict[str, Any]:
    """The keys of a config that differ from the defaults, nested; the seed is left out."""
    values, defaults = (run_folder.flatten_keys(to_dict(c)) for c in (config, Config()))
    found: dict[str, Any] = {}
    for key, value in values.items():
        if key in _MACHINE or key == "seed" or (key in defaults and defaults[key] == value):
            continue
        *groups, last = key.split(".")
        place = found
        for group in groups:
            place = place.setdefault(group, {})
        place[last] = _shortened(value)
    return found


def _shortened(value: Any) -> Any:
    """A path of this machine as its last part."""
    if isinstance(value, list):
        return [_shortened(each) for each in value]
    if isinstance(value, str) and (Path(value).is_absolute() or value.startswith("~")):
        return Path(value).name
    return value
