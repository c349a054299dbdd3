"""With and without alignment: equal but for the loss, compared seed by seed, nothing twice."""

import json
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from instant_runs import InstantRuns
from PIL import Image

from artifactnet import api, files
from artifactnet.cli import main
from artifactnet.config import load
from artifactnet.evaluation.samples import open_samples
from artifactnet.experiments import alignment
from artifactnet.experiments.alignment import faithfulness_sample, run_alignment
from artifactnet.experiments.common import write_table
from artifactnet.explanation.detector import OwnDetector
from artifactnet.explanation.faithfulness import faithfulness
from artifactnet.inference.preprocessing import preprocess_of
from artifactnet.models.checkpoint import load_checkpoint
from artifactnet.runs import run_folder
from artifactnet.training.module import DetectorModule
from artifactnet.types import Annotation, ArtifactNetError, Record

SMALL = ("data.demo_train=4", "data.demo_val=2", "data.demo_test=6", "data.demo_migan=0.5")
NO_IMAGES = SimpleNamespace(model=None, records=())
IOU = {"edit": 0.30, "migan": 0.10}  # of aligned runs; a tenth of it without alignment


@pytest.fixture
def recipe(tmp_path, tiny_config):
    tiny_config(tmp_path)
    return str(tmp_path / "tiny.yaml")


@pytest.fixture
def instant(monkeypatch):
    """Runs whose figures are known: BA .8 or .7, plus a hundredth per seed."""

    def figures(config, _):
        aligned = config.loss.alignment.weight > 0
        score = (0.8 if aligned else 0.7) + 0.01 * config.seed
        verdict = {"balanced_accuracy": score, "auc": 0.9}
        share = (1 if aligned else 0.1) * (1 + 0.1 * config.seed)
        return {
            "authenticity": {"all": verdict, "generators": dict.fromkeys(IOU, verdict)},
            "heatmap": {"IoU": 0.4 * share, "evaluated_images": 6},
            "heatmap_generators": {name: {"IoU": iou * share} for name, iou in IOU.items()},
        }

    return InstantRuns(monkeypatch, figures)


def test_rows_differ_in_the_loss_alone_and_are_compared_by_seed(tmp_path, recipe, instant):
    out = tmp_path / "out"
    own = [*SMALL, "loss.alignment.weight=3", "optim.lr=0.01"]  # baseline stays without alignment
    found = run_alignment(recipe, [0, 1, 2], out, own, images=0)
    assert [config.name for config in instant.trained] == [
        f"alignment_{key}_s{seed}" for seed in (0, 1, 2) for key in ("baseline", "aligned")
    ]
    assert [config.seed for config in instant.trained] == [0, 0, 1, 1, 2, 2]
    assert {config.optim.lr for config in instant.trained} == {0.01}
    base, aligned, *_ = instant.trained
    assert (base.loss.alignment.weight, aligned.loss.alignment.weight) == (0, 3)
    changed = {line.split()[0] for line in run_folder.changed_keys(base, aligned)}
    assert changed == {"loss.alignment.weight"}

    single = ["map IoU edit", "map IoU migan", "BA edit", "BA migan"]
    assert found["columns"] == ["BA", "AUC", "map IoU", *single]
    (difference,) = found["differences"]
    assert (difference["key"], difference["against"]) == ("aligned", "baseline")
    spread = difference["spread"]
    assert spread["BA"]["mean"] == pytest.approx(0.1)
    assert spread["BA"]["std"] == pytest.approx(0, abs=1e-12)
    assert (spread["BA"]["p"], spread["BA"]["p_holm"], spread["BA"]["pairs"]) == (0.25, 0.25, 3)
    assert spread["AUC"]["p"] == 1
    assert spread["map IoU edit"]["mean"] == pytest.approx(0.27 * 1.1)
    assert spread["map IoU edit"]["std"] == pytest.approx(0.027)
    page = (out / "alignment.md").read_text()
    assert "| training | BA | AUC | map IoU | map IoU edit | map IoU migan | BA edit | " in page
    assert (
        "| difference (aligned - baseline) | +0.100 ± 0.000 (p = 0.25) | +0.000 ± 0.000 (p = 1) | "
        "+0.396 ± 0.036 (p = 0.25) | +0.297 ± 0.027 (p = 0.25) |" in page
    )
    assert "With 3 pairs p cannot fall below 0.25; 6 seeds can fall below 0.05." in page
    assert "6 fakes" in page
    assert "eletion" not in page
    assert json.loads((out / "alignment.json").read_text()) == found

    assert run_alignment(recipe, [0, 1, 2], out, own, images=0) == found
    assert len(instant.trained) == 6  # none again
    found = run_alignment(recipe, [*range(6)], out, own, images=0)
    assert len(instant.trained) == 12
    assert found["differences"][0]["spread"]["map IoU"]["p"] == 2 / 64
    assert "cannot fall" not in (out / "alignment.md").read_text()


