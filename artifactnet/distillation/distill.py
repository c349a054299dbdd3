"""Distillation: the teacher labels the data of a run, then the student learns from both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from artifactnet.config import Config, ConfigError
from artifactnet.data.datamodule import DataModule, build_splits
from artifactnet.data.sources.base import Splits
from artifactnet.distillation.labelling import TeacherLabeledSource, label
from artifactnet.distillation.teachers import OpenTeacher, Teacher, open_teacher
from artifactnet.runs.device import choose_device, is_main_process, own_device

CACHE = ".cache/teachers"  # below config.out: answers that several runs share


def need_teacher(config: Config) -> str:
    """Path of the run's teacher.

    Raises:
        ConfigError: it has none.
    """
    if config.distill.teacher is None:
        raise ConfigError(
            "distill.teacher is not set: name a run, a .safetensors file or a folder of heatmaps, "
            "say distill.teacher=runs/teacher"
        )
    return config.distill.teacher


def cache_folder(config: Config) -> Path:
    """Where the run keeps the answers of its teachers."""
    if config.distill.cache is not None:
        return Path(config.distill.cache)
    return Path(config.out) / CACHE


def attach_teacher_labels(
    data: DataModule,
    config: Config,
    device: str,
    opener: OpenTeacher = open_teacher,
    *,
    only: str | None = None,
) -> None:
    """Replace the splits of ``data`` by taught ones, asking the teacher where it must.

    Call it before any loader is made: a loader keeps the source that it was made with.

    Args:
        data: the student's.
        config: the run; ``distill`` says who teaches.
        device: where a teacher that is a model runs, on this process's own GPU if there are
            several; it is let go afterwards.
        opener: opens the teacher; another one than the default knows more kinds of them.
        only: the one split to replace; None: all of them.

    Raises:
        ArtifactNetError: no teacher, or one that cannot teach these images, see `label`.
    """
    report = print if is_main_process() else _silent
    teacher = opener(need_teacher(config), own_device(device))
    if only is None:
        _need_features(config, teacher)
    wanted = {name: data.splits[name] for name in data.splits if only in (None, name)}
    data.splits = {**data.splits, **_label(wanted, teacher, config, report)}
    data.summary["teacher"] = {**teacher.about, "identity": teacher.identity}


def label_only(config: Config, opener: OpenTeacher = open_teacher) -> Path:
    """Label the data of a run without training, say, on another machine, or several at once.

    Args:
        config: the run.
        opener: see `attach_teacher_labels`.

    Returns:
        The folder of all teachers' answers.

    Raises:
        ArtifactNetError: see `attach_teacher_labels`.
    """
    device = choose_device(config.train.device)
    teacher = opener(need_teacher(config), device)
    _need_features(config, teacher)
    _label(build_splits(config.data, config.seed), teacher, config, print)
    return cache_folder(config)


def _need_features(config: Config, teacher: Teacher) -> None:
    if config.distill.feature and not teacher.gives_features:
        raise ConfigError(
            f"distill.feature is above 0, but {teacher.about['name']} gives no features: only "
            "models without a language model do; set distill.feature=0"
        )


def _label(
    splits: Splits, teacher: Teacher, config: Config, report: Callable[[str], None]
) -> dict[str, TeacherLabeledSource]:
    return label(
        splits,
        teacher,
        cache_folder(config),
        config.distill.side,
        config.data.eval_batch_size or config.data.batch_size,
        workers=config.data.workers,
        on_error=config.data.on_error,
        report=report,
    )


def _silent(line: str) -> None:
    """Of several processes only one speaks."""
