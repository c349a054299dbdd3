"""Two gloo processes on CPU take the step that one process takes on the joined batch."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from artifactnet.config import Config
from artifactnet.engine.trainer import train

REPOSITORY = Path(__file__).parents[2]
OPTIONS = (
    "train.max_steps=1",
    "optim.clip_norm=0",
    "data.eval_batch_size=3",
)


def first_loss(folder: Path) -> float:
    with open(folder / "logs" / "version_0" / "metrics.csv", newline="") as handle:
        return next(
            float(row["train/loss_epoch"])
            for row in csv.DictReader(handle)
            if row["train/loss_epoch"]
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "second_order", "parts"),
    [
        ("rollout", "true", 1),
        ("gradient_rollout", "true", 1),
        ("gradient_rollout", "false", 2),
    ],
)
def test_two_processes_equal_one(
    tiny: Callable[..., Config], tmp_path: Path, method: str, second_order: str, parts: int
) -> None:
    """The step of one process and one batch, divided among two and, in time, into parts."""
    options = [*OPTIONS, f"model.attention.method={method}"]
    options.append(f"model.attention.second_order={second_order}")
    one = train(tiny(*options, "name=one", "data.batch_size=8"))
    command = [sys.executable, "-m", "artifactnet", "train", str(tmp_path / "tiny.yaml")]
    command += [*options, f"out={tmp_path / 'runs'}", "name=two", f"data.batch_size={4 // parts}"]
    command.append(f"train.accumulate={parts}")
    command += ["train.devices=2", "train.strategy=ddp"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    two = tmp_path / "runs" / "two"
    assert first_loss(two) == pytest.approx(first_loss(one.run_dir), rel=1e-6)
    states = [torch.load(folder / "last.ckpt", weights_only=True) for folder in (one.run_dir, two)]
    # after one step AdamW's first moment is 0.1 times the gradient
    moments = [state["optimizer_states"][0]["state"] for state in states]
    assert moments[0].keys() == moments[1].keys()
    for key, moment in moments[0].items():
        gradient, other = moment["exp_avg"], moments[1][key]["exp_avg"]
        assert torch.allclose(gradient, other, rtol=1e-4, atol=1e-7)
    assert max(float(moment["exp_avg"].abs().max()) for moment in moments[0].values()) > 1e-3
    weights = [state["state_dict"] for state in states]
    close = [torch.isclose(a, weights[1][key], atol=2e-5) for key, a in weights[0].items()]
    assert torch.cat([c.flatten() for c in close]).float().mean() > 0.999  # Adam divides by ~0
    # validation was split in two and joined again
    for folder in (one.run_dir, two):
        assert (folder / "finished.json").is_file()
    assert done.stdout.count("use it:") == 1