def test_columns_follow_the_generators(tmp_path, recipe, instant):
    known = instant.figures

    def renamed(*names):
        def figures(config, text):
            found = known(config, text)
            found["authenticity"]["generators"] = dict.fromkeys(names, found["authenticity"]["all"])
            found["heatmap_generators"] = {names[0]: {"IoU": 0.5}}
            return found

        return figures

    def run(*names):
        instant.figures = renamed(*names)
        return run_alignment(recipe, [0, 1], tmp_path / names[-1], SMALL, images=0)

    assert run("sdxl")["columns"] == ["BA", "AUC", "map IoU"]
    found = run("sdxl", "flux")  # of flux nothing is annotated
    assert found["columns"][3:] == ["map IoU sdxl", "map IoU flux", "BA sdxl", "BA flux"]
    assert found["differences"][0]["spread"]["map IoU flux"] is None
    assert found["rows"][0]["spread"]["map IoU flux"] is None
    found = run(*"abcde")  # too many for a table
    assert found["columns"] == ["BA", "AUC", "map IoU"]
    assert found["rows"][0]["seeds"]["0"]["BA e"] == 0.7


def test_several_rows_are_adjusted_and_pairs_are_common_seeds(tmp_path):
    """p-values .0625, .125 and .25 of three rows: Holm gives .1875, .25 and .25."""
    changes = {"a": [1, 2, 3, 4, 5], "b": [-1, 2, 3, 4, 5], "c": [-3, 2, 3, 4, 5]}
    values = {("none", seed): {"Acc": 0.0} for seed in range(5)}
    for key, differences in changes.items():
        values |= {(key, seed): {"Acc": value / 10} for seed, value in enumerate(differences)}
    values["none", 5] = {"Acc": None}  # a pair needs both
    values["a", 5] = {"Acc": 0.9}
    about = {"experiment": "x", "title": "X", "seeds": [*range(6)], "overrides": []}
    rows = {key: {"title": key, "method": None} for key in ("none", *changes)}
    found = write_table(tmp_path, about, rows, values, ["Acc"], against=["none"])
    spreads = [entry["spread"]["Acc"] for entry in found["differences"]]
    assert [one["pairs"] for one in spreads] == [5, 5, 5]
    assert [one["p"] for one in spreads] == [2 / 32, 4 / 32, 8 / 32]
    assert [one["p_holm"] for one in spreads] == [6 / 32, 8 / 32, 8 / 32]
    page = (tmp_path / "x.md").read_text()
    assert "| difference (b - none) | +0.260 ± 0.230 (p = 0.25) |" in page
    assert "over 5 pairs, adjusted (Holm) for the 3 rows of a column." in page


def own_areas(run, chosen):
    """Deletion and insertion of a run's heatmap, image by image."""
    model = load_checkpoint(run / "model.safetensors")
    data, areas = open_samples(run), []
    for index in chosen:
        sample = data.load(index)
        frame, geometry = preprocess_of(model).image(sample.image)
        with torch.no_grad():
            grid = model(frame[None], attention=True).heatmap[0].numpy()
        heatmap = preprocess_of(model).restore(grid, geometry)
        curves = faithfulness(OwnDetector(model), sample.image, heatmap)
        areas.append((curves.deletion_area, curves.insertion_area))
    return np.mean(areas, axis=0)


