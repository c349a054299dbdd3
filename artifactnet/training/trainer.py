"""A run from its config to its results: build, check, train, evaluate, save, tell."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from artifactnet import files
from artifactnet.config import AlignmentConfig, Config, ConfigError, problems
from artifactnet.data.datamodule import DataModule
from artifactnet.distillation.distill import attach_teacher_labels
from artifactnet.distillation.teachers import OpenTeacher, open_teacher
from artifactnet.evaluation import results as tables
from artifactnet.evaluation.evaluate import evaluate_model
from artifactnet.evaluation.samples import preprocess_of
from artifactnet.models import packaged
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.models.checkpoint import init_weights, load_checkpoint, save_checkpoint
from artifactnet.runs import run_folder
from artifactnet.runs.device import choose_device, is_main_process
from artifactnet.taxonomy import CATEGORIES
from artifactnet.training import components
from artifactnet.training.checkpoints import BestModel
from artifactnet.training.class_weights import ClassFrequencies, class_frequencies
from artifactnet.training.fit import fit, global_state
from artifactnet.training.module import DetectorModule
from artifactnet.types import Annotation, ArtifactNetError

CACHE = ".cache"  # below config.out: counts that several runs share
_WEIGHT_POWER = {"inverse": 1.0, "inverse_sqrt": 0.5, "none": 0.0}  # of the pixel frequency


@dataclass(frozen=True, slots=True)
class RunResult:
    """Where a run is and what it reached.

    Attributes:
        run_dir: folder of the run.
        results: content of its ``results.json``; empty in the helper processes of a
            distributed run.
    """

    run_dir: Path
    results: dict[str, Any]


def train(config: Config, opener: OpenTeacher = open_teacher) -> RunResult:
    """Train, evaluate and save a detector.

    Args:
        config: the run; see `artifactnet.config.load`.
        opener: opens the teacher where one is named
            (`artifactnet.vlm.heie.teacher.open_any_teacher` knows HEIE too).

    Returns:
        Folder and results of the run.

    Raises:
        ArtifactNetError: anything the user can mend; what was saved before stays loadable.
        KeyboardInterrupt: Ctrl-C; how to go on has been printed.
    """
    for key, problem in problems(config):
        raise ConfigError(f"{key} {problem}")
    main = is_main_process()
    folder = Path(config.out) / config.name
    if main:
        run_folder.check(config)
    with run_folder.explain_full_disk(folder), global_state():
        return _run(config, folder, main, opener)


def _run(config: Config, folder: Path, main: bool, opener: OpenTeacher) -> RunResult:
    """`train` after its checks; helper processes of a distributed run write nothing."""
    pl.seed_everything(config.seed, workers=True, verbose=False)
    device = choose_device(config.train.device, config.train.devices)
    if config.train.precision == "16" and device == "cpu":
        raise ArtifactNetError("train.precision=16 needs a GPU; use bf16, 32 or auto")
    model = ArtifactNet(copy.deepcopy(config.model))  # training adds what it taught
    fresh = list(model.parts())
    if config.init_from is not None:
        fresh = init_weights(model, _model_file(config.init_from))
    data = DataModule(config.data, preprocess_of(model), config.seed)
    data.needs_both_classes = config.loss.bce > 0
    data.check_train()  # say now what is missing: before a teacher is asked, and a folder made
    _check_map(model, config, data)
    if config.distill.teacher is not None:
        attach_teacher_labels(data, config, device, opener)
        run_folder.same_teacher(config, data.summary["teacher"])
    data.train_loader(), data.val_loader()
    effective = _without_empty_alignment(config, data)
    components.choose(model, effective, fresh)
    frequencies = _class_frequencies(effective, data)
    if frequencies is not None:
        labels = [CATEGORIES[index - 1].label for index in frequencies.categories]
        model.config.segmentation.categories = labels
        data.summary["class_pixels"] = frequencies.pixels
    generators = sorted({record.generator for record in data.splits["val"].records})
    if main:
        run_folder.prepare(config)
        files.write_json(folder / run_folder.DATA, data.summary)
        print(_opening(folder, config, model, data), flush=True)
    power = _WEIGHT_POWER[config.loss.segmentation.class_weights]
    weights = [1.0] * 9 if frequencies is None else frequencies.weights(power)
    module = DetectorModule(model, effective, generators, weights)
    best = BestModel(folder / run_folder.BEST, config.train.monitor, {"run": config.name})
    trainer, seconds = fit(module, data, best, folder, device)
    if not main:
        return RunResult(folder, {})
    progress = {"epochs": trainer.current_epoch, "steps": trainer.global_step}
    save_checkpoint(model, folder / run_folder.LAST, {"run": config.name, **progress})
    chosen = load_checkpoint(folder / run_folder.BEST, device)
    found = evaluate_model(chosen, data, config, best.epoch)
    found["training"] = {
        **progress,
        "seconds": round(seconds, 1),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "best_epoch": best.epoch,
        "best_validation": best.best,
    }
    tables.write(folder, found)
    run_folder.finish(folder, progress)
    print(_closing(folder, found), flush=True)
    return RunResult(folder, found)


def _check_map(model: ArtifactNet, config: Config, data: DataModule) -> None:
    """What is asked of the map must be possible with this model and this data."""
    if config.loss.alignment.weight > 0:
        if not model.has_attention:
            raise ArtifactNetError(
                f"{config.model.backbone}: {model.no_attention}; or set loss.alignment.weight=0"
            )
        _ = model.grid  # the image must fill whole cells of the map
    monitor = config.train.monitor
    if monitor not in ("map_iou", "mask_iou", "joint"):
        return
    attends = monitor == "map_iou" and not model.has_heatmap
    reason = model.no_attention if attends else None
    if not any(r.label == 1 and r.annotation for r in data.splits["val"].records):
        reason = "none of the validation fakes is annotated"
    if reason is not None:
        raise ArtifactNetError(f"train.monitor={monitor} cannot be had: {reason}")


def _without_empty_alignment(config: Config, data: DataModule) -> Config:
    """The run as it can be trained: without alignment, and saying so, if nothing is annotated."""
    weight = config.loss.alignment.weight
    if not weight or any(r.annotation is Annotation.MASK for r in data.splits["train"].records):
        return config
    data.summary["warnings"].append(
        "no training image has an artifact mask, so attention alignment (loss.alignment.weight="
        f"{weight:g}) is SWITCHED OFF: real images alone would teach the model to look at nothing"
    )
    return replace(config, loss=replace(config.loss, alignment=AlignmentConfig(weight=0.0)))


def _class_frequencies(config: Config, data: DataModule) -> ClassFrequencies | None:
    """Pixels of each class in the training masks, where a segmentation is to be learned."""
    if config.loss.segmentation.weight == 0:
        return None
    source = data.splits["train"]
    if not any(record.annotation is Annotation.MASK for record in source.records):
        raise ArtifactNetError(
            f"loss.segmentation.weight is {config.loss.segmentation.weight:g}, but no training "
            "image has an artifact mask; set it to 0, or use data with masks"
        )
    return class_frequencies(source, Path(config.out) / CACHE, config.data.on_error)


def _model_file(path: str) -> Path:
    """Model of a run given by its folder, a packaged one by its name, or the file itself."""
    file = packaged.resolve(path)
    return file / run_folder.BEST if file.is_dir() else file


def _opening(folder: Path, config: Config, model: ArtifactNet, data: DataModule) -> str:
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    counts = ", ".join(f"{name} {len(split.records)}" for name, split in data.splits.items())
    lines = [
        *_loud(model.notices),
        f"run {folder}: {config.model.backbone}, {learning:,} parameters learn, images "
        f"{model.image_size[0]}x{model.image_size[1]}",
        f"data {config.data.name}: {counts} images",
        *(f"warning: {warning}" for warning in data.summary["warnings"]),
    ]
    return "\n".join(lines)


def _closing(folder: Path, found: dict[str, Any]) -> str:
    model, pictures = folder / run_folder.BEST, folder / run_folder.PICTURES
    return "\n".join(
        [
            "",
            *_loud(found["notices"]),
            f"results on the {found['data']['split']} split ({found['images']} images), model of "
            f"epoch {found['model']['epoch']} of {found['training']['epochs']}:",
            tables.terminal(found),
            "",
            f"model      {model}",
            f"results    {folder / tables.MARKDOWN}, {folder / tables.JSON}",
            *([f"pictures   {pictures}"] if pictures.is_dir() else []),
            f"logs       {folder / 'logs'}",
            "",
            "use it:",
            "    import artifactnet",
            f"    model = artifactnet.load_model({str(model)!r})",
            '    print(model.predict("photo.jpg").probability)',
        ]
    )


def _loud(notices: tuple[str, ...] | list[str]) -> list[str]:
    """Notices between lines that nobody overlooks."""
    if not notices:
        return []
    bar = "!" * 78
    return [bar, *(f"!! WARNING: {notice}" for notice in notices), bar]
