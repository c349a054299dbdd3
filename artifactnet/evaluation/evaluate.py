"""Figures of a model that is a file: exported, saved, or packaged. A run needs none of this."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import torch

from artifactnet.config import Config, load, to_dict
from artifactnet.data.datamodule import DataModule
from artifactnet.distillation.distill import attach_teacher_labels
from artifactnet.evaluation import results as tables
from artifactnet.evaluation.figures import Figures
from artifactnet.evaluation.samples import (
    ALLOWED,
    VALIDATION_ONLY,
    check_overrides,
    judged_split,
    open_run,
)
from artifactnet.inference.backends.exported import SUFFIXES, AnyModel
from artifactnet.inference.load import find_weights, load_model
from artifactnet.inference.predictor import Predictor
from artifactnet.inference.preprocessing import preprocess_of
from artifactnet.models import packaged
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.models.metadata import read_metadata
from artifactnet.models.state import evaluating
from artifactnet.runs import run_folder
from artifactnet.runs.device import choose_device
from artifactnet.types import ArtifactNetError, Batch

# data keys that do not change which images are judged
_IMMATERIAL = ("data.batch_size", "data.eval_batch_size", "data.workers", "data.check")
TEACHER_KEYS = ("distill.teacher", "distill.cache", "distill.side")  # that an evaluation may set


def evaluate(
    run_dir: str | Path, overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Evaluate a run's best model and write ``results.json`` and ``results.md``.

    Without overrides of the data they replace those of the run; for other data (or another
    threshold or teacher) they go to ``evaluations/<data>-<fingerprint>`` inside the run's folder.

    Heatmaps are compared with those of the run's own teacher on the run's own data, as far as it
    can be asked; and on any data with those of a teacher named in ``overrides``.

    Args:
        run_dir: folder of the run.
        overrides: ``dotted.key=value`` strings of ``data.*``, ``train.device``,
            ``model.threshold``, ``model.map_threshold``, ``distill.teacher``, ``distill.cache``
            and ``distill.side``.

    Returns:
        The content of ``results.json``.

    Raises:
        ArtifactNetError: no such run, an override that an evaluation cannot have, data that
            cannot be used, or a teacher in ``overrides`` that cannot be asked about them.
    """
    run = open_run(run_dir, overrides, (*ALLOWED, *TEACHER_KEYS))
    folder, own, config = run.folder, run.own, run.config
    named = names_teacher(overrides)
    target = folder / _subfolder(own, config, named)
    if named:
        ask_teacher(run.data, config)
    elif target == folder and own.distill.teacher is not None:
        _ask_own_teacher(run.data, config)
    found = evaluate_model(run.model, run.data, config, run.epoch)
    if target == folder:
        found["training"] = training_of(folder)
    tell(found, target)
    return found


def tell(found: dict[str, Any], target: Path) -> None:
    """Write results to a folder, and print them.

    Args:
        found: what `evaluate_model` gave.
        target: the folder; made if missing.
    """
    tables.write(target, found)
    print_figures(found, tables.terminal(found), target)


def print_figures(found: dict[str, Any], lines: str, target: Path) -> None:
    """Print what an evaluation found, after what must be known before trusting it.

    Args:
        found: content of ``results.json``.
        lines: its figures for a terminal.
        target: folder that it was written to.
    """
    for text in (*found["notices"], *found["data_warnings"]):
        print(f"WARNING: {text}")
    print(lines)
    print(f"\nresults    {target / tables.MARKDOWN}, {target / tables.JSON}", flush=True)


