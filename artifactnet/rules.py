"""The values each configuration key may have, and which keys fit together.

`artifactnet.config.load` applies these rules after the types have been checked; a key whose value
is None (an optional one that is not set) is not tested.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from artifactnet.schema import Config
from artifactnet.taxonomy import ARTIFACT, BY_LABEL, NO_ARTIFACT

Rule = tuple[str, Callable[[Any], bool]]  # "must be ...", and whether a value is


# of mllm.task
QREAL_TASKS = ("qreal_object", "qreal_image", "qreal_detect", "qreal_filter", "qreal_describe")


def _among(*words: str) -> Rule:
    return f"one of {', '.join(words)}", lambda value: value in words


def _among_numbers(*numbers: int) -> Rule:
    return f"one of {', '.join(map(str, numbers))}", lambda value: value in numbers


def _is_weight(value: str) -> bool:
    """Whether it is ``linear`` or a finite number, 0 or more, in words."""
    try:
        return value == "linear" or 0 <= float(value) < math.inf
    except ValueError:
        return False


_COUNT: Rule = ("at least 1", lambda v: v >= 1)
_NOT_NEGATIVE: Rule = ("a finite number, 0 or more", lambda v: 0 <= v < math.inf)
_POSITIVE: Rule = ("a finite number above 0", lambda v: 0 < v < math.inf)
_SHARE: Rule = ("from 0 to 1", lambda v: 0 <= v <= 1)
_SHARE_BELOW_1: Rule = ("at least 0 and below 1", lambda v: 0 <= v < 1)
_INSIDE: Rule = ("between 0 and 1, both excluded", lambda v: 0 < v < 1)
_CHANNELS: Rule = ("three finite numbers", lambda v: len(v) == 3 and all(map(math.isfinite, v)))
_SIZE: Rule = ("two integers above 0 (height, width)", lambda v: len(v) == 2 and min(v) > 0)
_PARTS = ("backbone", "head", "segmentation", "heatmap", "context")  # of ArtifactNet
_FLOAT32_MAX = 3e38


def _are_biases(values: dict[str, Any]) -> bool:
    """Whether texts have finite numbers; a value that was set by a dotted key may be anything."""
    numbers = [value for value in values.values() if type(value) in (int, float)]
    return (
        all(values)
        and len(numbers) == len(values)
        and all(abs(value) <= _FLOAT32_MAX for value in numbers)
    )


RULES: dict[str, Rule] = {
    "name": (
        "a plain folder name",
        lambda v: bool(v.strip()) and v not in (".", "..") and not set(v) & set("/\\\0"),
    ),
    "out": ("a folder", lambda v: bool(v.strip())),
    "seed": ("from 0 to 4294967295", lambda v: 0 <= v < 2**32),
    "freeze_blocks": _NOT_NEGATIVE,
    "freeze": (f"parts of the model: {', '.join(_PARTS)}", lambda v: set(v) <= set(_PARTS)),
    "model.stem": _among("patch", "conv"),
    "model.stem_width": _COUNT,
    "model.pretrained": _among("auto", "true", "false"),
    "model.image_size": _SIZE,
    "model.resize": _among("stretch", "crop", "pad", "reflect"),
    "model.mean": _CHANNELS,
    "model.std": ("three numbers above 0", lambda v: _CHANNELS[1](v) and min(v) > 0),
    "model.threshold": _INSIDE,
    "model.map_threshold": _INSIDE,
    "model.temperature": _POSITIVE,
    "model.fake_from": _INSIDE,
    "model.real_below": _INSIDE,
    "model.drop_rate": _SHARE_BELOW_1,
    "model.drop_path_rate": _SHARE_BELOW_1,
    "model.attention.method": _among("rollout", "gradient_rollout", "grad_cam"),
    "model.attention.head_fusion": _among("mean", "max", "min"),
    "model.attention.discard_ratio": _SHARE_BELOW_1,
    "model.attention.form": _among("auto", "triton", "stored"),
    "model.attention.normalization": _among("saturate", "max", "minmax", "none"),
    "model.segmentation.head": _among("none", "upernet"),
    "model.segmentation.channels": _COUNT,
    "model.segmentation.auxiliary_channels": _COUNT,
    "model.segmentation.labels": _among("softmax", "sigmoid"),
    "model.segmentation.dropout": _SHARE_BELOW_1,
    "model.heatmap.head": _among("none", "decoder", "mapper"),
    "model.heatmap.width": _COUNT,
    "model.heatmap.stride": _among_numbers(2, 4, 8, 16, 32),
    "model.heatmap.tile": _COUNT,
    "model.heatmap.max_tiles": _COUNT,
    "model.heatmap.fusion": _among("uncertainty", "learnable", "fixed", "global", "local"),
    "model.heatmap.blocks": _COUNT,
    "model.heatmap.heads": _COUNT,
    "model.heatmap.tokens": _COUNT,
    "model.heatmap.calibration": _among("sum", "dynamic"),
    "model.context.pretrained": _among("auto", "true", "false"),
    "model.context.image_size": _COUNT,
    "model.context.blocks": (
        "increasing numbers of blocks, counted from 0",
        lambda v: bool(v) and v[0] >= 0 and v == sorted(set(v)),
    ),
    "model.lora.rank": _NOT_NEGATIVE,
    "model.lora.alpha": _POSITIVE,
    "model.lora.dropout": _SHARE_BELOW_1,
    "model.lora.target_modules": ("a list with at least one name", bool),
    "mllm.quantize": _among("none", "8bit", "4bit"),
    "mllm.lora_rank": _NOT_NEGATIVE,
    "mllm.lora_alpha": _POSITIVE,
    "mllm.lora_dropout": _SHARE_BELOW_1,
    "mllm.tune": _among("all", "language", "language_projector", "projector"),
    "mllm.text": _among("written", "template", "short", "none"),
    "mllm.descriptions": _SHARE,
    "mllm.features": _among("last", "levels"),
    "mllm.question": ("text", lambda v: bool(v.strip())),
    "mllm.max_new_tokens": _COUNT,
    "mllm.sequence_bias": ("texts with finite numbers", _are_biases),
    "mllm.task": _among("heie", "fakexplainer", *QREAL_TASKS, "xaigd_pad"),
    "mllm.context": _among("crop", "image"),
    "mllm.stage": _among("sft", "grpo"),
    "mllm.temperature": _NOT_NEGATIVE,
    "mllm.layout": _among("user", "system", "brief"),
    "mllm.region_form": _among("json", "native"),
    "mllm.drop": _among("none", "bbox", "caption", "tags", "label"),
    "mllm.save_every": _COUNT,
    "mllm.grpo.generations": ("at least 2: answers of a group are compared", lambda v: v >= 2),
    "mllm.grpo.temperature": _POSITIVE,
    "mllm.grpo.beta": _NOT_NEGATIVE,
    "mllm.grpo.epsilon": _INSIDE,
    "mllm.grpo.eta": _POSITIVE,
    "mllm.grpo.grounding": ("linear, or a number, 0 or more", _is_weight),
    "mllm.grpo.iou": _among("union", "matched"),
    "mllm.grpo.vllm": _among("none", "colocate", "server"),
    "mllm.grpo.vllm_memory": _INSIDE,
    "loss.bce": _NOT_NEGATIVE,
    "loss.text": _NOT_NEGATIVE,
    "loss.words": _NOT_NEGATIVE,
    "loss.segmentation.weight": _NOT_NEGATIVE,
    "loss.segmentation.auxiliary_weight": _NOT_NEGATIVE,
    "loss.segmentation.class_weights": _among("inverse", "inverse_sqrt", "none"),
    "loss.heatmap.focal": _NOT_NEGATIVE,
    "loss.heatmap.gamma": _NOT_NEGATIVE,
    "loss.heatmap.laplace": _NOT_NEGATIVE,
    "loss.heatmap.correlation": _NOT_NEGATIVE,
    "loss.heatmap.score": _NOT_NEGATIVE,
    "distill.side": _COUNT,
    "distill.laplace": _NOT_NEGATIVE,
    "distill.divergence": _NOT_NEGATIVE,
    "distill.correlation": _NOT_NEGATIVE,
    "distill.score": _NOT_NEGATIVE,
    "distill.logit": _NOT_NEGATIVE,
    "distill.feature": _NOT_NEGATIVE,
    "loss.alignment.weight": _NOT_NEGATIVE,
    "loss.alignment.benign_weight": _SHARE,
    "loss.alignment.every": _COUNT,
    "loss.alignment.mask": _among("artifact", "random", "benign", "saliency"),
    "data.name": _among("demo", "folder", "xaigd", "manifest", "qreal"),
    "data.val_fraction": ("above 0 and below 0.5", lambda v: 0 < v < 0.5),
    "data.unlabeled_val": _COUNT,
    "data.folds": ("at least 2", lambda v: v >= 2),
    "data.fold": _NOT_NEGATIVE,
    "data.limit": _COUNT,
    "data.batch_size": _COUNT,
    "data.eval_batch_size": _COUNT,
    "data.workers": _NOT_NEGATIVE,
    "data.levels": _COUNT,
    "data.on_error": _among("raise", "skip"),
    "data.check": _among("full", "counts", "off"),
    "data.demo_train": _COUNT,
    "data.demo_val": _COUNT,
    "data.demo_test": _COUNT,
    "data.demo_size": _COUNT,
    "data.demo_seed": _NOT_NEGATIVE,
    "data.demo_photos": _among("all", "classic"),
    "data.demo_migan": _SHARE,
    "data.augment.jpeg_quality": (
        "[lowest, highest] with 1 <= lowest <= highest <= 100, or []",
        lambda v: not v or (len(v) == 2 and 1 <= v[0] <= v[1] <= 100),
    ),
    "data.augment.jpeg_on": _among("auto", "both", "fake", "none"),
    "data.augment.webp": _SHARE,
    "data.augment.resave": _SHARE,
    "data.augment.blur": _SHARE,
    "data.augment.hflip": _SHARE,
    "data.augment.vflip": _SHARE,
    "data.augment.rotate": _SHARE,
    "data.augment.color": _SHARE,
    "data.augment.scale": (
        "[lowest, highest] with 0 < lowest <= highest",
        lambda v: len(v) == 2 and 0 < v[0] <= v[1] < math.inf,
    ),
    "data.augment.crop_size": _SIZE,
    "data.augment.max_category_ratio": ("above 0 and at most 1", lambda v: 0 < v <= 1),
    "optim.lr": _POSITIVE,
    "optim.head_lr": _POSITIVE,
    "optim.weight_decay": _NOT_NEGATIVE,
    "optim.layer_decay": ("above 0 and at most 1", lambda v: 0 < v <= 1),
    "optim.betas": (
        "two numbers, each at least 0 and below 1",
        lambda v: len(v) == 2 and all(0 <= beta < 1 for beta in v),
    ),
    "optim.warmup": _SHARE,
    "optim.schedule": _among("cosine", "linear", "constant"),
    "optim.min_lr_ratio": _SHARE,
    "optim.clip_norm": _NOT_NEGATIVE,
    "optim.ema": _SHARE_BELOW_1,
    "train.epochs": _COUNT,
    "train.max_steps": _COUNT,
    "train.accumulate": _COUNT,
    "train.precision": _among("auto", "32", "bf16", "16"),
    "train.device": _among("auto", "cpu", "gpu"),
    "train.devices": _COUNT,
    "train.strategy": _among("auto", "ddp", "fsdp", "deepspeed_stage_1", "deepspeed_stage_2"),
    "train.eval_every": _COUNT,
    "train.picture_every": _NOT_NEGATIVE,
    "train.pictures": _COUNT,
    "train.log_every": _COUNT,
    "train.monitor": _among(
        "balanced_accuracy", "map_iou", "mask_iou", "joint", "teacher_cc", "loss"
    ),
}


def problems(config: Config) -> Iterator[tuple[str, str]]:
    """Impossible values of a configuration, as (dotted key, what it must be)."""
    for key, (wanted, holds) in RULES.items():
        value: Any = config
        for part in key.split("."):
            value = getattr(value, part)
        if value is not None and not holds(value):
            yield key, f"must be {wanted}, not {value!r}"
    if config.data.name != "demo" and not config.data.root:
        yield "data.root", f"is required when data.name is {config.data.name!r}"
    yield from _mask_level_problems(config)
    yield from _fold_problems(config)
    if config.data.pairs and config.data.balance:
        yield "data.pairs", "and data.balance exclude each other"
    if not config.data.augment.crop:
        for key in ("crop_size", "crop_artifact"):
            if getattr(config.data.augment, key):
                yield f"data.augment.{key}", "needs data.augment.crop=true"
    if config.data.pairs_alike and not config.data.pairs:
        yield "data.pairs_alike", "needs data.pairs=true"
    if config.resume and config.overwrite:
        yield "overwrite", "and resume exclude each other: go on with the run, or replace it"
    weights = config.loss
    yield from _verdict_problems(config)
    yield from _alignment_mask_problems(config)
    yield from _heatmap_problems(config)
    yield from _mllm_problems(config)
    spatial = (weights.alignment.weight, weights.segmentation.weight)
    learnt = (weights.bce, weights.text, weights.words, *spatial)
    if not any((*learnt, *heatmap_terms(config), *teacher_terms(config))):
        more = " (distill.feature alone trains no head)" if config.distill.feature else ""
        yield "loss.bce", f"and the weights of all other losses are 0{more}: nothing to learn"
    if weights.segmentation.weight > 0 and config.data.batch_size == 1:
        yield "data.batch_size", "must be at least 2: UPerNet's batch norm needs several images"
    unknown = [c for c in config.model.segmentation.categories or () if c not in BY_LABEL]
    if unknown:
        known = ", ".join(BY_LABEL)
        yield "model.segmentation.categories", f"has unknown {unknown[0]!r}; known: {known}"
    if config.model.segmentation.head == "none":
        if weights.segmentation.weight > 0:
            yield "loss.segmentation.weight", "above 0 needs model.segmentation.head=upernet"
        if config.model.segmentation.evidence:
            yield "model.segmentation.evidence", "needs model.segmentation.head=upernet"
        if config.train.monitor in ("mask_iou", "joint"):
            yield "train.monitor", "of masks needs model.segmentation.head=upernet"


def _verdict_problems(config: Config) -> Iterator[tuple[str, str]]:
    """Two limits or none, and the threshold between them: ``is_fake`` never contradicts a verdict.

    So ``real_below <= threshold <= fake_from``.
    """
    model = config.model
    if (model.fake_from is None) != (model.real_below is None):
        yield "model.fake_from", "and model.real_below come together: set both or none"
    if model.limits is not None:
        low, high = model.limits
        if not low <= high:
            yield "model.real_below", f"must be at most model.fake_from ({high}), not {low}"
        elif not low <= model.threshold <= high:
            yield (
                "model.threshold",
                f"must be from model.real_below to model.fake_from ({low} to {high}), not "
                f"{model.threshold}",
            )


def _alignment_mask_problems(config: Config) -> Iterator[tuple[str, str]]:
    """Another mask replaces the annotated one in training, for all that learns from it."""
    alignment = config.loss.alignment
    for kind, folder in (("benign", alignment.segments), ("saliency", alignment.saliency)):
        if folder is not None and alignment.mask != kind:
            yield f"loss.alignment.{'segments' if kind == 'benign' else kind}", f"needs mask={kind}"
    if alignment.mask == "artifact":
        return
    if alignment.weight == 0:
        yield "loss.alignment.mask", "needs loss.alignment.weight above 0"
    if alignment.mask == "benign" and alignment.segments is None:
        yield (
            "loss.alignment.segments",
            "must name a folder of segments, as `artifactnet experiment alignment-ablation` makes",
        )
    if config.loss.segmentation.weight > 0:
        yield (
            "loss.segmentation.weight",
            f"must be 0 with loss.alignment.mask={alignment.mask}: both learn from the same mask",
        )


def heatmap_terms(config: Config) -> tuple[float, ...]:
    """Weights of the losses that compare a heatmap head with annotation."""
    terms = config.loss.heatmap
    return terms.focal, terms.laplace, terms.correlation, terms.score


def teacher_terms(config: Config) -> tuple[float, ...]:
    """Weights of the losses that compare a head with the teacher; none without a teacher.

    ``distill.feature`` is not among them: it reaches the backbone alone.
    """
    terms = config.distill
    if terms.teacher is None:
        return ()
    return terms.laplace, terms.divergence, terms.correlation, terms.score, terms.logit


def _fold_problems(config: Config) -> Iterator[tuple[str, str]]:
    folds, fold = config.data.folds, config.data.fold
    if (folds is None) != (fold is None):
        missing = "data.fold" if fold is None else "data.folds"
        yield missing, "must be set: data.fold=K of data.folds=N, K from 0"
    if folds is None:
        return
    if fold is not None and fold >= folds:
        yield "data.fold", f"must be below data.folds={folds}: folds are counted from 0"
    if config.data.name == "demo":
        yield "data.folds", "is not for data.name=demo, whose images show few photographs"
    if config.mllm.base is not None and config.mllm.task == "heie":
        yield "data.folds", "is not for a HEIE on a language model"


def _mask_level_problems(config: Config) -> Iterator[tuple[str, str]]:
    if config.data.mask_levels and config.data.name != "folder":
        yield "data.mask_levels", "needs data.name=folder: other data state categories themselves"
    for level, meaning in config.data.mask_levels.items():
        if not str(level).isdecimal():
            yield "data.mask_levels", f"has the level {level!r}; levels are integers, 0 or more"
        if meaning not in (ARTIFACT, NO_ARTIFACT, *BY_LABEL):
            known = ", ".join((ARTIFACT, NO_ARTIFACT, *BY_LABEL))
            yield "data.mask_levels", f"maps {level} to {meaning!r}; known: {known}"


def _heatmap_problems(config: Config) -> Iterator[tuple[str, str]]:
    heatmap = config.model.heatmap
    if heatmap.head == "none":
        if any(heatmap_terms(config)):
            yield "loss.heatmap", "above 0 needs model.heatmap.head=decoder or mapper"
        if config.distill.teacher is not None:
            yield "distill.teacher", "needs model.heatmap.head=decoder or mapper"
    elif config.loss.alignment.weight > 0:
        yield (
            "loss.alignment.weight",
            "above 0 needs model.heatmap.head=none: a model has one heatmap, predicted or attended",
        )
    elif config.model.segmentation.head != "none":
        yield (
            "model.heatmap.head",
            "needs model.segmentation.head=none: a model has one source of heatmaps",
        )
    if heatmap.head == "mapper":
        yield from _mapper_problems(config)
        if config.model.context.backbone:
            yield "model.context.backbone", "does not go with model.heatmap.head=mapper"
    yield from _feature_problems(config)
    if config.train.monitor == "teacher_cc" and config.distill.teacher is None:
        yield "train.monitor", "teacher_cc needs distill.teacher"


def _mapper_problems(config: Config) -> Iterator[tuple[str, str]]:
    heatmap, crop = config.model.heatmap, config.data.augment.crop_size
    sizes = {"model.image_size": config.model.image_size}
    if crop is not None:
        sizes["data.augment.crop_size"] = crop
    for name, size in sizes.items():
        if any(side % heatmap.tile for side in size):
            yield "model.heatmap.tile", f"must divide both sides of {name}"
        rows, columns = (side // heatmap.tile for side in size)
        if rows * columns > heatmap.max_tiles:
            yield "model.heatmap.max_tiles", f"is below the {rows} x {columns} tiles of {name}"
    if heatmap.width % heatmap.heads:
        yield "model.heatmap.heads", "must divide model.heatmap.width"


def _feature_problems(config: Config) -> Iterator[tuple[str, str]]:
    if config.distill.teacher is None or not config.distill.feature:
        return
    if config.data.batch_size == 1:
        yield "data.batch_size", "must be at least 2: distill.feature relates images of a batch"
    if "backbone" in config.freeze:
        yield "distill.feature", "must be 0 with freeze=[backbone]: it trains the backbone alone"


def _mllm_problems(config: Config) -> Iterator[tuple[str, str]]:
    if (config.mllm.task in QREAL_TASKS) != (config.data.name == "qreal"):
        yield "data.name", f"qreal and mllm.task={'|'.join(QREAL_TASKS)} go together"
    if config.mllm.base is None:
        if config.loss.text:
            yield "loss.text", "above 0 needs mllm.base"
        if config.loss.words:
            yield "loss.words", "above 0 needs mllm.base"
        if config.train.strategy not in ("auto", "ddp"):
            yield "train.strategy", "must be auto or ddp: the others are for mllm.base"
        if config.mllm.task != "heie":
            yield "mllm.base", f"must name the language model for mllm.task={config.mllm.task}"
        return
    if config.mllm.quantize != "none" and not config.mllm.lora_rank:
        yield "mllm.lora_rank", "must be above 0: quantised weights cannot be tuned"
    if config.mllm.quantize != "none" and config.mllm.tune == "language_projector":
        yield "mllm.tune", "must be all or language: quantised projectors cannot be tuned"
    if config.distill.teacher is not None:
        yield "distill.teacher", "must be null with mllm.base, which is a teacher"
    if config.mllm.tune == "projector" and config.mllm.lora_rank:
        yield "mllm.lora_rank", "must be 0 with mllm.tune=projector, which has no adapters"
    if config.mllm.tune.startswith("language") and not config.mllm.lora_rank:
        yield "mllm.tune", "must be all or projector with mllm.lora_rank=0, which has no adapters"
    if config.mllm.task == "fakexplainer":
        yield from _fakexplainer_problems(config)
    elif config.mllm.task in QREAL_TASKS:
        yield from _qreal_problems(config)
    elif config.mllm.task == "xaigd_pad":
        yield from _pad_problems(config)
    else:
        yield from _heie_problems(config)
    if config.mllm.task != "heie" and config.mllm.sequence_bias:
        yield "mllm.sequence_bias", "is for mllm.task=heie"
    if config.mllm.task != "fakexplainer" and config.mllm.temperature:
        yield "mllm.temperature", "above 0 is for mllm.task=fakexplainer"


def _heie_problems(config: Config) -> Iterator[tuple[str, str]]:
    if config.model.heatmap.head != "mapper":
        yield "mllm.base", "needs model.heatmap.head=mapper"
    if config.model.temperature != 1 or config.model.limits is not None:
        yield "mllm.base", "goes with model.temperature=1 and no model.fake_from: it has no logit"
    if config.loss.bce:
        yield "loss.bce", "must be 0 with mllm.base: HEIE judges plausibility, not who made it"
    if config.mllm.text == "none" and config.loss.text:
        yield "loss.text", "must be 0 where mllm.text=none: there is no text to learn"
    if config.loss.words and config.mllm.tune == "language":
        yield "loss.words", "must be 0 with mllm.tune=language: it teaches the projector"
    if config.train.monitor != "loss":
        yield "train.monitor", "must be loss with mllm.base"


def _qreal_problems(config: Config) -> Iterator[tuple[str, str]]:
    if config.mllm.stage != "sft":
        yield "mllm.stage", f"must be sft with mllm.task={config.mllm.task}"
    if config.data.folds is not None:
        yield "data.folds", "must be null with data.name=qreal: its file names the splits"


def _fakexplainer_problems(config: Config) -> Iterator[tuple[str, str]]:
    mllm = config.mllm
    if mllm.stage == "sft":
        if mllm.adapters is not None:
            yield "mllm.adapters", "is for mllm.stage=grpo; sft starts from mllm.base"
        return
    if mllm.adapters is None and mllm.cold_start:
        yield (
            "mllm.adapters",
            "must name an sft run (mllm.adapters=runs/NAME): grpo of answers that follow no format "
            "has nothing to reward; mllm.cold_start=false starts from the base anyway",
        )
    if mllm.adapters is None and mllm.layout == "brief":
        yield "mllm.layout", "must be user or system without mllm.adapters: brief names no form"
    yield from _generation_problems(config)


def _pad_problems(config: Config) -> Iterator[tuple[str, str]]:
    if config.mllm.stage != "grpo":
        yield "mllm.stage", "must be grpo with mllm.task=xaigd_pad"
    if config.data.name != "xaigd":
        yield "data.name", "must be xaigd with mllm.task=xaigd_pad: figures are of its polygons"
    yield from _generation_problems(config)


def _generation_problems(config: Config) -> Iterator[tuple[str, str]]:
    together = config.data.batch_size * config.train.accumulate * config.train.devices
    if together % config.mllm.grpo.generations:
        yield (
            "mllm.grpo.generations",
            f"must divide data.batch_size x train.accumulate x train.devices, which is {together}",
        )
