"""`artifactnet.api.train` and `evaluate` in no time: what they leave behind, without training."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from artifactnet import api, files
from artifactnet.config import Config, load
from artifactnet.runs import run_folder


class InstantRuns:
    """Stands in for training and evaluation, and records the calls.

    Args:
        monkeypatch: of the test.
        figures: from the config of a training or evaluation, and the text of an evaluation, to
            the content of ``results.json``.
    """

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        figures: Callable[[Config, str | None], dict[str, Any]],
    ) -> None:
        self.trained: list[Config] = []
        self.evaluated: list[tuple[str, list[str] | str | None]] = []
        self.figures = figures
        monkeypatch.setattr(api, "train", self.train)
        monkeypatch.setattr(api, "evaluate", self.evaluate)

    def train(self, config: Config) -> None:
        self.trained.append(config)
        folder = Path(config.out) / config.name
        run_folder.prepare_run_folder(config)
        files.write_json(folder / "results.json", self.figures(config, None))
        run_folder.finish_run(folder, {})

    def evaluate(
        self, run: Path, overrides: Sequence[str] = (), *, text: str | None = None
    ) -> dict[str, Any]:
        self.evaluated.append((run.name, text or list(overrides)))
        return self.figures(load(run / run_folder.CONFIG, overrides), text)
