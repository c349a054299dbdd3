"""What happens beside the steps of a training: logs, and checkpoints that are whole or ignored."""

from __future__ import annotations

import importlib.util
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from artifactnet.files import write_text
from artifactnet.training.run import Run
from artifactnet.vlm.tuning_arguments import CHECKPOINTS

METRICS = Path("logs") / "metrics.jsonl"
ANSWERS = Path("logs") / "answers.jsonl"  # a few sampled answers of every logged step of GRPO
_COMPLETE = "complete"  # the file that a checkpoint gets when all of it is written


def callbacks(
    run: Run,
    shown: dict[str, str],
    also: Callable[[int, dict[str, float]], None] | None = None,
) -> list[TrainerCallback]:
    """What every stage does beside its steps; arguments as of `MetricsLog`."""
    found: list[TrainerCallback] = [WholeCheckpoints(), MetricsLog(run.folder, shown, also)]
    wanted = run.config.train.tensorboard and run.main
    if wanted and importlib.util.find_spec("tensorboard") is not None:
        from torch.utils.tensorboard import SummaryWriter
        from transformers.integrations import TensorBoardCallback

        found.append(TensorBoardCallback(SummaryWriter(run.folder / "tensorboard")))
    return found


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint of a run; parts of others, left by a kill, are removed."""
    found = []
    for path in (folder / CHECKPOINTS).glob("checkpoint-*"):
        if (path / _COMPLETE).is_file():
            found.append((int(path.name.rpartition("-")[2]), path))
        else:
            shutil.rmtree(path)
    return max(found)[1] if found else None


class WholeCheckpoints(TrainerCallback):
    """Marks a checkpoint as whole when every process has written its part."""

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Called after each checkpoint, by every process."""
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        if state.is_world_process_zero:
            folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
            (folder / _COMPLETE).touch()


class MetricsLog(TrainerCallback):
    """Writes every logged metric to ``logs/metrics.jsonl`` and the ``shown`` ones to the terminal.

    Args:
        folder: of the run.
        shown: metric -> its name on the terminal.
        also: called with the metrics of each line, in the main process.
    """

    def __init__(
        self,
        folder: Path,
        shown: dict[str, str],
        also: Callable[[int, dict[str, float]], None] | None = None,
    ) -> None:
        self._path, self._shown, self._also = folder / METRICS, shown, also
        self._answers = folder / ANSWERS
        self._started = time.perf_counter()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """A resumed run takes some steps again: their earlier lines go."""
        if state.is_world_process_zero:
            _keep_steps(self._path, state.global_step)
            _keep_steps(self._answers, state.global_step - 1)  # answers precede their step

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Called with the mean of each metric since the last line."""
        if not state.is_world_process_zero or logs is None:
            return
        values = {k: v for k, v in logs.items() if isinstance(v, int | float)}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": state.global_step, **values}) + "\n")
        shown = [f"{n} {values[k]:.4g}" for k, n in self._shown.items() if k in values]
        if shown:
            seconds = time.perf_counter() - self._started
            line = f"step {state.global_step}/{state.max_steps}  {'  '.join(shown)}"
            print(f"{line}  |  {seconds:.0f} s", flush=True)
        if self._also is not None:
            self._also(state.global_step, values)


def _keep_steps(path: Path, last: int) -> None:
    """Leave out the lines of later steps, and what a kill left of a line."""
    if not path.is_file():
        return
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    kept = [line for line in lines if json.loads(line)["step"] <= last]
    write_text(path, "".join(line + "\n" for line in kept))


def quiet(trainer: Any) -> Any:
    """The trainer without the printing callback of transformers; `MetricsLog` prints instead."""
    trainer.remove_callback(PrinterCallback)
    return trainer
