"""Tables 7 and 4: what is trained, what heatmaps are read from, what is kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_heie_run import config, manifest

from artifactnet import files
from artifactnet.cli import main
from artifactnet.experiments import cot_ablation
from artifactnet.experiments.cot_ablation import run_cot_ablation
from artifactnet.runs import run_folder
from artifactnet.types import ArtifactNetError


def figures(value: float, scores: bool = True) -> dict:
    saliency = {"MSE": value / 10, "KLD": 10 * value, "CC": value, "SIM": 0.5}
    return {
        "saliency": saliency,
        "scores": {"PLCC": value, "SRCC": -value, "images": 3} if scores else None,
    }


@pytest.fixture
def fast(monkeypatch):
    """Trainings and evaluations in no time; what was asked for."""
    asked: dict[str, list] = {"trained": [], "judged": []}

    def train(config) -> None:
        asked["trained"].append(config)
        run_folder.prepare(config)
        folder = Path(config.out) / config.name
        value = (0.2 if config.loss.text else 0.1) + config.seed / 100
        files.write_json(folder / "results.json", figures(value))
        run_folder.finish(folder, {})

    def evaluate(run, text):
        asked["judged"].append((run.name, text))
        return figures(0.3)

    monkeypatch.setattr(cot_ablation, "train", train)
    monkeypatch.setattr(cot_ablation, "evaluate", evaluate)
    return asked


def test_the_papers_table(tmp_path, tiny_base, fast):
    recipe = config(tmp_path, tiny_base)
    out = tmp_path / "out"
    path = str(tmp_path / "tiny.yaml")
    found = run_cot_ablation(path, [0, 1], out, ["optim.lr=0.01"])
    without, with_text, *_ = fast["trained"]
    assert [c.name for c in fast["trained"][:2]] == ["cot_without_s0", "cot_with_s0"]
    changed = {line.split()[0] for line in run_folder.differences(without, with_text)}
    assert changed == {"mllm.text", "loss.text"}
    assert (without.mllm.text, without.loss.text) == ("none", 0)
    assert (with_text.mllm.text, with_text.loss.text) == ("written", recipe.loss.text)
    assert {c.optim.lr for c in fast["trained"]} == {0.01}
    assert fast["judged"] == [("cot_with_s0", "given"), ("cot_with_s1", "given")]
    assert [row["key"] for row in found["rows"]] == ["without", "with", "given"]
    assert found["columns"] == ["MSE", "KLD", "CC", "PLCC", "SRCC"]
    page = (out / "cot-ablation.md").read_text()
    assert "| without chain of thought | 0 | 0.01000 | 1.000 | 0.100 | 0.100 | -0.100 |" in page
    assert "| with the annotated chain of thought | 1 | 0.03000 | 3.000 |" in page
    assert json.loads((out / "cot-ablation.json").read_text()) == found
    assert run_cot_ablation(path, [0, 1], out, ["optim.lr=0.01"]) == found
    assert (len(fast["trained"]), len(fast["judged"])) == (4, 2)  # nothing again


def test_columns_without_figures_stay_empty(tmp_path, tiny_base, fast):
    config(tmp_path, tiny_base)
    path = str(tmp_path / "tiny.yaml")
    run_cot_ablation(path, [0], tmp_path, [])
    files.write_json(tmp_path / "cot_with_s0" / "results.json", figures(0.2, scores=False))
    found = run_cot_ablation(path, [0], tmp_path, [])
    assert found["rows"][1]["spread"]["PLCC"] is None
    files.write_json(tmp_path / "cot_with_s0" / "results.json", {"saliency": None})
    with pytest.raises(ArtifactNetError, match="no test image is annotated"):
        run_cot_ablation(path, [0], tmp_path, [])


def test_a_recipe_without_texts_is_refused(tmp_path, fast):
    with pytest.raises(ArtifactNetError, match=r"needs mllm\.base and loss\.text above 0"):
        run_cot_ablation("heie_vision", [0], tmp_path, [])
    assert not fast["trained"]


def test_a_recipe_that_learns_no_text_is_refused_before_any_training(tmp_path, tiny_base, fast):
    config(tmp_path, tiny_base)
    path = str(tmp_path / "tiny.yaml")
    with pytest.raises(ArtifactNetError, match=r"loss\.text above 0"):
        run_cot_ablation(path, [0], tmp_path / "out", ["loss.text=0"])
    with pytest.raises(ArtifactNetError, match=r"artifactnet train .* name=cot_without_s0"):
        run_cot_ablation(path, [0], tmp_path / "out", ["train.devices=2"])
    assert not fast["trained"]


def test_words_of_the_command(capsys):
    for words, message in (
        (["transfer", "heie_vision"], "transfer needs a config and data"),
        (["transfer", "--on", "a", "b"], "transfer needs a config and data"),
        (["detection", "--on", "a", "b"], "--on is for transfer alone"),
        (["transfer", "heie_vision", "--on", "a"], "at least two"),
        (["cot-ablation", "heie_vision"], "needs mllm.base"),
    ):
        assert main(["experiment", *words]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_both_tables_are_made(tmp_path, tiny_base, capsys):
    recipe = config(tmp_path, tiny_base)
    path, out = str(tmp_path / "tiny.yaml"), tmp_path / "out"
    other = manifest(tmp_path / "other", "other.jsonl", seed=3)
    tail = ["--seeds", "0", "--out", str(out)]
    sets = ["--on", f"A={recipe.data.root}", str(other)]
    assert main(["experiment", "transfer", path, "train.max_steps=1", *sets, *tail]) == 0
    found = json.loads((out / "transfer.json").read_text())
    assert [row["key"] for row in found["rows"]] == ["A>A", "A>other", "other>A", "other>other"]
    assert all(0 < row["seeds"]["0"]["MSE"] < 1 for row in found["rows"])
    assert "| A, judged on other |" in capsys.readouterr().out
    assert main(["experiment", "cot-ablation", path, "train.max_steps=1", *tail]) == 0
    rows = json.loads((out / "cot-ablation.json").read_text())["rows"]
    values = {row["key"]: row["seeds"]["0"] for row in rows}
    assert values["with"]["MSE"] != values["given"]["MSE"]
    results = json.loads((out / "cot_without_s0" / "results.json").read_text())
    assert (results["text"], results["explanations"]) == ("template", None)
    assert values["without"]["CC"] == results["saliency"]["CC"]
