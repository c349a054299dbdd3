"""Weights of a fine-tuned vision-language model on disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from artifactnet.files import atomic_path
from artifactnet.types import ArtifactNetError


def save_tensors(path: Path, state: Mapping[str, Tensor]) -> None:
    """Atomically write tensors, wherever they are, as safetensors."""
    from safetensors.torch import save_file

    copies = {k: v.detach().cpu().contiguous().clone() for k, v in state.items()}
    with atomic_path(path) as temporary:
        save_file(copies, temporary)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read what `save_tensors` wrote.

    Raises:
        ArtifactNetError: the file is missing or broken.
    """
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:  # the reader's own error type is private; all mean a broken file
        raise ArtifactNetError(f"{path}: cannot be read as safetensors: {error}") from error


def read_facts_file(path: Path, version: int, what: str) -> dict[str, Any]:
    """Content of the JSON file that describes a saved model.

    Args:
        path: the file.
        version: its ``format``, as this version of the package reads it.
        what: the kind of model, as in "not a saved HEIE".

    Raises:
        ArtifactNetError: it cannot be read, or has another format.
    """
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if facts["format"] != version:
            raise ArtifactNetError(
                f"{path}: format {facts['format']}, but this version reads format {version}; "
                "update artifactnet"
            )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ArtifactNetError(f"{path}: not a saved {what} ({error!r})") from error
    return facts


def save_base(base: Any, processor: Any, folder: Path) -> None:
    """Write a base model and its processor completely, then replace older ones in ``folder``."""
    fresh, old = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    base.save_pretrained(fresh)
    processor.save_pretrained(fresh)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
