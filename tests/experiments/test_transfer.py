"""Trained on each data set, evaluated on all: every pair once, nothing twice."""

import json
import shlex

import pytest
from instant_runs import InstantRuns

from artifactnet.config import load
from artifactnet.experiments.transfer import named_sets, run_transfer
from artifactnet.types import ArtifactNetError

SETS = {"rich": "r.jsonl", "ab": "a.jsonl"}
SIZE = {"r.jsonl": 0.1, "a.jsonl": 0.2}


@pytest.fixture
def instant(monkeypatch):
    """MSE is 10 times what was trained on, plus what is evaluated on."""

    def figures(config, _):
        own, other = SIZE[SETS[config.name.split("_")[1]]], SIZE[config.data.root]
        values = {"MSE": 10 * own + other, "MSE GT=0": own, "KLD": other, "CC": None}
        return {"saliency": {**values, "SIM": 0.5}, "data": {"root": "x"}}

    return InstantRuns(monkeypatch, figures)


def transfer(out, *overrides, seeds=(0, 1)):
    return run_transfer("heie_vision", SETS, seeds, out, overrides)


def test_every_pair_is_evaluated_once_and_nothing_again(instant, tmp_path):
    found = transfer(tmp_path, "train.epochs=7")
    assert [c.name for c in instant.trained] == [
        f"transfer_{name}_s{seed}" for seed in (0, 1) for name in ("rich", "ab")
    ]
    assert {(c.data.name, c.train.epochs) for c in instant.trained} == {("manifest", 7)}
    assert [(c.data.root, c.seed) for c in instant.trained][:2] == [("r.jsonl", 0), ("a.jsonl", 0)]
    assert [name for name, _ in instant.evaluated] == [c.name for c in instant.trained]
    # drawn as for the run that is trained on it
    keys = ["data.name=manifest", "data.root=a.jsonl", "data.val_fraction=0.1"]
    assert instant.evaluated[0][1] == keys
    rows = {row["key"]: row["seeds"]["1"]["MSE"] for row in found["rows"]}
    assert rows == pytest.approx({"rich>rich": 1.1, "rich>ab": 1.2, "ab>rich": 2.1, "ab>ab": 2.2})
    assert json.loads((tmp_path / "transfer.json").read_text()) == found
    page = (tmp_path / "transfer.md").read_text()
    assert "| training | MSE | MSE GT=0 | KLD | CC |" in page
    assert "| rich, evaluated on rich (its own) | 1.10000 ± 0.00000 | 0.10000 ± 0.00000 |" in page
    assert "| ab, evaluated on rich | 1 | 2.10000 | 0.20000 | 0.100 |  |" in page

    assert transfer(tmp_path, "train.epochs=7") == found
    assert (len(instant.trained), len(instant.evaluated)) == (4, 4)
    (tmp_path / "transfer_ab_s1" / "transfer_rich.json").unlink()
    assert transfer(tmp_path, "train.epochs=7") == found
    assert [name for name, _ in instant.evaluated[4:]] == ["transfer_ab_s1"]
    with pytest.raises(ArtifactNetError, match=r"transfer_rich_s0 .*optim\.lr"):
        transfer(tmp_path, "train.epochs=7", "optim.lr=0.5")
    (tmp_path / "transfer_ab_s0" / "finished.json").unlink()
    transfer(tmp_path, "train.epochs=7")
    assert [config.resume for config in instant.trained] == [False] * 4 + [True]


def test_several_processes_are_left_to_the_train_command(instant, tmp_path):
    """Each helper process would run the whole experiment, and look for results not yet there."""
    several = "train.devices=2"
    for name in ("rich", "ab"):
        with pytest.raises(ArtifactNetError, match=f"transfer_{name}_s0 is not") as found:
            transfer(tmp_path, several, seeds=(0,))
        words = shlex.split(str(found.value).split("`")[1])
        assert words[:3] == ["artifactnet", "train", "heie_vision"]
        instant.train(load(words[2], words[3:]))
    assert len(transfer(tmp_path, several, seeds=(0,))["rows"]) == 4
    (tmp_path / "transfer_rich_s0" / "finished.json").unlink()
    with pytest.raises(ArtifactNetError, match="resume=true`"):
        transfer(tmp_path, several, seeds=(0,))
    assert len(instant.trained) == 2


def test_all_configs_are_checked_before_the_first_training(instant, tmp_path):
    for seeds in ((0, -1), ()):
        with pytest.raises(ArtifactNetError, match="seed"):
            transfer(tmp_path, seeds=seeds)
    assert not instant.trained


def test_a_model_without_heatmaps_is_refused(instant, tmp_path):
    instant.figures = lambda *_: {"saliency": None, "data": {"root": "r.jsonl"}}
    with pytest.raises(ArtifactNetError, match=r"heatmap head.* r\.jsonl"):
        transfer(tmp_path)


def test_names_of_sets():
    assert named_sets(["a/rich.jsonl", "b/abhuman"]) == {
        "rich": "a/rich.jsonl",
        "abhuman": "b/abhuman",
    }
    assert named_sets(["A=x", "B=x=y"]) == {"A": "x", "B": "x=y"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.jsonl"], "at least two"),
        (["a/x.jsonl", "b/x.jsonl"], "'x'"),
        (["A/B=x", "y"], "A/B=x.*slash"),
        (["=x", "y"], "--on =x: .*NAME=MANIFEST"),
        (["A=", "y"], "--on A=: .*NAME=MANIFEST"),
    ],
)
def test_names_of_sets_that_cannot_be_used(words, message):
    with pytest.raises(ArtifactNetError, match=message):
        named_sets(words)


def test_a_recipe_of_short_answers_is_refused_before_training(tmp_path, instant):
    with pytest.raises(ArtifactNetError, match=r"compares heatmaps; mllm\.text=short"):
        run_transfer("heie_nano_short", SETS, (0,), tmp_path)
    assert not instant.trained
