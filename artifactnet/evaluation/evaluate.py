"""Figures of a detector: of a run on its own or other data, or of a model that is a file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

from artifactnet.config import Config, load, to_dict
from artifactnet.data.datamodule import DataModule
from artifactnet.data.transforms import Example, Preprocess
from artifactnet.distillation.distill import attach_teacher_labels
from artifactnet.evaluation import results
from artifactnet.evaluation.figures import Figures
from artifactnet.evaluation.samples import (
    ALLOWED,
    check_overrides,
    data_warnings,
    describe_data,
    evaluated_split,
    open_data,
    open_run,
    set_thresholds,
)
from artifactnet.evaluation.selection import ALL, DRAW_KEYS
from artifactnet.inference.backends.exported import SUFFIXES, AnyModel
from artifactnet.inference.load import find_weights, load_model
from artifactnet.inference.predictor import Predictor
from artifactnet.inference.preprocessing import preprocess_of
from artifactnet.models import packaged
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.models.hub import is_address
from artifactnet.models.metadata import read_metadata
from artifactnet.models.state import evaluating
from artifactnet.runs import run_folder
from artifactnet.runs.device import choose_device
from artifactnet.types import ArtifactNetError, Batch, Sample

TEACHER_KEYS = ("distill.teacher", "distill.cache", "distill.side")  # that an evaluation may set

_RECIPE = "student_nano"  # of a file: says which images where no data is named; nothing else
_SPLITS_DRAWN = (
    "a file does not say which images it was trained on: where this data names no splits they were "
    "drawn with seed={seed}; if the model has learned from it, that and data.val_fraction must be "
    "those of its run"
)
_ALL_USED = (
    "a file does not say which images it was trained on, and this data names no splits, so all of "
    "its images were used; if the model has learned from some of them, give its run's seed= and "
    "data.val_fraction= to draw the test images as its training did"
)


def evaluate_run(run_dir: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Evaluate a run's best model and write ``results.json`` and ``results.md``.

    Without overrides of the data they replace those of the run; for other data (or another
    threshold or teacher) they go to ``evaluations/<data>-<fingerprint>`` inside the run's folder.
    Which images of other data are used is in `artifactnet.evaluation.selection`.
    Heatmaps are compared with those of the run's own teacher on the run's own data, if it is
    still available; and on any data with those of a teacher named in ``overrides``.

    Args:
        run_dir: folder of the run.
        overrides: ``dotted.key=value`` strings that begin with one of `ALLOWED` or `TEACHER_KEYS`.

    Returns:
        The content of ``results.json``.

    Raises:
        ArtifactNetError: no such run, an override that is not allowed, data that cannot be used,
            or a teacher in ``overrides`` that cannot label them.
    """
    run = open_run(run_dir, overrides, (*ALLOWED, *TEACHER_KEYS))
    config, teacher = run.config, _names_teacher(overrides)
    decisive = _decisive(config, teacher)
    own = decisive == _decisive(run.own, teacher)
    folder = run.folder if own else run.folder / results.subfolder(config, decisive)
    if teacher:
        _label_evaluated(run.data, config)
    elif own and run.own.distill.teacher is not None:
        try:
            _label_evaluated(run.data, config)  # in the cache since the training
        except ArtifactNetError as error:
            run.data.summary["warnings"].append(f"not compared with the teacher: {error}")
    found = evaluate_model(run.model, run.data, config, run.epoch)
    if own:
        found["training"] = results.read_training(folder)
    results.write(folder, found)
    results.print_results(found, results.terminal(found), folder)
    return found


def is_model_file(path: str | Path) -> bool:
    """Whether a path stands for a model file and not for the folder of a run.

    It does if there is a file, if it ends as model files do, or if it names a packaged model or one
    on the hub.
    """
    if is_address(path):
        return True
    path = Path(path)
    if path.is_dir():
        return False
    suffixes = (".safetensors", *SUFFIXES)
    return path.is_file() or path.suffix in suffixes or str(path) in packaged.list_packaged()


