"""Figures of a model that is a file: exported, saved, or packaged. A run needs none of this."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from artifactnet.config import Config, load
from artifactnet.data.datamodule import DataModule
from artifactnet.engine.device import choose_device
from artifactnet.engine.evaluate import (
    TEACHER_KEYS,
    ask_teacher,
    evaluate_model,
    names_teacher,
    subfolder_name,
    tell,
)
from artifactnet.engine.samples import ALLOWED, check_overrides
from artifactnet.engine.teachers import OpenTeacher, open_teacher
from artifactnet.inference.predictor import load_model, model_file, preprocess_of
from artifactnet.inference.runtime import SUFFIXES, AnyModel, load_exported
from artifactnet.models import boxed
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.models.checkpoint import read_metadata
from artifactnet.types import ArtifactNetError

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
    return path.is_file() or path.suffix in _MODEL_SUFFIXES or str(path) in boxed.names()


def evaluate_file(
    path: str | Path, overrides: Sequence[str] = (), opener: OpenTeacher = open_teacher
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
        opener: see `artifactnet.engine.trainer.train`.

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
        ask_teacher(data, config, opener)
    # an exported file has all that figures ask of a model
    found = evaluate_model(cast(ArtifactNet, model), data, config, epoch)
    if config.data.name != "demo":
        found["data_warnings"].append(_DRAWN.format(seed=config.seed))
    folder = subfolder_name(config, named, str(Path(path).resolve()))
    tell(found, Path(config.out) / "evaluations" / f"{config.name}-{folder}")
    return found


def _open(path: str | Path, config: Config) -> tuple[AnyModel, int | None]:
    """The model, and the epochs of training that it has seen, where the file knows."""
    if Path(path).suffix in SUFFIXES:
        return load_exported(path), None
    model = load_model(path, choose_device(config.train.device)).model
    return model, read_metadata(model_file(path))["extra"].get("epoch")
