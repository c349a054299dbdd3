"""Trained on each data set, judged on all: every pair once, nothing twice."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from artifactnet import files
from artifactnet.config import Config, load
from artifactnet.experiments.transfer import named_sets, run_transfer
from artifactnet.runs import run_folder
from artifactnet.types import ArtifactNetError

SETS = {"rich": "r.jsonl", "ab": "a.jsonl"}
SIZE = {"r.jsonl": 0.1, "a.jsonl": 0.2}


class Machine:
    """Trains and judges in no time: MSE is 10 times what was trained on, plus what it judges."""

    def __init__(self) -> None:
        self.trained: list[Config] = []
        self.judged: list[tuple[str, list[str]]] = []

    def figures(self, own: float, other: float) -> dict:
        values = {"MSE": 10 * own + other, "MSE GT=0": own, "KLD": other, "CC": None}
        return {"saliency": {**values, "SIM": 0.5}, "data": {"root": "x"}}

    def train(self, config: Config) -> None:
        self.trained.append(config)
        size = SIZE[str(config.data.root)]
        run_folder.prepare(config)
        folder = Path(config.out) / config.name
        files.write_json(folder / "results.json", self.figures(size, size))
        run_folder.finish(folder, {})

    def evaluate(self, run: Path, overrides: list[str]) -> dict:
        self.judged.append((run.name, list(overrides)))
        own = "r.jsonl" if "rich" in run.name else "a.jsonl"
        (root,) = (o.partition("=")[2] for o in overrides if o.startswith("data.root="))
        return self.figures(SIZE[own], SIZE[root])


@pytest.fixture
def machine() -> Machine:
    return Machine()


def transfer(machine: Machine, out: Path, *overrides: str, seeds: tuple[int, ...] = (0, 1)) -> dict:
    own = (machine.train, machine.evaluate)
    return run_transfer("heie_vision", SETS, seeds, out, overrides, *own)


def test_every_pair_is_judged_once(machine, tmp_path):
    found = transfer(machine, tmp_path, "train.epochs=7")
    assert [c.name for c in machine.trained] == [
        f"transfer_{name}_s{seed}" for seed in (0, 1) for name in ("rich", "ab")
    ]
    assert {(c.data.name, c.train.epochs) for c in machine.trained} == {("manifest", 7)}
    assert [(c.data.root, c.seed) for c in machine.trained][:2] == [("r.jsonl", 0), ("a.jsonl", 0)]
    assert [name for name, _ in machine.judged] == [c.name for c in machine.trained]
    assert machine.judged[0][1] == ["data.name=manifest", "data.root=a.jsonl"]
    rows = {row["key"]: row["seeds"]["1"]["MSE"] for row in found["rows"]}
    wanted = {"rich>rich": 1.1, "rich>ab": 1.2, "ab>rich": 2.1, "ab>ab": 2.2}
    assert rows == pytest.approx(wanted)
    assert json.loads((tmp_path / "transfer.json").read_text()) == found
    page = (tmp_path / "transfer.md").read_text()
    assert "| training | MSE | MSE GT=0 | KLD | CC |" in page
    assert "| rich, judged on rich (its own) | 1.10000 ± 0.00000 | 0.10000 ± 0.00000 |" in page
    assert "| ab, judged on rich | 1 | 2.10000 | 0.20000 | 0.100 |  |" in page


def test_nothing_is_done_again(machine, tmp_path):
    first = transfer(machine, tmp_path)
    counts = len(machine.trained), len(machine.judged)
    assert transfer(machine, tmp_path) == first
    assert (len(machine.trained), len(machine.judged)) == counts
    (tmp_path / "transfer_ab_s1" / "transfer_rich.json").unlink()
    assert transfer(machine, tmp_path) == first
    assert machine.judged[-1][0] == "transfer_ab_s1"
    assert len(machine.judged) == counts[1] + 1
    with pytest.raises(ArtifactNetError, match=r"transfer_rich_s0 was made with another config"):
        transfer(machine, tmp_path, "optim.lr=0.5")


def test_an_unfinished_run_is_gone_on_with(machine, tmp_path):
    transfer(machine, tmp_path, seeds=(0,))
    (tmp_path / "transfer_ab_s0" / "finished.json").unlink()
    transfer(machine, tmp_path, seeds=(0,))
    assert [config.resume for config in machine.trained] == [False, False, True]


def test_several_processes_are_left_to_the_train_command(machine, tmp_path):
    """Each helper process would run the whole experiment, and look for results not yet there."""
    several = "train.devices=2"
    with pytest.raises(ArtifactNetError, match=r"train\.devices=2: make it with `") as found:
        transfer(machine, tmp_path, several, seeds=(0,))
    words = shlex.split(str(found.value).split("`")[1])
    assert words[:3] == ["artifactnet", "train", "heie_vision"]
    assert not machine.trained
    machine.train(load(words[2], words[3:]))
    with pytest.raises(ArtifactNetError, match="transfer_ab_s0 is not finished") as found:
        transfer(machine, tmp_path, several, seeds=(0,))
    words = shlex.split(str(found.value).split("`")[1])
    machine.train(load(words[2], words[3:]))
    assert len(transfer(machine, tmp_path, several, seeds=(0,))["rows"]) == 4
    (tmp_path / "transfer_rich_s0" / "finished.json").unlink()
    with pytest.raises(ArtifactNetError, match="resume=true`"):
        transfer(machine, tmp_path, several, seeds=(0,))


def test_all_configs_are_checked_before_the_first_training(machine, tmp_path):
    with pytest.raises(ArtifactNetError, match="seed"):
        transfer(machine, tmp_path, seeds=(0, -1))
    assert not machine.trained


def test_a_model_without_heatmaps_is_refused(machine, tmp_path, monkeypatch):
    monkeypatch.setattr(
        Machine, "figures", lambda *args: {"saliency": None, "data": {"root": "r.jsonl"}}
    )
    with pytest.raises(ArtifactNetError, match="the recipe needs a heatmap head, and the test"):
        transfer(machine, tmp_path)
    with pytest.raises(ArtifactNetError, match="seeds must be given"):
        transfer(machine, tmp_path, seeds=())


def test_names_of_sets():
    assert named_sets(["a/rich.jsonl", "b/abhuman"]) == {
        "rich": "a/rich.jsonl",
        "abhuman": "b/abhuman",
    }
    assert named_sets(["A=x", "B=x=y"]) == {"A": "x", "B": "x=y"}
    for words, message in (
        (["a.jsonl"], "at least two"),
        (["a/x.jsonl", "b/x.jsonl"], "two data sets are called 'x'"),
        (["A/B=x", "y"], "without a slash"),
        (["=x", "y"], "give NAME=MANIFEST"),
        (["A=", "y"], "give NAME=MANIFEST"),
    ):
        with pytest.raises(ArtifactNetError, match=message):
            named_sets(words)