def test_real_runs_survive_an_interruption(tmp_path, recipe, monkeypatch, capsys):
    out, options = tmp_path / "out", [*SMALL, "train.device=cpu"]
    step = DetectorModule.training_step

    def interrupted(self, batch, batch_idx):
        if self.config.name == "alignment_baseline_s1" and self.global_step == 3:
            raise KeyboardInterrupt  # in its second epoch
        return step(self, batch, batch_idx)

    words = ["experiment", "alignment", recipe, *options, "--out", str(out)]
    words += ["--seeds", "0", "1", "--faithfulness", "2"]
    with monkeypatch.context() as patch:
        patch.setattr(DetectorModule, "training_step", interrupted)
        assert main(words) == 130
    finished = out / "alignment_aligned_s0"
    before = (finished / "model.safetensors").stat().st_mtime_ns
    assert (out / "alignment_baseline_s1" / "last.ckpt").is_file()
    assert not (out / "alignment.json").exists()

    trained, train = [], api.train
    monkeypatch.setattr(api, "train", lambda c: (trained.append((c.name, c.resume)), train(c)))
    assert main(words) == 0
    assert trained == [("alignment_baseline_s1", True), ("alignment_aligned_s1", False)]
    assert (finished / "model.safetensors").stat().st_mtime_ns == before
    page = (out / "alignment.md").read_text()
    assert page in capsys.readouterr().out
    found = json.loads((out / "alignment.json").read_text())
    single = ["map IoU edit", "map IoU migan", "BA edit", "BA migan"]
    assert found["columns"] == ["BA", "AUC", "map IoU", *single, "deletion", "insertion"]
    assert found["images"] == {"annotated": 6, "faithfulness": 2}
    base, aligned = found["rows"]
    for row in (base, aligned):
        assert set(row["seeds"]) == {"0", "1"}
        for seed, figures in row["seeds"].items():
            run = out / f"alignment_{row['key']}_s{seed}"
            results = json.loads((run / "results.json").read_text())
            assert figures["map IoU migan"] == results["heatmap_generators"]["migan"]["IoU"]
            parts = results["heatmap_generators"].values()
            assert sum(part["tp"] for part in parts) == results["heatmap"]["tp"]
            assert (
                figures["BA edit"]
                == (results["authenticity"]["generators"]["edit"]["balanced_accuracy"])
            )
    records = open_samples(finished).records
    chosen = faithfulness_sample(records, 2)
    assert {records[index].label for index in chosen} == {1}
    for row in (base, aligned):  # without alignment too there is a map to delete by
        areas = own_areas(out / f"alignment_{row['key']}_s0", chosen)
        kept = [row["seeds"]["0"][name] for name in ("deletion", "insertion")]
        assert kept == pytest.approx(areas, abs=1e-6)
    for column, spread in found["differences"][0]["spread"].items():
        pairs = [aligned["seeds"][s][column] - base["seeds"][s][column] for s in ("0", "1")]
        assert spread["mean"] == pytest.approx(np.mean(pairs), abs=1e-12)
        assert spread["std"] == pytest.approx(np.std(pairs, ddof=1), abs=1e-12)

    monkeypatch.setattr(alignment, "score_explanations", None)  # computing again would fail
    assert run_alignment(recipe, [0, 1], out, options, 2) == found
    with pytest.raises(ArtifactNetError, match=r"s0 was made with another config: optim\.lr"):
        run_alignment(recipe, [0, 1], out, [*options, "optim.lr=1e-5"], 2)


