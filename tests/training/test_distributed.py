"""Two gloo processes on CPU take the step that one process takes on the joined batch."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from artifactnet.config import Config
from artifactnet.training.trainer import train_detector

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


ROLLOUT = ("model.attention.method=rollout", "model.attention.second_order=true")
GRADIENT = "model.attention.method=gradient_rollout"
HEADED = (
    "model.backbone_kwargs.depth=4",
    "model.heatmap.width=8",
    "loss.alignment.weight=0",
    "loss.heatmap.focal=1",
)
CASES = {  # name -> options, and into how many parts each process divides its batch
    "gradient": ((GRADIENT, "model.attention.second_order=true"), 1),
    "parts": ((GRADIENT, "model.attention.second_order=false"), 2),
    # no loss reaches the score, nor a mapper's deviation
    "decoder": ((*HEADED, "model.heatmap.head=decoder"), 1),
    "mapper": (
        (
            *(*HEADED, "model.heatmap.head=mapper", "model.heatmap.tile=16"),
            *("model.heatmap.heads=2", "model.heatmap.fusion=fixed"),
        ),
        1,
    ),
}
ONE_AFTER_ANOTHER = """
import json, sys
from artifactnet.cli import main
for arguments in json.loads(sys.argv[1]):
    assert main(arguments) == 0
"""


def command(folder: Path, name: str, options: Sequence[str], parts: int) -> list[str]:
    """Arguments of a run in two processes that take a batch of eight together."""
    shared = ["train", str(folder / "tiny.yaml"), *OPTIONS, *options, f"out={folder / 'runs'}"]
    shared += [f"name={name}", f"data.batch_size={4 // parts}", f"train.accumulate={parts}"]
    return [*shared, "train.devices=2", "train.strategy=ddp"]


def in_two_processes(folder: Path, arguments: list[str]) -> str:
    """What they print."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_equal(one: Path, two: Path) -> None:
    """The step of one process and one batch, and of two processes or parts of a batch."""
    assert first_loss(two) == pytest.approx(first_loss(one), rel=1e-6)
    states = [torch.load(folder / "last.ckpt", weights_only=True) for folder in (one, two)]
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
    for folder in (one, two):
        assert (folder / "finished.json").is_file()


@pytest.mark.slow
def test_two_processes_equal_one(tiny: Callable[..., Config], tmp_path: Path) -> None:
    one = train_detector(tiny(*OPTIONS, *ROLLOUT, "name=one", "data.batch_size=8"))
    arguments = command(tmp_path, "two", ROLLOUT, 1)
    printed = in_two_processes(tmp_path, ["-m", "artifactnet", *arguments])
    check_equal(one.run_dir, tmp_path / "runs" / "two")
    assert printed.count("use it:") == 1


@pytest.fixture(scope="module")
def runs(tiny_config: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All other cases, in one process and in two; the two are started once for all of them."""
    folder = tmp_path_factory.mktemp("cases")
    (folder / "cases.py").write_text(ONE_AFTER_ANOTHER)
    for name, (options, _) in CASES.items():
        own = (*OPTIONS, *options, f"name=one_{name}", "data.batch_size=8")
        train_detector(tiny_config(folder, *own))
    commands = [command(folder, name, *details) for name, details in CASES.items()]
    printed = in_two_processes(folder, ["cases.py", json.dumps(commands)])
    assert printed.count("use it:") == len(CASES)
    return folder / "runs"


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_processes_equal_one_whatever_learns(runs: Path, name: str) -> None:
    check_equal(runs / f"one_{name}", runs / name)
