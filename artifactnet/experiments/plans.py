"""What is trained for each of the paper's tables, on the embedded data, and how it is shown."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Training:
    """One training of an experiment, repeated for every seed.

    Attributes:
        key: name of the row and of the runs, ``key_s0`` for seed 0.
        title: of the row.
        recipe: name of the config.
        start: key of the training whose weights it starts from.
        judges: it learns to tell real from fake; otherwise its verdicts mean nothing.
        segments: it has a segmentation head that was taught, now or before.
        method: how its verdict is explained, for tables of interpretation; None leaves it out.
        overrides: ``dotted.key=value`` strings that make it what its title says.
    """

    key: str
    title: str
    recipe: str
    start: str | None = None
    judges: bool = True
    segments: bool = False
    method: str | None = None
    overrides: tuple[str, ...] = ()


_AJ = Training("aj", "AJ-only", "swin_aj", method="grad_cam_smooth")
_PAD = Training("pad", "PAD-only", "swin_pad", judges=False, segments=True)
_PROBED = Training("lp", "transfer, linear probing", "swin_transfer_lp", start="pad", segments=True)
_TUNED = Training(
    "ft", "transfer, full fine-tuning", "swin_transfer_ft", start="pad", method="grad_cam_smooth"
)
_MULTI = Training(
    "multitask", "multi-task", "swin_multitask", segments=True, method="grad_cam_smooth"
)
_RANDOM = ("model.pretrained=false",)  # the packaged weights have seen the embedded masks
_BASELINE = Training(
    "base", "ViT baseline", "dinov2_baseline", method="relevance", overrides=_RANDOM
)
_ALIGNED = Training("align", "ViT aligned", "dinov2_align", method="relevance", overrides=_RANDOM)

# HEIE Table 5, from the top
_FUSIONS = {
    "global": "global only",
    "local": "local only",
    "fixed": "both, fixed weights",
    "learnable": "both, learnable weights",
    "uncertainty": "both, weighted by uncertainty",
}
_FUSED = tuple(
    Training(f"fusion_{mode}", title, "heie_vision", overrides=(f"model.heatmap.fusion={mode}",))
    for mode, title in _FUSIONS.items()
)

# X-AIGD Table 2, and Table 13 with the detectors that can be trained here
PLANS: dict[str, tuple[Training, ...]] = {
    "detection": (_AJ, _PAD, _PROBED, _TUNED, _MULTI),
    "interpretation": (_AJ, _PAD, _TUNED, _MULTI, _BASELINE, _ALIGNED),
    "fusion-ablation": _FUSED,
}
TITLES = {
    "detection": "Authenticity judgment and perceptual artifact detection (X-AIGD Table 2)",
    "interpretation": "Where detectors look, against annotated artifacts (X-AIGD Table 13)",
    "fusion-ablation": "How global and local heatmaps become one (HEIE Table 5)",
}
