"""A detector to the hub: its file, its config and a card made of the results of its run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from artifactnet.config import to_dict
from artifactnet.files import sha256_file
from artifactnet.inference.model_card import TrainedRun, check_seeds, model_card, read_run
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.models.checkpoint import load_checkpoint, save_checkpoint
from artifactnet.models.hub import (
    MODEL_FILE,
    PREFIX,
    Pushed,
    parse_address,
    upload_model,
)
from artifactnet.models.metadata import FORMAT, read_metadata
from artifactnet.runs import run_folder
from artifactnet.types import ArtifactNetError


def publish(
    model: ArtifactNet,
    source: Path | None,
    repo_id: str,
    *,
    runs: Sequence[str | Path] = (),
    licence: str | None = None,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    token: str | None = None,
) -> Pushed:
    """Upload ``model.safetensors``, ``config.json`` and ``README.md`` as one commit.

    The file that the model was loaded from is uploaded as it is. If the model has changed since,
    or was made in memory, it is saved first, and the card has no figures.

    Args:
        model: the detector.
        source: the file that it was loaded from, or None.
        repo_id, runs, licence, private, revision, message, token: see `Predictor.push_to_hub`.

    Raises:
        ArtifactNetError: see `Predictor.push_to_hub`.
    """
    at = "" if revision is None else f"@{revision}"
    address = parse_address(f"{PREFIX}{repo_id}{at}")
    file = source if source is not None and _is_in(model, source) else None
    trained = _trained_runs(file, runs)
    packed = {} if file is None else read_metadata(file)["extra"].get("packed", {})
    card = model_card(
        address.repository, model, trained, licence=licence, trained_on=packed.get("trained_on")
    )
    config = {
        "library_name": "artifactnet",
        "artifactnet_version": version("artifactnet"),
        "format": FORMAT,
        "model": to_dict(model.config) | {"weights": None},
        "notices": list(model.notices),
    }
    files = {
        "config.json": (json.dumps(config, indent=2) + "\n").encode(),
        "README.md": card.encode(),
    }
    words = message or f"Upload with ArtifactNet {version('artifactnet')}"
    with TemporaryDirectory() as folder:
        if file is None:
            file = Path(folder) / MODEL_FILE
            save_checkpoint(model, file)
        return upload_model(
            address, {MODEL_FILE: file, **files}, words, private=private, token=token
        )


def _is_in(model: ArtifactNet, file: Path) -> bool:
    """Whether a file still holds exactly this model."""
    if not file.is_file():
        return False
    saved = load_checkpoint(file)
    if (to_dict(saved.config), saved.notices) != (to_dict(model.config), model.notices):
        return False
    ours, theirs = model.state_dict(), saved.state_dict()
    return ours.keys() == theirs.keys() and all(
        torch.equal(tensor.cpu(), theirs[name]) for name, tensor in ours.items()
    )


def _trained_runs(file: Path | None, named: Sequence[str | Path]) -> list[TrainedRun]:
    """The run that made a file, then the others that were named; none if it is of no run."""
    folders = [Path(folder).resolve() for folder in named]
    own = None if file is None else _own_run(file.resolve(), folders)
    if own is None:
        if folders:
            raise ArtifactNetError(
                f"{', '.join(map(str, named))}: none of these runs made this model (it changed "
                "since it was loaded, or is of another run), so their figures are not its own"
            )
        return []
    found = [read_run(folder) for folder in (own, *(f for f in folders if f != own))]
    check_seeds(found)
    return found


def _own_run(file: Path, folders: Sequence[Path]) -> Path | None:
    """The run whose best model a file is, or was packed from, among ``folders`` in that case."""
    if file.name == run_folder.BEST and (file.parent / run_folder.CONFIG).is_file():
        return file.parent
    original = read_metadata(file)["extra"].get("packed", {}).get("original_sha256")
    for folder in folders:
        best = folder / run_folder.BEST
        if best.is_file() and original == sha256_file(best):
            return folder
    return None
