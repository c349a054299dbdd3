"""Two gloo processes on CPU take the step that one process takes on the joined batch."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from artifactnet.config import Config
from artifactnet.training.trainer import train_detector

REPOSITORY = Path(__file__).parents[2]
OPTIONS = ("train.max_steps=1", "optim.clip_norm=0", "data.eval_batch_size=3")


def first_loss(folder: Path) -> float:
    with open(folder / "logs" / "version_0" / "metrics.csv", newline="") as handle:
        return next(
            float(row["train/loss_epoch"])
            for row in csv.DictReader(handle)
            if row["train/loss_epoch"]
        )


METHOD = "model.attention.method="
HEADED = (
    "model.backbone_kwargs.depth=4",
    "model.heatmap.width=8",
    "loss.alignment.weight=0",
    "loss.heatmap.focal=1",
)
CASES = {  # name -> options, and into how many parts each process divides its batch
    "rollout": ((f"{METHOD}rollout", "model.attention.second_order=true"), 1),
    "gradient": ((f"{METHOD}gradient_rollout", "model.attention.second_order=true"), 1),
    "parts": ((f"{METHOD}gradient_rollout", "model.attention.second_order=false"), 2),
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
ALL_RUNS = """
import json, sys
from artifactnet.cli import main
for arguments in json.loads(sys.argv[1]):
    assert main(arguments) == 0
"""


@pytest.fixture(scope="module")
def runs(tiny_config: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All cases, in one process and in two; the two are started once for all of them."""
    folder = tmp_path_factory.mktemp("cases")
    commands = []
    for name, (options, parts) in CASES.items():
        alone = (*OPTIONS, *options, f"name=one_{name}", "data.batch_size=8")
        train_detector(tiny_config(folder, *alone))
        both = ["train", str(folder / "tiny.yaml"), f"out={folder / 'runs'}", f"name={name}"]
        both += [f"data.batch_size={4 // parts}", f"train.accumulate={parts}"]
        commands.append([*both, *OPTIONS, *options, "train.devices=2", "train.strategy=ddp"])
    (folder / "cases.py").write_text(ALL_RUNS)
    done = subprocess.run(
        [sys.executable, "cases.py", json.dumps(commands)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("use it:") == len(CASES)
    assert "sync_dist" not in done.stderr  # Lightning advises it; the step has reduced its values
    return folder / "runs"


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
@pytest.mark.parametrize("name", CASES)
def test_two_processes_equal_one(runs: Path, name: str) -> None:
    check_equal(runs / f"one_{name}", runs / name)
