"""Evaluation of a trained HEIE, on its own run's data or on other data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from artifactnet.config import Config, ConfigError, load, to_dict
from artifactnet.engine import rundir
from artifactnet.engine.device import choose_device
from artifactnet.engine.evaluate import fingerprinted, print_figures, training_of
from artifactnet.mllm import results as tables
from artifactnet.mllm import saving
from artifactnet.mllm.chat import Chat
from artifactnet.mllm.data import TextData
from artifactnet.mllm.figures import evaluate_model
from artifactnet.mllm.heie import HEIE
from artifactnet.mllm.predictor import usual_text
from artifactnet.types import ArtifactNetError

# what may differ from the run; everything else belongs to the trained model
ALLOWED = ("data.", "train.device", "mllm.text", "mllm.question", "mllm.max_new_tokens")
# data keys that do not change which images are judged
_IMMATERIAL = ("batch_size", "eval_batch_size", "workers", "check", "augment")


def evaluate(
    run_dir: str | Path,
    overrides: Sequence[str] = (),
    text: str | None = None,
    chat: Chat | None = None,
) -> dict[str, Any]:
    """Evaluate a run's best model and write ``results.json``, ``results.md``, ``answers.jsonl``.

    On the run's own data, with the text that its model usually reads from, they replace those of
    the run; else they go to ``evaluations/<data>-<text>-<fingerprint>`` inside its folder.

    Args:
        run_dir: folder of the run.
        overrides: ``dotted.key=value`` strings of what `ALLOWED` names.
        text: where heatmap and score are read from, see `figures.evaluate_model`; None: the
            model's own text, or the fixed one where the run learned none.
        chat: compares generated texts with annotated ones; None leaves that out.

    Returns:
        The content of ``results.json``.

    Raises:
        ArtifactNetError: no such run, an override that an evaluation cannot have, or data that
            cannot be used.
    """
    own, config = open_config(run_dir, overrides)
    folder = Path(run_dir)
    text = text or usual_text(own.mllm)
    model = open_model(folder, config)
    data = TextData(config, model.processing)
    target = folder / subfolder(own, config, text)
    found = evaluate_model(model, data, config, text, folder, target, chat)
    if target == folder:
        found["training"] = training_of(folder)
    tables.write(target, found)
    print_figures(found, tables.terminal(found), target)
    return found


def open_config(run_dir: str | Path, overrides: Sequence[str] = ()) -> tuple[Config, Config]:
    """Config of a HEIE's run, and the same with overrides.

    Raises:
        ArtifactNetError: no run there, one without a model yet, or an override that an evaluation
            cannot have.
    """
    for override in overrides:
        if not override.startswith(ALLOWED):
            raise ConfigError(
                f"command line: {override.partition('=')[0]} cannot be changed for an "
                f"evaluation of a HEIE; what can: {', '.join(ALLOWED)}"
            )
    path = Path(run_dir) / rundir.CONFIG
    if not path.is_file():
        raise ArtifactNetError(f"{run_dir} is not the folder of a run (it has no {rundir.CONFIG})")
    if not saving.is_heie(run_dir):
        raise ArtifactNetError(
            f"{run_dir} has no {saving.FACTS} yet; finish the run with resume=true"
        )
    return load(path), load(path, overrides)


def open_model(folder: Path, config: Config) -> HEIE:
    """A run's best model on the config's device, asking and answering as the config says."""
    model = saving.load(folder, choose_device(config.train.device))
    model.mllm.max_new_tokens = config.mllm.max_new_tokens
    model.processing.question = config.mllm.question
    return model


def subfolder(own: Config, config: Config, text: str) -> Path:
    """Where results go, relative to the run: its own place only for what training judged too.

    Args:
        own: config of the run.
        config: of the evaluation.
        text: see `evaluate`.
    """
    before = _material(own, usual_text(own.mllm))
    after = _material(config, text)
    if before == after:
        return Path()
    decides = json.dumps(after, sort_keys=True)
    return Path("evaluations") / fingerprinted(config, decides, f"-{text}")


def _material(config: Config, text: str) -> dict[str, Any]:
    """What decides the figures of a given model."""
    data = {key: value for key, value in to_dict(config.data).items() if key not in _IMMATERIAL}
    mllm = config.mllm
    asked = [mllm.text, mllm.question, mllm.max_new_tokens]
    return {"data": data, "asked": asked, "text": text, "seed": config.seed}
