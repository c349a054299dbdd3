"""What makes a model give the predictions that it gives, in a few characters."""

from __future__ import annotations

from dataclasses import is_dataclass
from hashlib import blake2b
from itertools import chain
from pathlib import Path

import torch
from torch import nn

from artifactnet.files import hash_files
from artifactnet.inference.backends.exported import ExportedModel
from artifactnet.inference.base import BasePredictor

_DIGEST = 8  # bytes


def model_fingerprint(predictor: BasePredictor) -> str:
    """Hash of a predictor's weights, thresholds and preprocessing; seconds for large models.

    Two predictors of one fingerprint give the same predictions, up to the rounding of a device.

    Raises:
        OSError: the file of an exported model cannot be read any more.
    """
    hasher = blake2b(digest_size=_DIGEST)
    model = getattr(predictor, "model", None)
    config = getattr(model, "config", None)
    about = (
        type(predictor).__name__,
        predictor.threshold,
        predictor.warnings,
        getattr(predictor, "mode", None),  # of a language model
        config if is_dataclass(config) else None,
        *filter(None, [getattr(predictor, "generation", None)]),  # of HEIE
    )
    hasher.update(repr(about).encode("utf-8", "backslashreplace"))
    if isinstance(model, ExportedModel):
        file = Path(model.path)
        weights = file.with_suffix(".bin")  # of OpenVINO
        return hash_files([file, weights] if file.suffix == ".xml" else [file], hasher)
    if isinstance(model, nn.Module):
        _add_weights(hasher, model)
    return hasher.hexdigest()


def module_fingerprint(model: nn.Module | None, about: str) -> str:
    """Hash of a module's weights, and of whatever else decides its answers."""
    hasher = blake2b(about.encode("utf-8", "backslashreplace"), digest_size=_DIGEST)
    if model is not None:
        _add_weights(hasher, model)
    return hasher.hexdigest()


def _add_weights(hasher: blake2b, model: nn.Module) -> None:
    # a state dict of quantised layers holds more than tensors
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        hasher.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        values = tensor.detach().cpu().contiguous().flatten()
        hasher.update(values.view(torch.uint8).numpy().data)