def test_the_sample_is_that_of_every_order_and_seed():
    states = [Annotation.MASK, Annotation.CLEAN, Annotation.NONE]
    records = [
        Record(f"{i // 2}", i % 2, "ab"[i % 3 // 2] if i % 2 else "real", states[i % 3], f"{i}.png")
        for i in range(60)
    ]

    def names(records, count):
        chosen = faithfulness_sample(records, count)
        assert chosen == sorted(set(chosen))
        return {records[index].location for index in chosen}

    everything = names(records, 99)
    assert everything == {
        r.location for r in records if r.label == 1 and r.annotation is not Annotation.NONE
    }
    small = names(records, 5)
    assert len(small) == 5
    assert small < names(records, 9) < everything
    shuffled = random.Random(1).sample(records, len(records))
    assert names(shuffled, 5) == small
    assert names(shuffled[:30], 99) <= everything


# --- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seeds", "overrides", "message"),
    [
        ([0, 0], [], r"seeds must be given, each once, not \[0, 0\]"),
        ([3], [], "give 2 to 40 seeds, not 1"),
        (range(41), [], "give 2 to 40 seeds, not 41"),
        ([0, 1], ["loss.alignment.weight=0"], r"tiny\.yaml.*alignment\.weight above 0"),
        ([0, 1], ["loss.alignment.weight=-1"], r"loss\.alignment\.weight"),
        ([0, 1], ["loss.alignmnt.weight=1"], "alignmnt"),
        ([0, 1], ["model.heatmap.head=decoder"], r"loss\.alignment\.weight"),
        ([0, 1], ["data.name=folder", "data.root=nowhere"], "nowhere"),
    ],
)
def test_refused_before_anything_is_trained(tmp_path, recipe, instant, seeds, overrides, message):
    with pytest.raises(ArtifactNetError, match=message):
        run_alignment(recipe, list(seeds), tmp_path / "out", overrides)
    assert not instant.trained
    assert not (tmp_path / "out").exists()


def test_a_model_without_attention_is_refused(tmp_path, recipe, instant):
    text = (tmp_path / "tiny.yaml").read_text()
    text = text.replace("{embed_dim: 32, depth: 2, num_heads: 2}", "{}")
    backbone = load(recipe).model.backbone
    (tmp_path / "tiny.yaml").write_text(text.replace(backbone, "test_convnext"))
    with pytest.raises(ArtifactNetError, match=r"test_convnext has no attention to align: \w"):
        run_alignment(recipe, [0, 1], tmp_path / "out")
    assert not instant.trained


@pytest.mark.parametrize(
    ("masked", "message"),
    [
        ((), "no training image has an artifact mask"),
        (("train",), "no fake of the test split is annotated"),
    ],
)
def test_data_without_annotated_fakes_is_refused(tmp_path, recipe, instant, masked, message):
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for kind in ("real", "fake"):
            for number in range(3):
                pixels = rng.integers(0, 255, (40, 44, 3), dtype=np.uint8)
                folders = [tmp_path / "mine" / split / kind]
                if kind == "fake" and split in masked:
                    folders.append(tmp_path / "mine" / split / "masks")
                for folder in folders:
                    folder.mkdir(parents=True, exist_ok=True)
                    mask = np.zeros((40, 44), np.uint8)
                    mask[:9] = 255
                    picture = mask if folder.name == "masks" else pixels
                    Image.fromarray(picture).save(folder / f"{split}{number}.png")
    options = ["data.name=folder", f"data.root={tmp_path / 'mine'}"]
    with pytest.raises(ArtifactNetError, match=f"data.root=.*mine: {message}"):
        run_alignment(recipe, [0, 1], tmp_path / "out", options)
    assert not instant.trained


def test_a_run_without_scored_heatmaps_is_an_error(tmp_path, recipe, instant):
    """Splits that are drawn may lack annotation for one seed alone."""
    known = instant.figures
    nothing = {"heatmap": None, "no_heatmap": "there is no annotated fake among the images"}
    instant.figures = lambda *given: known(*given) | nothing
    with pytest.raises(ArtifactNetError, match=r"s0.results\.json: .*no annotated fake"):
        run_alignment(recipe, [0, 1], tmp_path / "out", SMALL)


def test_a_map_that_cannot_be_made_is_an_error(tmp_path, recipe, instant, monkeypatch):
    failed = {"failures": [{"name": "demo-test-00001", "reason": "the map is not a number (NaN)"}]}
    monkeypatch.setattr(
        alignment, "open_samples", lambda run: SimpleNamespace(model=None, records=())
    )
    monkeypatch.setattr(
        alignment, "score_explanations", lambda *_, **__: {"methods": {"heatmap": failed}}
    )
    with pytest.raises(ArtifactNetError, match="baseline_s0: demo-test-00001: .*NaN"):
        run_alignment(recipe, [0, 1], tmp_path / "out", SMALL)
    assert not list((tmp_path / "out").rglob("faithfulness.json"))


@pytest.mark.parametrize(
    "words", [["detection", "--faithfulness", "3"], ["alignment", "--on", "a"]]
)
def test_options_of_other_experiments_are_refused(words, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["experiment", *words])
    assert "unrecognized arguments" in capsys.readouterr().err


def test_kept_curves_belong_to_their_number_of_images(tmp_path, recipe, instant, monkeypatch):
    asked = []

    def scores(model, samples, methods, *, faithfulness_images):
        asked.append(faithfulness_images)
        row = {"deletion": 0.4, "insertion": 0.6, "faithfulness_images": 1, "failures": []}
        return {"methods": {"heatmap": row}}

    monkeypatch.setattr(
        alignment, "open_samples", lambda run: SimpleNamespace(model=None, records=())
    )
    monkeypatch.setattr(alignment, "score_explanations", scores)
    found = run_alignment(recipe, [0, 1], tmp_path / "out", SMALL, 3)
    run_alignment(recipe, [0, 1], tmp_path / "out", SMALL, 3)
    assert asked == [3] * 4
    assert found["rows"][0]["seeds"]["1"]["deletion"] == 0.4
    run_alignment(recipe, [0, 1], tmp_path / "out", SMALL, 5)
    assert asked[4:] == [5] * 4
    kept = tmp_path / "out" / "alignment_baseline_s0" / "faithfulness.json"
    files.write_json(kept, json.loads(kept.read_text()) | {"method": "rollout"})
    run_alignment(recipe, [0, 1], tmp_path / "out", SMALL, 5)
    assert asked[8:] == [5]
