"""Do the predictions belong to the images of the labels? Misspelt names would score zero."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from artifactnet.engine.score_labels import LabelRow
from artifactnet.taxonomy import AGNOSTIC, BY_LABEL, FINE_GRAINED
from artifactnet.types import ArtifactNetError


def check_layout(root: str | Path, task: str, rows: Sequence[LabelRow]) -> tuple[str, ...]:
    """Compare the folders of predicted masks with the images to be scored.

    Args:
        root: folder of the generators' folders.
        task: of `artifactnet.taxonomy.TASKS`; says how images lie below them.
        rows: of the images.

    Returns:
        a warning if there are folders for other images, which are not scored.

    Raises:
        ArtifactNetError: no such folder, the layout of the other task, an unknown category, a
            mask outside the folder of its image, or no folder belongs to any image.
    """
    if not Path(root).is_dir():
        raise ArtifactNetError(f"{root}: no such folder of predicted masks")
    uids: dict[str, set[str]] = {}
    for row in rows:
        uids.setdefault(row.generator, set()).add(row.uid)
    strange: list[str] = []
    known = 0
    for generator in _folders(str(root)):
        folder = os.path.join(root, generator)
        if generator not in uids:
            strange.append(folder)
            continue
        for path in _image_folders(folder, task, uids[generator]):
            if os.path.basename(path) in uids[generator]:
                known += 1
            else:
                strange.append(path)
    return report_strangers(strange, known)


def report_strangers(strange: Sequence[str], known: int) -> tuple[str, ...]:
    """Say which predictions are for images that the labels do not have.

    Args:
        strange: where those are: folders, or rows of a file.
        known: number of the other predictions.

    Returns:
        a warning if there are any.

    Raises:
        ArtifactNetError: there are only such predictions.
    """
    if strange and not known:
        raise ArtifactNetError(
            f"{strange[0]}: belongs to no image of the labels, nor does any other prediction; "
            "write generator and uid as the labels do"
        )
    if strange:
        others = f" and {len(strange) - 1} more" if strange[1:] else ""
        return (
            f"{strange[0]}{others}: predictions for images that the labels do not have; "
            "they are not scored",
        )
    return ()


def _image_folders(folder: str, task: str, uids: set[str]) -> list[str]:
    """Folders of one generator that should each hold the masks of one image."""
    names = _folders(folder)
    if task == AGNOSTIC:
        for name in names:
            if name in BY_LABEL and name not in uids:
                raise ArtifactNetError(
                    f"{os.path.join(folder, name)}: a category where a uid belongs; this is the "
                    f"layout of --task {FINE_GRAINED}"
                )
        return [os.path.join(folder, name) for name in names]
    for name in names:
        if name not in BY_LABEL:
            hint = (
                f"a uid where a category belongs; this is the layout of --task {AGNOSTIC}"
                if name in uids
                else f"unknown artifact category; known: {', '.join(BY_LABEL)}"
            )
            raise ArtifactNetError(f"{os.path.join(folder, name)}: {hint}")
    categories = [os.path.join(folder, name) for name in names]
    return [os.path.join(path, uid) for path in categories for uid in _folders(path)]


def _folders(path: str) -> list[str]:
    """Names of the folders in a folder that should hold nothing else."""
    names = []
    with os.scandir(path) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            if entry.is_dir():
                names.append(entry.name)
            elif entry.name.lower().endswith(".png"):
                raise ArtifactNetError(
                    f"{entry.path}: masks must lie in a folder called by the uid of their image"
                )
    return names
