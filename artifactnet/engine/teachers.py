"""Who can teach: a saved model of ours, or a folder of heatmaps made elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from artifactnet.data.heatmap_folder import HeatmapFolder
from artifactnet.data.source import Splits
from artifactnet.data.teacher_cache import Identity
from artifactnet.engine import rundir
from artifactnet.engine.teacher_model import SILENT_SIGMA, ModelTeacher
from artifactnet.models import boxed
from artifactnet.types import (
    ArtifactNetError,
    Record,
    TeacherAnswer,
    UInt8Array,
)


class Teacher(Protocol):
    """What `artifactnet.engine.labelling.label` asks.

    Attributes:
        identity: what makes it this teacher and no other; answers are kept under it.
        about: more about it, for people.
        prepare: from a record and its (H, W, 3) pixels to what `answer` takes. It runs in the
            worker processes of a loader, so it holds no model.
        gives_features: whether its answers hold features.
    """

    gives_features: bool
    identity: Identity
    about: dict[str, Any]
    prepare: Callable[[Record, UInt8Array], Any]

    def check(self, splits: Splits) -> None:
        """Say before the work starts what can be known to be missing.

        Raises:
            ArtifactNetError: what is missing.
        """
        ...

    def answer(self, prepared: Sequence[Any]) -> list[TeacherAnswer]:
        """Answers about a batch, in order; their maps have the aspect ratio of the images.

        Raises:
            ArtifactNetError: names the image that has none.
        """
        ...


OpenTeacher = Callable[[str, str], Teacher]  # of a path and a device, see `open_teacher`


def open_teacher(path: str | Path, device: str | torch.device = "cpu") -> Teacher:
    """The teacher at a path.

    Args:
        path: a ``.safetensors`` file of ours, the name of a packaged model, a run's folder, or a
            folder of heatmaps.
        device: where a model runs.

    Raises:
        ArtifactNetError: nothing there, nothing that could teach, or a run without a model.
    """
    if str(path) in boxed.names() and not Path(path).exists():
        path = boxed.resolve(path)
    path = Path(path)
    if not path.exists():
        raise ArtifactNetError(
            f"distill.teacher={path}: no such file or folder; name a run, a .safetensors file or a "
            "folder of heatmaps"
        )
    if path.is_dir() and not (path / rundir.BEST).is_file():
        if (path / rundir.CONFIG).is_file():
            raise ArtifactNetError(
                f"distill.teacher={path}: a run without {rundir.BEST}; finish it with resume=true"
            )
        return HeatmapTeacher(path)
    return ModelTeacher(path / rundir.BEST if path.is_dir() else path, device)


class HeatmapTeacher:
    """Heatmaps made elsewhere: no deviation (sigma 1), no score, no verdict.

    Args:
        folder: of the heatmaps, see `HeatmapFolder`.

    Raises:
        ArtifactNetError: no heatmap there.
    """

    gives_features = False

    def __init__(self, folder: Path) -> None:
        self._heatmaps = HeatmapFolder(folder)
        self.identity: Identity = {"kind": "heatmaps", "hash": self._heatmaps.hash}
        self.about: dict[str, Any] = {
            "name": folder.name,
            "path": str(folder),
            "heatmaps": len(self._heatmaps),
            "artifactnet": version("artifactnet"),
        }
        self.prepare: Callable[[Record, UInt8Array], TeacherAnswer] = partial(
            _read_answer, self._heatmaps
        )

    def check(self, splits: Splits) -> None:
        """Every image must have a heatmap of its own.

        Raises:
            ArtifactNetError: names the first few that have none, and how many they are.
        """
        self._heatmaps.check(record for source in splits.values() for record in source.records)

    def answer(self, prepared: Sequence[TeacherAnswer]) -> list[TeacherAnswer]:
        """What was read, as it is."""
        return list(prepared)


def _read_answer(heatmaps: HeatmapFolder, record: Record, image: UInt8Array) -> TeacherAnswer:
    height, width = image.shape[:2]
    heatmap = heatmaps.read(record, (height, width))
    return TeacherAnswer(heatmap, np.full_like(heatmap, SILENT_SIGMA))
