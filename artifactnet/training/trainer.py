"""Training of a detector: build, check, train, evaluate, save."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lightning.pytorch.callbacks import Callback

from artifactnet.config import AlignmentConfig, Config, ConfigError
from artifactnet.data.datamodule import DataModule
from artifactnet.distillation.distill import attach_teacher_labels
from artifactnet.evaluation import results as tables
from artifactnet.evaluation.evaluate import evaluate_model
from artifactnet.inference.load import find_weights
from artifactnet.inference.preprocessing import preprocess_of
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.models.checkpoint import init_weights, load_checkpoint, save_checkpoint
from artifactnet.models.create import create_model
from artifactnet.models.dry_run import dry_run, first_line
from artifactnet.models.heads.scorer import UNSCORED
from artifactnet.runs.run_folder import BEST, LAST, PICTURES, RunResult, check_same_teacher
from artifactnet.taxonomy import CATEGORIES
from artifactnet.training.batch_norm import check_single_images
from artifactnet.training.callbacks import Pictures
from artifactnet.training.checkpoints import BestModel
from artifactnet.training.class_weights import ClassFrequencies, class_frequencies
from artifactnet.training.components import choose_components, ddp_strategy
from artifactnet.training.module import DetectorModule
from artifactnet.training.run import Run, start_run
from artifactnet.types import Annotation, ArtifactNetError

CACHE = ".cache"  # below config.out: counts that several runs share
_WEIGHT_POWER = {"inverse": 1.0, "inverse_sqrt": 0.5, "none": 0.0}  # of the pixel frequency


def train_detector(config: Config) -> RunResult:
    """Train, evaluate and save a detector; see `artifactnet.train`.

    Raises:
        ConfigError: ``mllm.base`` is set: the model is no detector.
    """
    if config.mllm.base is not None:
        raise ConfigError(
            f"mllm.base is {config.mllm.base}, which is not a detector: artifactnet.train trains "
            "it; set mllm.base=null to train the detector of this config"
        )
    with start_run(config) as run:
        return _train(run)


def _train(run: Run) -> RunResult:
    config, folder = run.config, run.folder
    model = create_model(config.model)
    _check_crops(model, config)
    fresh = list(model.parts())
    if config.init_from is not None:
        fresh = init_weights(model, find_weights(config.init_from))
    data = DataModule(
        config.data, preprocess_of(model), config.seed, alignment=config.loss.alignment
    )
    data.needs_both_classes = config.loss.bce > 0
    data.check_train()  # report missing data before asking a teacher or making a folder
    _check_map(model, config, data)
    if config.distill.teacher is not None:
        attach_teacher_labels(data, config, run.device)
        check_same_teacher(config, data.summary["teacher"])
    data.train_loader(), data.val_loader()
    effective = _without_empty_alignment(config, data)
    choose_components(model, effective, fresh)
    images = len(data.splits["train"].records)
    if config.data.batch_size == 1 or images <= config.train.devices:
        check_single_images(model)
    frequencies = _class_frequencies(effective, data)
    if frequencies is not None:
        labels = [CATEGORIES[index - 1].label for index in frequencies.categories]
        model.config.segmentation.categories = labels
        data.summary["class_pixels"] = frequencies.pixels
    generators = sorted({record.generator for record in data.splits["val"].records})
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    height, width = model.image_size
    words = f"{config.model.backbone}, {learning:,} parameters learn, images {height}x{width}"
    scored = config.loss.heatmap.score or (config.distill.teacher and config.distill.score)
    notices = [
        notice
        for notice in model.notices
        # whether an image has a score is known after training
        if notice != UNSCORED or not scored or "heatmap" in config.freeze
    ]
    run.open_folder(data, words, notices)
    power = _WEIGHT_POWER[config.loss.segmentation.class_weights]
    weights = [1.0] * 9 if frequencies is None else frequencies.weights(power)
    module = DetectorModule(model, effective, generators, weights)
    best = BestModel(folder / BEST, config.train.monitor, {"run": config.name})
    distributed = config.train.strategy == "ddp" or config.train.devices > 1
    strategy = ddp_strategy(effective) if distributed else "auto"
    training = run.fit(module, data, best, strategy, _pictures(run, model, data))
    if not run.main:
        return RunResult(folder, {})
    facts = {"run": config.name, "epochs": training["epochs"], "steps": training["steps"]}
    save_checkpoint(model, folder / LAST, facts)
    results = evaluate_model(load_checkpoint(folder / BEST, run.device), data, config, best.epoch)
    results["training"] = training
    tables.write(folder, results)
    usage = [
        "import artifactnet",
        f"model = artifactnet.load_model({str(folder / BEST)!r})",
        'print(model.predict("photo.jpg").probability)',
    ]
    return run.finish(results, tables.terminal(results), folder / BEST, usage)


def _pictures(run: Run, model: ArtifactNet, data: DataModule) -> list[Callback]:
    """What draws the model's maps, if the run wants it and there are any."""
    train = run.config.train
    drawn = model.has_attention or model.has_segmentation or model.has_heatmap
    if not train.picture_every or not drawn:
        return []
    folder, skip = run.folder / PICTURES, run.config.data.on_error == "skip"
    val, preprocess = data.splits["val"], preprocess_of(model)
    return [Pictures(folder, val, preprocess, train.pictures, train.picture_every, skip)]


def _check_crops(model: ArtifactNet, config: Config) -> None:
    """Refuse training crops of a size that the model does not take."""
    height, width = config.data.augment.crop_size or model.image_size
    if (height, width) == model.image_size:
        return  # tried when it was built
    maps = {"segmentation": model.has_segmentation, "heatmap": model.has_heatmap}
    maps["attention"] = config.loss.alignment.weight > 0 and model.has_attention
    try:
        size = (height, width)
        dry_run(model, size, lambda net, images: net(images, **maps), shapes_alone=False)
    except Exception as error:  # networks raise whatever their layers raise
        own = "x".join(map(str, model.image_size))
        raise ArtifactNetError(
            f"data.augment.crop_size {height}x{width} does not fit {config.model.backbone} built "
            f"for model.image_size {own} ({first_line(error)}); set both to the same size"
        ) from error


def _check_map(model: ArtifactNet, config: Config, data: DataModule) -> None:
    """Refuse a loss or monitored figure of a map that this model or data does not have."""
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
        raise ArtifactNetError(f"train.monitor={monitor} is not available: {reason}")


def _without_empty_alignment(config: Config, data: DataModule) -> Config:
    """The config without alignment if no image is annotated, with a warning; else as it is."""
    weight = config.loss.alignment.weight
    if not weight or any(r.annotation is Annotation.MASK for r in data.splits["train"].records):
        return config
    data.summary["warnings"].append(
        "no training image has an artifact mask, so attention alignment (loss.alignment.weight="
        f"{weight:g}) is SWITCHED OFF: real images alone would train the model to look at nothing"
    )
    return replace(config, loss=replace(config.loss, alignment=AlignmentConfig(weight=0.0)))


def _class_frequencies(config: Config, data: DataModule) -> ClassFrequencies | None:
    """Pixels of each class in the training masks, if a segmentation is to be learned."""
    if config.loss.segmentation.weight == 0:
        return None
    source = data.splits["train"]
    if not any(record.annotation is Annotation.MASK for record in source.records):
        raise ArtifactNetError(
            f"loss.segmentation.weight is {config.loss.segmentation.weight:g}, but no training "
            "image has an artifact mask; set it to 0, or use data with masks"
        )
    return class_frequencies(source, Path(config.out) / CACHE, config.data.on_error)
