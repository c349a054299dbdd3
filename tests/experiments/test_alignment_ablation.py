"""Alignment with other masks, and several weights: what differs, what chooses, what is compared."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from instant_runs import InstantRuns
from PIL import Image

from artifactnet.cli import main
from artifactnet.config import load
from artifactnet.data.datamodule import build_splits
from artifactnet.data.test_sets.read import read_test_set
from artifactnet.experiments import alignment_ablation
from artifactnet.experiments.alignment import run_alignment
from artifactnet.experiments.alignment_ablation import (
    MASKS,
    run_alignment_ablation,
    run_lambda_sweep,
    select_lambda,
)
from artifactnet.runs import run_folder
from artifactnet.training.module import DetectorModule

SMALL = ("data.demo_train=4", "data.demo_val=2", "data.demo_test=6", "data.demo_size=64")
MASK_IOU = {"none": 0.05, "artifact": 0.30, "random": 0.10, "benign": 0.02, "saliency": 0.15}


@pytest.fixture
def recipe(tmp_path, tiny_config):
    tiny_config(tmp_path)
    return str(tmp_path / "tiny.yaml")


def scores(value):
    names = ("balanced_accuracy", "precision", "recall", "f1", "auc")
    return {name: value + 0.01 * place for place, name in enumerate(names)}


@pytest.fixture
def instant(monkeypatch):
    """Runs whose figures follow from mask, lambda and seed."""

    def figures(config, _):
        alignment = config.loss.alignment
        mask = alignment.mask if alignment.weight else "none"
        validation = 0.85 if alignment.benign_weight in (0.4, 0.6) else 0.8
        iou = MASK_IOU[mask] * (1 + 0.1 * config.seed)
        value = 0.6 if config.data.name != "demo" else 0.7 + 0.01 * config.seed
        verdict = scores(value - 0.1 * alignment.benign_weight)
        return {
            "authenticity": {"all": verdict, "generators": {"edit": verdict}},
            "heatmap": {"IoU": iou, "PixF1": 2 * iou / (1 + iou), "evaluated_images": 6},
            "heatmap_generators": {"edit": {"IoU": iou}},
            "training": {"best_validation": {"balanced_accuracy": validation}},
        }

    return InstantRuns(monkeypatch, figures)


def test_rows_differ_in_the_mask_alone(tmp_path, recipe, instant):
    out = tmp_path / "out"
    found = run_alignment_ablation(recipe, MASKS, [0, 1, 2], out, SMALL)
    assert len(instant.trained) == 15
    by_name = {config.name: config for config in instant.trained}
    plain = by_name["alignment_aligned_s1"]
    for mask, keys in (
        ("baseline", {"loss.alignment.weight"}),
        ("random", {"loss.alignment.mask"}),
        ("benign", {"loss.alignment.mask", "loss.alignment.segments"}),
        ("saliency", {"loss.alignment.mask"}),
    ):
        other = by_name[f"alignment_{mask}_s1"]
        assert {line.split()[0] for line in run_folder.changed_keys(plain, other)} == keys
        assert other.seed == plain.seed == 1

    assert [row["key"] for row in found["rows"]] == list(MASKS)
    assert found["columns"] == ["Acc", "F1", "map IoU", "map PixF1"]
    benign = found["rows"][MASKS.index("benign")]
    assert benign["method"] == "segments: felzenszwalb"
    assert benign["spread"]["map IoU"]["mean"] == pytest.approx(0.022)
    assert found["rows"][0]["without_mask"] is None
    assert found["rows"][MASKS.index("random")]["without_mask"] == 0
    assert [(e["key"], e["against"]) for e in found["differences"]] == [
        *((mask, "none") for mask in MASKS[1:]),
        *((mask, "artifact") for mask in MASKS if mask != "artifact"),
    ]
    first = found["differences"][0]["spread"]["map IoU"]
    assert first["mean"] == pytest.approx(0.275)
    assert first["p"] == 0.25  # three of one sign
    assert first["p_holm"] == 1
    page = (out / "alignment-ablation.md").read_text()
    assert "adjusted (Holm) for the 4 rows of a column" in page
    assert "With 3 pairs p cannot fall below 0.25" in page
    assert "6 fakes" in page
    assert json.loads((out / "alignment-ablation.json").read_text()) == found
    with Image.open(out / "alignment-ablation.png") as picture:
        assert min(picture.size) > 200

    assert run_alignment_ablation(recipe, MASKS, [0, 1, 2], out, SMALL) == found
    run_alignment(recipe, [0, 1, 2], out, SMALL, images=0)  # the same trainings
    run_lambda_sweep(recipe, [0.4, 0.5], [0], out, SMALL)  # 0.4 is the recipe's
    assert [config.name for config in instant.trained[15:]] == ["alignment_lambda0.5_s0"]


def test_images_without_a_mask_are_counted(tmp_path, recipe, instant, monkeypatch):
    def nothing(labels, artifacts):
        return None

    monkeypatch.setattr("artifactnet.data.alignment_masks.largest_benign_segment", nothing)
    found = run_alignment_ablation(recipe, ["none", "benign"], [0], tmp_path / "out", SMALL)
    assert found["rows"][1]["without_mask"] == 4
    page = (tmp_path / "out" / "alignment-ablation.md").read_text()
    assert "largest benign segment: 4 of the training images with artifacts have none" in page


def test_segments_are_made_of_all_training_fakes(tmp_path, recipe, instant):
    out, asked = tmp_path / "out", []

    def segment(image):
        asked.append(image.shape)
        masks = np.zeros((2, *image.shape[:2]), bool)
        masks[0, :20], masks[1, 30:] = True, True
        return list(masks)

    given = (recipe, ["benign", "none"], [0, 1], out, SMALL, {}, None, None, segment, "a/sam")
    found = run_alignment_ablation(*given)
    train = build_splits(load(recipe, SMALL).data, 0)["train"]
    fakes = {f"{r.generator}/{r.uid}" for r in train.records if r.label}
    assert len(asked) == len(fakes)  # of both seeds the same
    made = out / "segments" / "a--sam"
    assert {p.relative_to(made).as_posix() for p in made.glob("*/*")} == fakes
    assert all(len(list((made / fake).glob("*.png"))) == 2 for fake in fakes)
    assert "(segments: a/sam)" in (out / "alignment-ablation.md").read_text()
    assert run_alignment_ablation(*given) == found
    assert len(asked) == len(fakes)


def test_validation_selects_and_of_equals_the_smallest():
    figures = dict(
        zip((0, 0.2, 0.4, 0.6, 0.8, 1), (0.81, 0.83, 0.85, 0.85, 0.84, 0.80), strict=True)
    )
    assert select_lambda(figures) == 0.4
    assert select_lambda(dict(reversed(figures.items()))) == 0.4


def test_the_sweep_is_selected_by_validation(tmp_path, recipe, instant):
    out = tmp_path / "out"
    found = run_lambda_sweep(recipe, [1, 0.6, 0.4, 0], [0, 1], out, SMALL)
    assert [row["key"] for row in found["rows"]] == ["1", "0.6", "0.4", "0", "selected"]
    assert found["columns"] == ["val Acc", "Acc", "P", "R", "F1", "map IoU", "map PixF1"]
    selected = found["rows"][-1]
    assert selected["lambdas"] == {"0": 0.4, "1": 0.4}  # though lambda 0 has the best test figures
    assert selected["seeds"] == found["rows"][2]["seeds"]
    assert found["rows"][3]["spread"]["Acc"]["mean"] > selected["spread"]["Acc"]["mean"]
    page = (out / "lambda-sweep.md").read_text()
    assert "Selected: 0.4 (seed 0), 0.4 (seed 1), by balanced accuracy on the validation" in page
    with Image.open(out / "lambda-sweep.png") as picture:
        assert min(picture.size) > 200


@pytest.mark.parametrize("only", ["real", "fake"])
def test_a_set_of_one_class_has_its_recall(tmp_path, recipe, instant, monkeypatch, only):
    def judged(test_set, level, models, folder, where):
        right = (only == "fake", only == "fake", only != "fake", only == "fake")
        lines = [
            {"is_fake": fake, "probability": None, "problem": None, "areas": None, "truth": "none"}
            for fake in right
        ]
        return {models[0].name: lines}

    (tmp_path / "mine" / only).mkdir(parents=True)
    for number in range(4):
        Image.new("RGB", (4, 4)).save(tmp_path / "mine" / only / f"{number}.png")
    model = SimpleNamespace(name="run")
    monkeypatch.setattr(alignment_ablation, "parse_models", lambda texts: texts)
    monkeypatch.setattr(alignment_ablation, "open_model", lambda spec, device: model)
    monkeypatch.setattr(alignment_ablation, "judge_level", judged)
    sets = {"mine": read_test_set("mine", tmp_path / "mine")}
    found = run_alignment_ablation(recipe, ["none", "artifact"], [0], tmp_path, SMALL, sets)
    assert found["columns"][4:] == [f"recall of {only} mine"]
    assert found["rows"][0]["seeds"]["0"][f"recall of {only} mine"] == 0.75
    found = run_lambda_sweep(recipe, [0, 1], [0], tmp_path, SMALL, sets)
    assert found["columns"][7:] == [f"recall of {only} mine"]
    assert found["rows"][0]["seeds"]["0"][f"recall of {only} mine"] == 0.75


def test_images_without_a_mask_are_counted_anew_for_other_data(tmp_path, recipe, instant):
    """Of one folder, whose trainings are not finished."""
    out = tmp_path / "out"
    run_alignment_ablation(recipe, ["none", "random"], [0], out, SMALL)
    kept = json.loads((out / "without_random.json").read_text())
    assert (kept["data"]["demo_train"], kept["seed"], kept["images"]) == (4, 0, 0)
    run_alignment_ablation(recipe, ["none", "random"], [1, 0], out, SMALL)
    assert json.loads((out / "without_random.json").read_text())["seed"] == 1


def test_real_runs_survive_an_interruption(tmp_path, recipe, monkeypatch, capsys):
    """Trained, asked about another set, and the same after a kill."""
    step = DetectorModule.training_step
    rng = np.random.default_rng(0)
    for kind in ("real", "fake"):
        (tmp_path / "mine" / kind).mkdir(parents=True)
        for number in range(3):
            pixels = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "mine" / kind / f"{number}.png")

    def interrupted(self, batch, batch_idx):
        if self.config.name == "alignment_random_s0" and self.global_step == 3:
            raise KeyboardInterrupt  # in its second epoch
        return step(self, batch, batch_idx)

    def words(out):
        masks = ["--masks", "none", "artifact", "random", "--seeds", "0"]
        masks += ["--on", f"mine={tmp_path / 'mine'}"]
        return ["experiment", "alignment-ablation", recipe, *SMALL, "train.device=cpu", *masks,
                "--out", str(out)]  # fmt: skip

    assert main(words(tmp_path / "whole")) == 0
    with monkeypatch.context() as patch:
        patch.setattr(DetectorModule, "training_step", interrupted)
        assert main(words(tmp_path / "killed")) == 130
    assert not (tmp_path / "killed" / "alignment-ablation.json").exists()
    assert main(words(tmp_path / "killed")) == 0
    capsys.readouterr()
    whole, killed = (
        json.loads((tmp_path / name / "alignment-ablation.json").read_text())["rows"]
        for name in ("whole", "killed")
    )
    assert whole == killed
    for row, name in zip(whole, ("baseline", "aligned", "random"), strict=True):
        answers = tmp_path / "whole" / "answers" / f"alignment_{name}_s0" / "mine"
        lines = map(json.loads, (answers / "original.jsonl").read_text().splitlines())
        right = [line["is_fake"] == ("fake" in line["path"]) for line in lines if "path" in line]
        assert len(right) == 6
        assert row["seeds"]["0"]["Acc mine"] == pytest.approx(sum(right) / 6)
        assert 0 <= row["seeds"]["0"]["F1 mine"] <= 1
    weights = [path.read_bytes() for path in (tmp_path / "whole").glob("*/last.safetensors")]
    assert len(set(weights)) == 3  # they learnt from different masks


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--masks", "none", "nothing"], "--masks: unknown 'nothing'; known: none, artifact"),
        (["--masks", "none"], "two or more, each once, and none among them, not none"),
        (["--masks", "artifact", "random"], "none among them"),
        (["--masks", "none", "random", "random"], "each once"),
        (["--masks", "none", "random", "--saliency", "x"], "--saliency is for the mask saliency"),
        (["--masks", "none", "random", "--segments", "x"], "--segments is for the mask benign"),
        (["--masks", "none", "random", "--segmenter", "x"], "--segmenter is for the mask benign"),
        (["--seeds", "3", "3"], "seeds must be given, each once"),
        (["--masks", "none", "benign", "--segments", "nowhere"], "it holds no segments of any"),
        (["--masks", "none", "saliency", "--saliency", "nowhere"], "nowhere: no such folder"),
        (["loss.alignment.weight=0"], "weight above 0"),
        (["loss.alignment.mask=random"], "loss.alignment.mask cannot be set for alignment-abl"),
        (["--reals", "x"], "--reals is for the test sets of --on"),
        (["--limit", "3"], "--limit is for the test sets of --on"),
        (["--device", "cpu"], "--device is for --segmenter"),
    ],
)
def test_refused_before_anything_is_trained(tmp_path, recipe, instant, words, message, capsys):
    overrides = [word for word in words if "=" in word]
    options = [word for word in words if "=" not in word]
    out = ["--out", str(tmp_path / "out")]
    command = ["experiment", "alignment-ablation", recipe, *SMALL, *overrides, *options, *out]
    assert main(command) == 2
    assert message in capsys.readouterr().err
    assert not instant.trained


@pytest.mark.parametrize("lambdas", [["0.4"], ["0.4", "0.4"]])
def test_lambdas_are_two_or_more(tmp_path, recipe, instant, lambdas, capsys):
    command = ["experiment", "lambda-sweep", recipe, "--lambdas", *lambdas]
    assert main([*command, "--out", str(tmp_path / "out")]) == 2
    assert "--lambdas: give two or more, each once" in capsys.readouterr().err
