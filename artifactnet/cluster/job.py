"""What a job is: which model answers about which images, how, and where to."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from artifactnet.cluster.storage import local_path
from artifactnet.cluster.units import digest
from artifactnet.files import hash_files
from artifactnet.inference.base import BasePredictor, PredictOptions
from artifactnet.inference.fingerprint import model_fingerprint
from artifactnet.inference.load import find_model, load_model
from artifactnet.inference.predictor import Predictor

TOGETHER = 1000  # images of a unit, about
_DIGEST = 8  # bytes


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A model as `load_model` takes it, by a name that means the same on every machine."""

    source: str
    device: str = "auto"
    backend: str | None = None
    threads: int = 0
    text: str | None = None

    def load(self, device: str | None = None) -> BasePredictor:
        """The model; see `load_model` for the errors.

        Args:
            device: where, instead of ``device``.
        """
        return load_model(
            self.source,
            device or self.device,
            backend=self.backend,
            threads=self.threads,
            text=self.text,
        )

    def fingerprint(self, predictor: BasePredictor) -> str:
        """What stands for the model, on every device; see `model_fingerprint`.

        A language model has weights of its own on a GPU, bfloat16 with the adapters merged in it.
        So its files stand for it.

        Args:
            predictor: the model, loaded.

        Raises:
            OSError: a file of it cannot be read any more.
        """
        folder = Path(self.source)
        if isinstance(predictor, Predictor) or not folder.is_dir():
            return model_fingerprint(predictor)
        about = f"{type(predictor).__name__} {getattr(predictor, 'mode', None)}"
        weights = sorted(folder.glob("*.safetensors")) + sorted(folder.glob("base/*.safetensors"))
        files = [folder / f"{find_model(folder).kind}.json", *weights]
        return hash_files(files, blake2b(about.encode(), digest_size=_DIGEST))


@dataclass(frozen=True, slots=True)
class Job:
    """All that a worker must know; see `make_job`.

    Attributes:
        sources: what is predicted.
        out: folder of the answers, absolute or a URL.
        folder: that relative paths start from.
        model: what answers.
        fingerprint: of the model.
        options: of the predictions; ``heatmaps`` says whether they are written.
        together: images of a unit, about.
    """

    sources: tuple[str, ...]
    out: str
    folder: str
    model: ModelChoice
    fingerprint: str
    options: PredictOptions
    together: int = TOGETHER

    def settings(self) -> dict[str, Any]:
        """How the answers are made, as in ``predictions.settings.json`` of a folder."""
        options = self.options
        return {
            "heatmaps": options.heatmaps,
            "save_masks": False,
            "tiles": options.tiles,
            "overlap": options.overlap if options.tiles else None,
            "min_area": options.min_area,
            "stability": options.stability,
            "levels": options.levels,
            "model": self.fingerprint,
        }

    def settings_id(self) -> str:
        """A few digits that stand for the settings."""
        return digest(json.dumps(self.settings(), sort_keys=True).encode())


def make_job(
    sources: Sequence[str],
    out: str,
    model: ModelChoice,
    predictor: BasePredictor,
    options: PredictOptions,
    together: int = TOGETHER,
) -> Job:
    """Describe a job so that it means the same on every machine.

    Args:
        sources: see `artifactnet.cluster.sources.list_units`.
        out: folder of the answers, a path or a URL.
        model: what answers; a path must lead to it on every machine.
        predictor: the same model, loaded here; whatever a worker loads must equal it.
        options: of `BasePredictor.options`.
        together: about how many images make a unit, and so a part.

    Raises:
        OSError: a file of the model cannot be read any more.
    """
    out = local_path(out)
    here = out if "://" in out else os.path.abspath(out)
    if Path(model.source).exists():
        source = os.path.abspath(model.source)
        model = ModelChoice(source, model.device, model.backend, model.threads, model.text)
    fingerprint = model.fingerprint(predictor)
    return Job(tuple(sources), here, os.getcwd(), model, fingerprint, options, together)
