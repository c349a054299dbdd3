"""Tables 7 and 4 of HEIE: what is trained, what heatmaps are read from, what is kept."""

import json

import pytest
from instant_runs import InstantRuns
from tiny_heie_run import config, manifest

from artifactnet import files
from artifactnet.cli import main
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
def instant(monkeypatch):
    def of(config, text):
        trained = 0.2 if config.loss.text else 0.1
        return figures({"given": 0.3, "template": 0.4}.get(text, trained + config.seed / 100))

    return InstantRuns(monkeypatch, of)


@pytest.fixture
def recipe(tmp_path, tiny_base):
    config(tmp_path, tiny_base)
    return str(tmp_path / "tiny.yaml")


def test_the_papers_table(tmp_path, recipe, instant):
    out = tmp_path / "out"
    found = run_cot_ablation(recipe, [0, 1], out, ["optim.lr=0.01"])
    without, with_text, *_ = instant.trained
    assert [c.name for c in (without, with_text)] == ["cot_without_s0", "cot_with_s0"]
    changed = {line.split()[0] for line in run_folder.changed_keys(without, with_text)}
    assert changed == {"mllm.text", "loss.text"}
    assert (without.mllm.text, without.loss.text) == ("none", 0)
    assert (with_text.mllm.text, with_text.loss.text) == ("written", 1.0)
    assert {c.optim.lr for c in instant.trained} == {0.01}
    texts = ("template", "given")
    assert instant.evaluated == [(f"cot_with_s{s}", text) for s in (0, 1) for text in texts]
    assert [row["key"] for row in found["rows"]] == ["without", "template", "with", "given"]
    assert found["columns"] == ["MSE", "KLD", "CC", "PLCC", "SRCC"]
    page = (out / "cot-ablation.md").read_text()
    assert "| without chain of thought | 0 | 0.01000 | 1.000 | 0.100 | 0.100 | -0.100 |" in page
    assert "| with the annotated chain of thought | 1 | 0.03000 | 3.000 |" in page
    assert "| trained with it, a fixed text at test time | 0 | 0.04000 | 4.000 |" in page
    assert json.loads((out / "cot-ablation.json").read_text()) == found
    assert run_cot_ablation(recipe, [0, 1], out, ["optim.lr=0.01"]) == found
    assert (len(instant.trained), len(instant.evaluated)) == (4, 4)  # nothing again


def test_columns_without_figures_stay_empty(tmp_path, recipe, instant):
    run_cot_ablation(recipe, [0], tmp_path, [])
    files.write_json(tmp_path / "cot_with_s0" / "results.json", figures(0.2, scores=False))
    found = run_cot_ablation(recipe, [0], tmp_path, [])
    assert found["rows"][2]["spread"]["PLCC"] is None
    files.write_json(tmp_path / "cot_with_s0" / "results.json", {"saliency": None})
    with pytest.raises(ArtifactNetError, match="cot_with_s0"):
        run_cot_ablation(recipe, [0], tmp_path, [])


def test_recipes_that_cannot_be_used_are_refused_before_any_training(tmp_path, recipe, instant):
    for name, overrides, message in (
        ("heie_vision", [], r"mllm\.base"),
        (recipe, ["loss.text=0"], r"loss\.text"),
        (recipe, ["mllm.text=short"], r"mllm\.text=written or template"),
        (recipe, ["train.devices=2"], r"artifactnet train .* name=cot_without_s0"),
    ):
        with pytest.raises(ArtifactNetError, match=message):
            run_cot_ablation(name, [0], tmp_path / "out", overrides)
    assert not instant.trained


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["transfer", "heie_vision", "--on", "a"], "at least two"),
        (["cot-ablation", "heie_vision"], "mllm.base"),
    ],
)
def test_words_of_the_command(capsys, words, message):
    assert main(["experiment", *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["transfer", "heie_vision"], "the following arguments are required: --on"),
        (["transfer", "--on", "a", "b"], "the following arguments are required: CONFIG"),
        (["detection", "--on", "a", "b"], "unrecognized arguments: --on"),
    ],
)
def test_missing_and_foreign_words_are_refused(capsys, words, message):
    with pytest.raises(SystemExit, match="2"):
        main(["experiment", *words])
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_both_tables_are_made(tmp_path, recipe, capsys):
    out = tmp_path / "out"
    other = manifest(tmp_path / "other", "other.jsonl", seed=3)
    tail = ["--seeds", "0", "--out", str(out)]
    sets = ["--on", f"A={tmp_path / 'data' / 'set.jsonl'}", str(other)]
    assert main(["experiment", "transfer", recipe, "train.max_steps=1", *sets, *tail]) == 0
    found = json.loads((out / "transfer.json").read_text())
    assert [row["key"] for row in found["rows"]] == ["A>A", "A>other", "other>A", "other>other"]
    assert all(0 < row["seeds"]["0"]["MSE"] < 1 for row in found["rows"])
    assert "| A, evaluated on other |" in capsys.readouterr().out
    assert main(["experiment", "cot-ablation", recipe, "train.max_steps=1", *tail]) == 0
    rows = json.loads((out / "cot-ablation.json").read_text())["rows"]
    values = {row["key"]: row["seeds"]["0"] for row in rows}
    assert len({values[key]["MSE"] for key in ("with", "given", "template")}) == 3
    results = json.loads((out / "cot_without_s0" / "results.json").read_text())
    assert (results["text"], results["explanations"]) == ("template", None)
    assert values["without"]["CC"] == results["saliency"]["CC"]
