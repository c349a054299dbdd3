"""The values each configuration key may have, in words and as a test.

`artifactnet.config` applies them after the types have been checked; a key whose value is
None (an optional one that is not set) is not tested.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

Rule = tuple[str, Callable[[Any], bool]]  # "must be ...", and whether a value is


def _among(*words: str) -> Rule:
    return f"one of {', '.join(words)}", lambda value: value in words


def _among_numbers(*numbers: int) -> Rule:
    return f"one of {', '.join(map(str, numbers))}", lambda value: value in numbers


_COUNT: Rule = ("at least 1", lambda v: v >= 1)
_NOT_NEGATIVE: Rule = ("a finite number, 0 or more", lambda v: 0 <= v < math.inf)
_POSITIVE: Rule = ("a finite number above 0", lambda v: 0 < v < math.inf)
_SHARE: Rule = ("from 0 to 1", lambda v: 0 <= v <= 1)
_SHARE_BELOW_1: Rule = ("at least 0 and below 1", lambda v: 0 <= v < 1)
_INSIDE: Rule = ("between 0 and 1, both excluded", lambda v: 0 < v < 1)
_CHANNELS: Rule = ("three finite numbers", lambda v: len(v) == 3 and all(map(math.isfinite, v)))
_SIZE: Rule = ("two integers above 0 (height, width)", lambda v: len(v) == 2 and min(v) > 0)
_PARTS = ("backbone", "head", "segmentation", "heatmap")  # of ArtifactNet
RULES: dict[str, Rule] = {
    "name": (
        "a plain folder name",
        lambda v: bool(v.strip()) and v not in (".", "..") and not set(v) & set("/\\\0"),
    ),
    "out": ("a folder", lambda v: bool(v.strip())),
    "seed": ("from 0 to 4294967295", lambda v: 0 <= v < 2**32),
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
    "model.drop_rate": _SHARE_BELOW_1,
    "model.drop_path_rate": _SHARE_BELOW_1,
    "model.attention.method": _among("rollout", "gradient_rollout", "grad_cam"),
    "model.attention.head_fusion": _among("mean", "max", "min"),
    "model.attention.discard_ratio": _SHARE_BELOW_1,
    "model.attention.form": _among("auto", "stored"),
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
    "model.lora.rank": _NOT_NEGATIVE,
    "model.lora.alpha": _POSITIVE,
    "model.lora.dropout": _SHARE_BELOW_1,
    "model.lora.target_modules": ("a list with at least one name", bool),
    "mllm.quantize": _among("none", "8bit", "4bit"),
    "mllm.lora_rank": _NOT_NEGATIVE,
    "mllm.lora_alpha": _POSITIVE,
    "mllm.lora_dropout": _SHARE_BELOW_1,
    "mllm.text": _among("written", "template", "none"),
    "mllm.question": ("text", lambda v: bool(v.strip())),
    "mllm.max_new_tokens": _COUNT,
    "loss.bce": _NOT_NEGATIVE,
    "loss.text": _NOT_NEGATIVE,
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
    "data.name": _among("demo", "folder", "xaigd", "manifest"),
    "data.val_fraction": ("above 0 and below 0.5", lambda v: 0 < v < 0.5),
    "data.limit": _COUNT,
    "data.batch_size": _COUNT,
    "data.eval_batch_size": _COUNT,
    "data.workers": _NOT_NEGATIVE,
    "data.on_error": _among("raise", "skip"),
    "data.check": _among("full", "counts", "off"),
    "data.demo_train": _COUNT,
    "data.demo_val": _COUNT,
    "data.demo_test": _COUNT,
    "data.demo_size": _COUNT,
    "data.demo_seed": _NOT_NEGATIVE,
    "data.augment.jpeg_quality": (
        "[lowest, highest] with 1 <= lowest <= highest <= 100, or []",
        lambda v: not v or (len(v) == 2 and 1 <= v[0] <= v[1] <= 100),
    ),
    "data.augment.jpeg_on": _among("fake", "both", "none"),
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