def evaluate_model(
    model: ArtifactNet, data: DataModule, config: Config, epoch: int | None
) -> dict[str, Any]:
    """Figures of a model on the test split (on val, and saying so, where there is no test).

    Args:
        model: on the device where it shall run; its train/eval state is left as it was.
        data: the data, with the model's preprocessing.
        config: the run or evaluation.
        epoch: epochs of training that the model has seen, for the record; None: unknown.

    Returns:
        JSON-ready results, see `artifactnet.evaluation.results`.
    """
    split = judged_split(data)
    loader = data.test_loader() if split == "test" else data.val_loader()
    generators = sorted({record.generator for record in data.splits[split].records})
    figures = compute_figures(model, loader, generators)
    if figures["teacher"] is not None:
        figures["teacher"]["name"] = data.summary["teacher"]["name"]
    warnings = list(data.summary["warnings"])
    if split == "val":
        warnings.append(VALIDATION_ONLY)
    unannotated = "there is no annotated fake among the images"
    no_head = None if model.has_segmentation else "the model has no segmentation head"
    no_map = None if model.has_heatmap else model.no_attention
    skipped = data.skipped.get(split, [])
    if skipped:
        warnings.append(f"{len(skipped)} images were skipped (data.on_error=skip)")
    if figures["authenticity"]["all"]["note"]:
        warnings.append(figures["authenticity"]["all"]["note"])
    return {
        "run": config.name,
        "data": {"name": config.data.name, "root": config.data.root, "split": split},
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


def compute_figures(
    model: ArtifactNet, loader: Iterable[Batch], generators: Sequence[str]
) -> dict[str, Any]:
    """Figures of a model over all batches of a loader, on this process alone.

    Returns:
        what `Figures.compute` gives: ``authenticity``, ``heatmap``, ``masks``, ``saliency``, ...
    """
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


def names_teacher(overrides: Sequence[str]) -> bool:
    """Whether overrides ask for the comparison with a teacher."""
    return any(text.startswith(TEACHER_KEYS) for text in overrides)


def ask_teacher(data: DataModule, config: Config) -> None:
    """Let the config's teacher answer about the images that are judged.

    Args:
        data: the images; those that are judged then carry its answers.
        config: of the evaluation.

    Raises:
        ArtifactNetError: there is none, or it cannot.
    """
    attach_teacher_labels(
        data, config, choose_device(config.train.device), only=judged_split(data)
    )


def _ask_own_teacher(data: DataModule, config: Config) -> None:
    """A student is judged against its teacher too, whose answers are kept since the training."""
    try:
        ask_teacher(data, config)
    except ArtifactNetError as error:
        data.summary["warnings"].append(f"not compared with the teacher: {error}")


def _subfolder(own: Config, config: Config, teacher: bool) -> Path:
    """Where results go, relative to the run: its own place only for its own data."""
    if material(own, teacher) == material(config, teacher):
        return Path()
    return Path("evaluations") / subfolder_name(config, teacher)


def subfolder_name(config: Config, teacher: bool, of: str = "") -> str:
    """Name of the folder for results of one evaluation.

    Args:
        config: of the evaluation.
        teacher: whether a teacher was named for it.
        of: what is evaluated, where that is not a run with a folder of its own.
    """
    return fingerprinted(config, json.dumps(material(config, teacher), sort_keys=True) + of)


def fingerprinted(config: Config, decides: str, kind: str = "") -> str:
    """Folder name for results on a config's data, unique to what decides them.

    Args:
        config: of the evaluation.
        decides: all that decides its figures, as text.
        kind: put between data and fingerprint, for people.
    """
    fingerprint = hashlib.blake2b(decides.encode(), digest_size=3).hexdigest()
    root = f"-{Path(config.data.root).resolve().name}" if config.data.root else ""
    return f"{config.data.name}{root}{kind}-{fingerprint}"


def material(config: Config, teacher: bool) -> dict[str, Any]:
    """The keys of a config that decide the figures of a given model, flat.

    Args:
        config: of a run or evaluation.
        teacher: whether the one named in it is among them.
    """
    found = run_folder.flatten_keys(_material(to_dict(config)))
    for key in _IMMATERIAL:
        del found[key]
    if teacher:
        found |= {"teacher": config.distill.teacher, "side": config.distill.side}
    return found


def _material(values: dict[str, Any]) -> dict[str, Any]:
    data = dict(values["data"])
    data["augment"] = {"align_compression": data["augment"]["align_compression"]}  # tests have it
    thresholds = {key: values["model"][key] for key in ("threshold", "map_threshold")}
    return {"data": data, "model": thresholds, "seed": values["seed"]}


def training_of(folder: Path) -> dict[str, Any] | None:
    """What the run's earlier results say about its training."""
    path = folder / tables.JSON
    if not path.is_file():
        return None
    earlier: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return earlier.get("training")


# says which images are judged where no data is named; of its model nothing is used
_RECIPE = "student_nano"
_MODEL_SUFFIXES = (".safetensors", *SUFFIXES)
_DRAWN = (
    "a file does not say which images it was trained on: where this data names no splits they were "
    "drawn with seed={seed}; if the model has learned from it, give its run's seed= and "
    "data.val_fraction="
)
_THRESHOLDS = ("threshold", "map_threshold")


def is_model_file(path: str | Path) -> bool:
    """Whether a path stands for a model file and not for the folder of a run.

    It does if there is a file, if it ends as model files do, or if it names a packaged model.
    """
    path = Path(path)
    if path.is_dir():
        return False
    return path.is_file() or path.suffix in _MODEL_SUFFIXES or str(path) in packaged.list_packaged()


def evaluate_file(
    path: str | Path, overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Evaluate a file and write ``results.json`` and ``results.md``.

    They go to ``OUT/evaluations/<name>-<data>-<fingerprint>``. The data is that of the overrides,
    else the embedded test images. With ``distill.teacher`` among them, heatmaps are compared with
    that teacher's, whose answers are kept below ``out``.

    Args:
        path: ``.onnx``, ``.xml`` or ``.pt2`` file, ``.safetensors`` file, or the name of a
            packaged model.
        overrides: ``dotted.key=value`` strings of ``data.*``, ``seed`` (of splits that are
            drawn), ``out``, ``train.device``, ``model.threshold``, ``model.map_threshold``,
            ``distill.teacher``, ``distill.cache`` and ``distill.side``.

    Returns:
        The content of ``results.json``.

    Raises:
        ArtifactNetError: no such file, an override that an evaluation cannot have, data or
            teacher that cannot be used, or a teacher for a model without a heatmap.
    """
    check_overrides(overrides, (*ALLOWED, *TEACHER_KEYS, "out=", "seed="))
    config = load(_RECIPE, overrides)
    model, epoch = _open(path, config)
    for key in _THRESHOLDS:
        if any(text.startswith(f"model.{key}=") for text in overrides):
            setattr(model.config, key, getattr(config.model, key))
        else:
            setattr(config.model, key, getattr(model.config, key))
    config.name = Path(path).name
    data = DataModule(config.data, preprocess_of(model), config.seed)
    named = names_teacher(overrides)
    if named:
        if not model.has_heatmap:
            raise ArtifactNetError(
                f"{path}: predicts no heatmap that could be compared with a teacher's; leave out "
                "distill.teacher"
            )
        ask_teacher(data, config)
    # an exported file has all that figures ask of a model
    found = evaluate_model(cast(ArtifactNet, model), data, config, epoch)
    if config.data.name != "demo":
        found["data_warnings"].append(_DRAWN.format(seed=config.seed))
    folder = subfolder_name(config, named, str(Path(path).resolve()))
    tell(found, Path(config.out) / "evaluations" / f"{config.name}-{folder}")
    return found


def _open(path: str | Path, config: Config) -> tuple[AnyModel, int | None]:
    """The model, and the epochs of training that it has seen, where the file knows."""
    exported = Path(path).suffix in SUFFIXES
    predictor = load_model(path, "auto" if exported else choose_device(config.train.device))
    assert isinstance(predictor, Predictor)  # HEIE has its own evaluation
    epoch = None if exported else read_metadata(find_weights(path))["extra"].get("epoch")
    return predictor.model, epoch
