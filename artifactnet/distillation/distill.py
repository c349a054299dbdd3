"""Distillation: a teacher labels the data of a run, then the student learns from both."""

from __future__ import annotations

from pathlib import Path

from artifactnet.config import Config, ConfigError
from artifactnet.data.datamodule import DataModule, build_splits
from artifactnet.data.sources.base import Splits
from artifactnet.distillation.labelling import TeacherLabeledSource, label_splits
from artifactnet.distillation.teachers import Teacher, open_teacher
from artifactnet.runs.device import choose_device, is_main_process, own_device

CACHE = ".cache/teachers"  # below config.out: pseudo-labels that several runs share


def need_teacher(config: Config) -> str:
    """Path of the run's teacher; `ConfigError` if it has none."""
    if config.distill.teacher is None:
        raise ConfigError(
            "distill.teacher is not set: name a run, a .safetensors file, the folder of a HEIE or "
            "a folder of heatmaps, say distill.teacher=runs/teacher"
        )
    return config.distill.teacher


def cache_folder(config: Config) -> Path:
    """Where the run keeps the pseudo-labels of its teachers."""
    return Path(config.out) / CACHE if config.distill.cache is None else Path(config.distill.cache)


def attach_teacher_labels(
    data: DataModule, config: Config, device: str, *, only: str | None = None
) -> None:
    """Replace the splits of ``data`` by labelled ones; the teacher labels what is not cached.

    Call it before any loader is made: a loader keeps the source that it was made with.

    Args:
        data: the student's.
        config: the run; ``distill`` names the teacher.
        device: where a model teacher runs: on this process's own GPU if there are several.
        only: the one split to replace; None: all of them.

    Raises:
        ArtifactNetError: no teacher, or one that cannot label these images, see `label_splits`.
    """
    teacher = open_teacher(need_teacher(config), own_device(device))
    if only is None:
        _need_features(config, teacher)
    wanted = {name: data.splits[name] for name in data.splits if only in (None, name)}
    data.splits = {**data.splits, **_label(wanted, teacher, config)}
    data.summary["teacher"] = {**teacher.about, "identity": teacher.identity}


def label_run(config: Config) -> Path:
    """Label the data of a run without training: on another machine, or several GPUs at once.

    Returns the folder of the pseudo-labels of all teachers; errors as of `attach_teacher_labels`.
    """
    device = own_device(choose_device(config.train.device))
    teacher = open_teacher(need_teacher(config), device)
    _need_features(config, teacher)
    _label(build_splits(config.data, config.seed), teacher, config)
    return cache_folder(config)


def _need_features(config: Config, teacher: Teacher) -> None:
    if config.distill.feature and not teacher.gives_features:
        raise ConfigError(
            f"distill.feature is above 0, but {teacher.about['name']} gives no features: only "
            "models without a language model do; set distill.feature=0"
        )


def _label(splits: Splits, teacher: Teacher, config: Config) -> dict[str, TeacherLabeledSource]:
    return label_splits(
        splits,
        teacher,
        cache_folder(config),
        config.distill.side,
        config.data.eval_batch_size or config.data.batch_size,
        workers=config.data.workers,
        on_error=config.data.on_error,
        report=print if is_main_process() else _ignore,
        launch=str((Path(config.out) / config.name).resolve()),
    )


def _ignore(line: str) -> None:
    """Of several processes only the first one reports."""
