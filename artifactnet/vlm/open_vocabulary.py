"""Open-vocabulary detection: boxes of a thing in an image, by its name (Grounding DINO)."""

from __future__ import annotations

import threading
from typing import Any

import torch
from PIL import Image

from artifactnet.types import ArtifactNetError, UInt8Array
from artifactnet.vlm.base import read_checkpoint, require_mllm_extra

FAMILIES = ("grounding-dino", "mm-grounding-dino")  # their processors read boxes alike
BASE = "IDEA-Research/grounding-dino-base"
THRESHOLD = 0.25  # of the score, in [0, 1]
_ROUNDED = 6  # decimals


class OpenVocabularyDetector:
    """Finds things by name; loads its model when it is first needed. Thread-safe.

    Args:
        base: checkpoint of Grounding DINO for transformers, by name or folder.
        revision: branch, tag or commit of a checkpoint given by name.
        device: where it runs.
        threshold: score in [0, 1] above which a box is reported.

    Attributes:
        identity: what its boxes depend on beside the image and the name.
    """

    def __init__(
        self,
        base: str = BASE,
        revision: str | None = None,
        device: str | torch.device = "cpu",
        threshold: float = THRESHOLD,
    ) -> None:
        self.identity = f"{base}{f'@{revision}' if revision else ''}, threshold {threshold:g}"
        self._base, self._revision, self._device = base, revision, torch.device(device)
        self._threshold = threshold
        self._loaded: tuple[Any, Any] | None = None
        self._lock = threading.Lock()

    def detect(
        self, image: UInt8Array, name: str
    ) -> tuple[list[tuple[float, float, float, float]], list[float]]:
        """Where a thing is.

        Args:
            image: (H, W, 3).
            name: of one thing; several in one query would come back merged.

        Returns:
            Boxes (x1, y1, x2, y2) in pixels, which may reach out of the image, and their scores
            in [0, 1]; both empty if nothing was found.

        Raises:
            ArtifactNetError: the checkpoint cannot be loaded, or is of another family.
        """
        with self._lock, torch.inference_mode():  # a tokenizer serves one thread
            if self._loaded is None:
                self._loaded = self._load()
            model, processor = self._loaded
            inputs = processor(
                # the model was trained on lower case, and on a full stop behind every name
                images=Image.fromarray(image),
                text=f"{name.lower()}.",
                return_tensors="pt",
            ).to(self._device)
            found = processor.post_process_grounded_object_detection(
                model(**inputs),
                inputs["input_ids"],
                threshold=self._threshold,
                text_threshold=self._threshold,
                target_sizes=[image.shape[:2]],
            )[0]
        boxes = [
            (round(x1, _ROUNDED), round(y1, _ROUNDED), round(x2, _ROUNDED), round(y2, _ROUNDED))
            for x1, y1, x2, y2 in found["boxes"].tolist()
        ]
        return boxes, [round(score, _ROUNDED) for score in found["scores"].tolist()]

    def _load(self) -> tuple[Any, Any]:
        require_mllm_extra()
        from transformers import AutoConfig, AutoModelForZeroShotObjectDetection, AutoProcessor

        what = f"detector {self._base}"
        about = (self._base, self._revision, what)
        family = read_checkpoint(AutoConfig, *about).model_type
        if family not in FAMILIES:
            raise ArtifactNetError(
                f"{what}: model family {family!r} is not supported ({', '.join(FAMILIES)})"
            )
        processor = read_checkpoint(AutoProcessor, *about)
        model, info = read_checkpoint(
            AutoModelForZeroShotObjectDetection, *about, output_loading_info=True
        )
        missing = sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))
        if missing:  # transformers would go on with random ones
            raise ArtifactNetError(
                f"{what}: {len(missing)} weights are missing, e.g. {missing[0]}: is the checkpoint "
                "complete?"
            )
        return model.eval().to(self._device), processor
