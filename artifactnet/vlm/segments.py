"""Segments of an image by SAM (Kirillov et al. 2023): all that a grid of points finds."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from artifactnet.types import ArtifactNetError, UInt8Array
from artifactnet.vlm.base import read_checkpoint, require_mllm_extra

FAMILIES = ("sam",)
_POINTS_PER_BATCH = 64


class SamSegmenter:
    """Makes masks of everything in an image; loads its model when it is first needed.

    Args:
        base: checkpoint of SAM for transformers (facebook/sam-vit-huge), by name or folder.
        device: where it runs.
        points: of the grid, along a side.
        quality: masks of which the model itself expects a smaller IoU are left out.
        stability: masks that change more under another threshold are left out.
    """

    def __init__(
        self,
        base: str,
        device: str | torch.device = "cpu",
        points: int = 32,
        quality: float = 0.88,
        stability: float = 0.95,
    ) -> None:
        self._base, self._device = base, torch.device(device)
        self._options = {
            "points_per_crop": points,
            "pred_iou_thresh": quality,
            "stability_score_thresh": stability,
        }
        self._pipeline: Any = None

    def __call__(self, image: UInt8Array) -> list[npt.NDArray[np.bool_]]:
        """Masks of an (H, W, 3) image, each (H, W); they may overlap, and leave pixels out.

        Raises:
            ArtifactNetError: the checkpoint cannot be loaded, or is of another family.
        """
        if self._pipeline is None:
            self._pipeline = self._load()
        with torch.inference_mode():
            found = self._pipeline(
                Image.fromarray(image), points_per_batch=_POINTS_PER_BATCH, **self._options
            )
        masks = (np.asarray(mask, dtype=bool) for mask in found["masks"])
        return [mask for mask in masks if mask.any()]

    def _load(self) -> Any:
        require_mllm_extra()
        from transformers import AutoConfig, AutoImageProcessor, SamModel, pipeline

        what = f"segmenter {self._base}"
        about = (self._base, None, what)
        family = read_checkpoint(AutoConfig, *about).model_type
        if family not in FAMILIES:
            raise ArtifactNetError(
                f"{what}: model family {family!r} is not supported ({', '.join(FAMILIES)})"
            )
        processor = read_checkpoint(AutoImageProcessor, *about)
        model = read_checkpoint(SamModel, *about).eval()
        return pipeline(
            "mask-generation", model=model, image_processor=processor, device=self._device
        )
