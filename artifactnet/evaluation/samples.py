"""A trained run with its data, opened again: to be evaluated, or looked at image by image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifactnet.config import Config, ConfigError, ModelConfig, load
from artifactnet.data.datamodule import DataModule
from artifactnet.data.sources.base import Splits
from artifactnet.data.transforms import Preprocess
from artifactnet.evaluation.selection import Selection, select_images
from artifactnet.inference.preprocessing import preprocess_of
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.models.checkpoint import load_checkpoint
from artifactnet.models.metadata import read_metadata
from artifactnet.runs import run_folder
from artifactnet.runs.device import choose_device
from artifactnet.types import ArtifactNetError, Record, Sample

# what may differ from the run; everything else belongs to the trained model
ALLOWED = ("data.", "train.device", "model.threshold", "model.map_threshold")
VALIDATION_ONLY = (
    "this data has no test split: the figures are of the validation images, on which the model "
    "was chosen"
)


@dataclass(frozen=True, slots=True)
class OpenedRun:
    """A run's best model and the data to evaluate it on.

    Attributes:
        own: the run's config; ``config`` has the overrides too.
        model: on its device, with the config's thresholds.
        epoch: epochs of training that the model has seen.
        data: with the model's preprocessing.
    """

    folder: Path
    own: Config
    config: Config
    model: ArtifactNet
    epoch: int
    data: DataModule


@dataclass(frozen=True, slots=True)
class RunSamples:
    """The images of a run's test split, or of other data, decoded one by one.

    See `artifactnet.evaluation.selection`.

    Attributes:
        model: the run's best model.
        config: its config with the overrides.
        records: one per image.
        load: decodes the image of a position in ``records``; raises `ArtifactNetError` if it cannot
            be used.
        warnings: what must be known about model and data.
    """

    model: ArtifactNet
    config: Config
    folder: Path
    name: str
    split: str
    records: Sequence[Record]
    load: Callable[[int], Sample]
    warnings: tuple[str, ...]

    def each(self) -> Iterator[tuple[str, Sample | ArtifactNetError]]:
        """Where every image lives, and the image, or why it cannot be used; one at a time."""
        for index, record in enumerate(self.records):
            try:
                yield record.location, self.load(index)
            except ArtifactNetError as error:
                yield record.location, error


def check_overrides(overrides: Sequence[str], allowed: tuple[str, ...]) -> None:
    """Raise `ConfigError` for the first override that does not begin as ``allowed``."""
    for override in overrides:
        if not override.startswith(allowed):
            raise ConfigError(
                f"command line: {override.partition('=')[0]} cannot be changed for an "
                f"evaluation; what can: {', '.join(allowed)}"
            )


def open_run(
    run_dir: str | Path, overrides: Sequence[str] = (), allowed: tuple[str, ...] = ALLOWED
) -> OpenedRun:
    """Load a run's best model and its data, or other data.

    Raises:
        ArtifactNetError: no such run, an override that is not ``allowed``, or unusable data.
    """
    check_overrides(overrides, allowed)
    folder, own = run_folder.find_run(run_dir)
    config = load(folder / run_folder.CONFIG, overrides)
    model = load_checkpoint(folder / run_folder.BEST, choose_device(config.train.device))
    set_thresholds(model.config, [config.model, own.model], overrides)
    epoch = read_metadata(folder / run_folder.BEST)["extra"]["epoch"]
    data = open_data(config, preprocess_of(model), own, overrides)
    return OpenedRun(folder, own, config, model, epoch, data)


def set_thresholds(
    model: ModelConfig, configs: Sequence[ModelConfig], overrides: Sequence[str]
) -> None:
    """Give a model the thresholds that overrides name; ``configs`` take over its others.

    The model's own may differ from its run's: `artifactnet.evaluation.calibrate` may move them.
    A threshold that is named separates fake from real at once: the model's two limits do not hold.
    """
    for key in ("threshold", "map_threshold"):
        if any(text.startswith(f"model.{key}=") for text in overrides):
            setattr(model, key, getattr(configs[0], key))
            if key == "threshold":
                model.fake_from = model.real_below = None
        else:
            for config in configs:
                setattr(config, key, getattr(model, key))


def open_samples(run_dir: str | Path, overrides: Sequence[str] = ()) -> RunSamples:
    """The test images of a run, or of other data, with its model; see `open_run`.

    The data is counted but no file is opened to check it (``data.check=counts``), unless an
    override says otherwise: that was done before training, and costs more than a short report.
    """
    run = open_run(run_dir, ["data.check=counts", *overrides])
    split = evaluated_split(run.data.splits)
    source = run.data.splits[split]
    warnings = (*run.model.notices, *data_warnings(run.data.summary, split, ()))
    return RunSamples(
        run.model,
        run.config,
        run.folder,
        run.config.name,
        run.data.summary.get("evaluated", split),
        source.records,
        source.load,
        warnings,
    )


def open_data(
    config: Config, preprocess: Preprocess, own: Config | None, overrides: Sequence[str]
) -> DataModule:
    """The data of an evaluation; arguments and errors as of `select_images`."""
    selection = select_images(config, own, overrides)
    data = DataModule(config.data, preprocess, config.seed, selection.splits)
    note_selection(data.summary, selection)
    return data


def note_selection(summary: dict[str, Any], selection: Selection) -> None:
    """Add to a summary of the data which of its images are evaluated."""
    if selection.name is not None:
        summary["evaluated"] = selection.name
    summary["warnings"] += selection.warnings


def describe_data(config: Config, summary: dict[str, Any], split: str) -> dict[str, Any]:
    """What results record of their data; ``split`` may be ``all``."""
    name = summary.get("evaluated", split)
    return {"name": config.data.name, "root": config.data.root, "split": name}


def evaluated_split(splits: Splits) -> str:
    """``test``, or ``val`` where there is no test image."""
    return "test" if "test" in splits and splits["test"].records else "val"


def data_warnings(summary: dict[str, Any], split: str, skipped: Sequence[str]) -> list[str]:
    """What must be known about the evaluated images of a split before trusting any figure."""
    warnings = list(summary["warnings"])
    if split == "val":
        warnings.append(VALIDATION_ONLY)
    if skipped:
        warnings.append(f"{len(skipped)} images were skipped (data.on_error=skip)")
    return warnings