def evaluate_file(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Evaluate a file and write ``results.json`` and ``results.md``.

    They go to ``OUT/evaluations/<name>-<data>-<fingerprint>``. The data is that of the overrides,
    else the embedded test images; `artifactnet.evaluation.selection` says which of its images are
    used. With ``distill.teacher`` among them, heatmaps are compared with that teacher's, whose
    pseudo-labels are kept below ``out``.

    Args:
        path: ``.onnx``, ``.xml``, ``.pt2`` or ``.safetensors`` file, or name of a packaged model.
        overrides: as for `evaluate_run`, and ``out=`` and ``seed=`` (of splits that are drawn).

    Returns:
        The content of ``results.json``.

    Raises:
        ArtifactNetError: no such file, an override that is not allowed, data or teacher that
            cannot be used, or a teacher for a model without a heatmap.
    """
    check_overrides(overrides, (*ALLOWED, *TEACHER_KEYS, "out=", "seed="))
    config = load(_RECIPE, overrides)
    model, epoch = _open_file(path, config)
    set_thresholds(model.config, [config.model], overrides)
    config.name = Path(path).name
    own = _config_beside(path)
    data = open_data(config, preprocess_of(model), own, overrides)
    teacher = _names_teacher(overrides)
    if teacher:
        if not model.has_heatmap:
            raise ArtifactNetError(
                f"{path}: predicts no heatmap that could be compared with a teacher's; leave out "
                "distill.teacher"
            )
        _label_evaluated(data, config)
    # an exported file has all that figures need of a model
    found = evaluate_model(cast(ArtifactNet, model), data, config, epoch)
    if own is None and config.data.name != "demo":
        if any(text.startswith(DRAW_KEYS) for text in overrides):
            found["data_warnings"].append(_SPLITS_DRAWN.format(seed=config.seed))
        elif found["data"]["split"] == ALL and str(path) not in packaged.list_packaged():
            found["data_warnings"].append(_ALL_USED)
    place = results.subfolder(config, _decisive(config, teacher), of=str(Path(path).resolve()))
    folder = Path(config.out) / place.with_name(f"{config.name}-{place.name}")
    results.write(folder, found)
    results.print_results(found, results.terminal(found), folder)
    return found


def _config_beside(path: str | Path) -> Config | None:
    """Config of the run whose folder holds a model file; None if it is in no such folder."""
    folder = Path(path).parent
    if not Path(path).is_file() or not (folder / run_folder.PROVENANCE).is_file():
        return None
    return run_folder.find_run(folder)[1]


def _open_file(path: str | Path, config: Config) -> tuple[AnyModel, int | None]:
    """The model, and the epochs of training that it has seen, where the file records it."""
    exported = Path(path).suffix in SUFFIXES
    predictor = load_model(path, "auto" if exported else choose_device(config.train.device))
    assert isinstance(predictor, Predictor)  # HEIE has an evaluation of its own
    epoch = None if exported else read_metadata(find_weights(path))["extra"].get("epoch")
    return predictor.model, epoch


def evaluate_model(
    model: ArtifactNet, data: DataModule, config: Config, epoch: int | None
) -> dict[str, Any]:
    """Figures of a model on the test split (on val, with a warning, if there is no test split).

    With images of one class only, figures that need both are None.

    Each image passes through the model as in `predict`: an adaptive mapper cuts it by the grid of
    tiles that suits it. Maps are compared at the size at which the model sees the image.

    Args:
        model: on the device where it runs; its train/eval state is left as it was.
        data: the data, with the model's preprocessing.
        config: the run or evaluation.
        epoch: epochs of training that the model has seen, for the record; None: unknown.

    Returns:
        JSON-ready results, see `artifactnet.evaluation.results`.
    """
    split = evaluated_split(data.splits)
    loader = split_loader(model, data, split)
    generators = sorted({record.generator for record in data.splits[split].records})
    figures = compute_figures(model, loader, generators)
    figures["authenticity"] = results.keep_defined(figures["authenticity"])
    if figures["teacher"] is not None:
        figures["teacher"]["name"] = data.summary["teacher"]["name"]
    skipped = data.skipped.get(split, [])
    warnings = data_warnings(data.summary, split, skipped)
    if figures["authenticity"]["all"]["note"]:
        warnings.append(figures["authenticity"]["all"]["note"])
    unannotated = "there is no annotated fake among the images"
    no_head = None if model.has_segmentation else "the model has no segmentation head"
    no_map = None if model.has_heatmap else model.no_attention
    return {
        "run": config.name,
        "data": describe_data(config, data.summary, split),
        "model": {"backbone": model.config.backbone, "epoch": epoch},
        "notices": list(model.notices),
        "data_warnings": warnings,
        "skipped": skipped,
        "threshold": model.config.threshold,
        "map_threshold": model.config.map_threshold,
        "no_heatmap": None if figures["heatmap"] else no_map or unannotated,
        "no_masks": None if figures["masks"] else no_head or unannotated,
        **figures,
    }


def split_loader(model: ArtifactNet, data: DataModule, split: str) -> Iterable[Batch]:
    """Batches of ``val`` or ``test`` as `predict` shows their images to a model.

    Raises:
        ArtifactNetError: there is no such split, or no image in it.
    """
    if model.config.heatmap.head == "mapper" and model.config.heatmap.adaptive:
        return data.loader_by_size(split, _AdaptivePreprocess(model))
    return data.test_loader() if split == "test" else data.val_loader()


class _AdaptivePreprocess(Preprocess):
    """Brings each image to the size at which the predictor shows it to an adaptive mapper."""

    def __init__(self, model: ArtifactNet) -> None:
        super().__init__(model.image_size, model.config.resize, model.mean, model.std)
        # without the model, which would have to go to the worker processes
        self._config = replace(model.config, mean=list(model.mean), std=list(model.std))

    def sample(self, sample: Sample) -> Example:
        return preprocess_of(self._config, sample.image.shape[:2]).sample(sample)


def compute_figures(
    model: ArtifactNet, loader: Iterable[Batch], generators: Sequence[str]
) -> dict[str, Any]:
    """`Figures.compute` of a model over all batches of a loader, on this process alone."""
    device = next(model.parameters()).device
    figures = Figures(model, generators, alone=True).to(device)
    with evaluating(model), torch.no_grad():
        for batch in loader:
            batch = batch.to(device, non_blocking=True)
            output = model(
                batch.image,
                attention=model.has_attention,
                segmentation=model.has_segmentation,
                heatmap=model.has_heatmap,
            )
            figures.update(batch, output)
    return figures.compute()


def _names_teacher(overrides: Sequence[str]) -> bool:
    """Whether overrides request the comparison with a teacher."""
    return any(text.startswith(TEACHER_KEYS) for text in overrides)


def _label_evaluated(data: DataModule, config: Config) -> None:
    """Let the config's teacher label the images that are evaluated."""
    split = evaluated_split(data.splits)
    attach_teacher_labels(data, config, choose_device(config.train.device), only=split)


def _decisive(config: Config, teacher: bool) -> dict[str, Any]:
    """Flat keys of a config that decide the figures of a given model."""
    values = to_dict(config)
    data = dict(values["data"])
    data["augment"] = {"align_compression": data["augment"]["align_compression"]}  # tests have it
    thresholds = {key: values["model"][key] for key in ("threshold", "map_threshold")}
    found = run_folder.flatten_keys({"data": data, "model": thresholds, "seed": values["seed"]})
    for key in results.INDIFFERENT:
        del found[f"data.{key}"]
    if teacher:
        found |= {"teacher": config.distill.teacher, "side": config.distill.side}
    return found
