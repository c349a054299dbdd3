"""Detectors to the hub and back: the file, its config, and the card made of the run's results."""

import copy
import json
import math
import re
import shutil

import numpy as np
import pytest
import torch
import yaml
from canned_predictor import CannedPredictor
from hub_server import served_hub
from tiny_models import tiny

from artifactnet import Predictor, load_model, train
from artifactnet.cli import main
from artifactnet.config import load, to_dict
from artifactnet.exporters.export import export_model
from artifactnet.exporters.pack import pack_model
from artifactnet.models.metadata import read_metadata
from artifactnet.types import ArtifactNetError

NAME = "owner/detector"
IMAGE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_config):
    """A run of one epoch."""
    return train(tiny_config(tmp_path_factory.mktemp("trained"), "train.epochs=1")).run_dir


@pytest.fixture
def run(trained, tmp_path):
    """A copy of it that a test may change."""
    return shutil.copytree(trained, tmp_path / "runs" / "s0")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with served_hub(tmp_path / "cache", monkeypatch) as server:
        monkeypatch.setenv("HF_TOKEN", server.token)
        yield server


def edit(path, change):
    """Change a JSON file in place."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def with_seed(run, seed, change=lambda results: None):
    """The run with another seed and other results."""
    other = shutil.copytree(run, run.parent / f"s{seed}")
    config = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(re.sub(r"(?m)^seed: 0$", f"seed: {seed}", config))
    edit(other / "results.json", change)
    return other


def card_of(hub):
    return hub.files(NAME)["README.md"].decode()


def section(card, title):
    return card.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def table(card, title):
    """First column -> second, of all tables of a section."""
    rows = [line.split(" | ") for line in section(card, title).splitlines() if line[:2] == "| "]
    return {row[0].removeprefix("| "): row[1].removesuffix(" |") for row in rows}


def test_push_and_load(hub, run):
    local = load_model(run, "cpu")
    done = local.push_to_hub(NAME, licence="apache-2.0", message="first")
    found = hub.files(NAME)
    assert found["model.safetensors"] == (run / "model.safetensors").read_bytes()
    assert hub.messages == ["first"]
    config = json.loads(found["config.json"])
    assert config["library_name"] == "artifactnet"
    assert config["model"] == to_dict(read_metadata(run / "model.safetensors")["model"])
    _, front, _ = card_of(hub).split("---\n", 2)
    assert yaml.safe_load(front)["license"] == "apache-2.0"
    assert done.address == f"hf:{NAME}@{hub.repositories[NAME].branches['main']}"
    expected = local.predict(IMAGE)
    for remote in (
        load_model(done.address, "cpu"),
        load_model(f"hf:{NAME}", "cpu"),
        Predictor.from_pretrained(NAME, device="cpu"),
        Predictor.from_pretrained(NAME, done.address.partition("@")[2], "cpu"),
    ):
        answer = remote.predict(IMAGE)
        assert answer.probability == expected.probability
        assert np.array_equal(answer.heatmap, expected.heatmap)


def test_a_branch(hub, run):
    load_model(run, "cpu").push_to_hub(NAME, revision="v2", private=True)
    assert hub.repositories[NAME].private
    assert "model.safetensors" in hub.files(NAME, "v2")
    assert "model.safetensors" not in hub.files(NAME)


def test_figures_of_one_training(hub, run):
    load_model(run, "cpu").push_to_hub(NAME)
    results = json.loads((run / "results.json").read_text())
    figures = table(card_of(hub), "Figures")
    scores = results["authenticity"]["all"]
    assert figures["balanced accuracy"] == f"{scores['balanced_accuracy']:.4f}"
    assert figures["AUC"] == f"{scores['auc']:.4f}"
    assert figures["heatmap IoU"] == f"{results['heatmap']['IoU']:.4f}"
    assert "Of one training (seed 0)" in card_of(hub)
    data = json.loads((run / "data.json").read_text())["splits"]
    assert table(card_of(hub), "Training data")["train"] == str(data["train"]["images"])
    assert "No licence was stated." in card_of(hub)


def test_figures_of_every_head(hub, run):
    def change(results):
        pixels = {"IoU": 0.11, "PixP": 0.12, "PixR": 0.13, "PixF1": 0.14}
        results["masks"] = {"all": {"evaluated_images": 4, "category-agnostic": pixels}}
        results["saliency"] = {"MSE": 0.21, "KLD": 0.22, "CC": None, "SIM": 0.24, "NSS": 0.25}
        results["scores"] = {"PLCC": 0.31, "SRCC": 0.32, "images": 4}
        real, fake = (
            {"images": 4, "fake": x, "uncertain": x + 0.1, "real": x + 0.2} for x in (0, 0.5)
        )
        results["verdicts"] = {"fake_from": 0.8, "real_below": 0.2, "real": real, "fake": fake}

    edit(run / "results.json", change)
    load_model(run, "cpu").push_to_hub(NAME)
    figures = table(card_of(hub), "Figures")
    expected = {
        "masks IoU": "0.1100",
        "masks PixF1": "0.1400",
        "heatmap MSE": "0.2100",
        "heatmap NSS": "0.2500",
        "score SRCC": "0.3200",
        "real images called fake, of three verdicts": "0.0000",
        "real images called uncertain": "0.1000",
        "fakes called real, of three verdicts": "0.7000",
        "fakes called uncertain": "0.6000",
    }
    assert expected.items() <= figures.items()
    assert "heatmap CC" not in figures


def test_figures_of_several_seeds(hub, run):
    values = {0: 0.5, 1: 0.75, 2: 0.85}

    def change(seed):
        def put(results):
            results["authenticity"]["all"]["balanced_accuracy"] = values[seed]
            results["authenticity"]["generators"]["edit"]["recall"] = values[seed] / 2
            if seed == 2:
                results["heatmap"]["IoU"] = None

        return put

    edit(run / "results.json", change(0))
    others = [with_seed(run, seed, change(seed)) for seed in (1, 2)]
    load_model(run, "cpu").push_to_hub(NAME, runs=[*others, run])
    mean = sum(values.values()) / 3
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values.values()) / 2)
    figures = table(card_of(hub), "Figures")
    assert figures["balanced accuracy"] == f"{mean:.4f} ± {deviation:.4f}"
    assert "heatmap IoU" not in figures  # one of them has none
    assert f"| {mean / 2:.4f} ± {deviation / 2:.4f} |" in section(card_of(hub), "Figures")
    assert "3 trainings with the seeds 0, 1, 2" in card_of(hub)
    for seed in values:
        assert f"artifactnet train train.yaml seed={seed}" in section(
            card_of(hub), "Train it again"
        )


def test_the_recipe_in_the_card_is_that_of_the_run(hub, run, tmp_path):
    text = (run / "config.yaml").read_text()
    text = text.replace("  root: null", "  root: /home/me/secret/my ```images", 1)
    (run / "config.yaml").write_text(text)
    load_model(run, "cpu").push_to_hub(NAME)
    assert "secret" not in card_of(hub)
    recipe = re.search(r"(?ms)^(`{3,})yaml\n(.*?)^\1$", section(card_of(hub), "Train it again"))[2]
    path = tmp_path / "train.yaml"
    path.write_text(recipe)
    expected, found = to_dict(load(run / "config.yaml")), to_dict(load(path))
    expected["data"]["root"] = "my ```images"
    for each in (expected, found):
        for key in ("name", "out", "seed"):
            del each[key]
        del each["data"]["workers"]
    assert found == expected


def test_text_from_data_stays_text(hub, run):
    bad = "<img src=x onerror=alert(1)>|[a](http://evil)`x` *b* www.evil.com\n# heading\u202e"

    def change(results):
        generators = results["authenticity"]["generators"]
        generators[bad] = copy.deepcopy(generators["edit"])
        results["data_warnings"] = ["cannot read /home/me/secret/a.png", bad, "---\nlicense: mit"]

    edit(run / "results.json", change)
    load_model(run, "cpu").push_to_hub(NAME)
    card = card_of(hub)
    assert "secret" not in card
    assert "cannot read a.png" in card
    assert "<img" not in card.replace("\\<img", "")
    assert "\n# heading" not in card
    assert "\u202e" not in card
    _, front, body = card.split("---\n", 2)
    assert "license" not in yaml.safe_load(front)
    rows = [line for line in section(card, "Figures").splitlines() if "onerror" in line]
    (row,) = rows
    assert len(re.findall(r"(?<!\\)\|", row)) == 4  # three cells, as the others
    markdown_it = pytest.importorskip("markdown_it")
    html = markdown_it.MarkdownIt("gfm-like", {"linkify": False}).render(body)
    assert "<img" not in html
    assert "<a" not in html
    assert html.count("<h1>") == 1
    assert "<em>" not in html


def test_a_model_that_changed_has_no_figures(hub, run):
    predictor = load_model(run, "cpu")
    predictor.model.config.threshold = 0.3
    with pytest.raises(ArtifactNetError, match="none of these runs made this model"):
        predictor.push_to_hub(NAME, runs=[run])
    assert hub.requests == []
    predictor.push_to_hub(NAME)
    assert load_model(f"hf:{NAME}", "cpu").threshold == 0.3
    assert "uploaded without the results of a run" in card_of(hub)
    with torch.no_grad():
        predictor.model.config.threshold = 0.5
        predictor.model.head.bias += 1
    predictor.push_to_hub(NAME)
    found = load_model(f"hf:{NAME}", "cpu")
    assert torch.equal(found.model.head.bias, predictor.model.head.bias)


def test_a_model_made_in_memory(hub):
    Predictor(tiny()).push_to_hub(NAME)
    assert load_model(f"hf:{NAME}", "cpu").predict(IMAGE).probability == pytest.approx(
        Predictor(tiny()).predict(IMAGE).probability, abs=1e-6
    )


def test_a_packed_model(hub, run, tmp_path):
    packed = pack_model(run, tmp_path / "packed.safetensors", trained_on="very few images").path
    predictor = load_model(packed, "cpu")
    predictor.push_to_hub(NAME)
    assert "uploaded without the results of a run" in card_of(hub)
    predictor.push_to_hub(NAME, runs=[run])
    assert "balanced accuracy" in table(card_of(hub), "Figures")
    assert "very few images" in section(card_of(hub), "Training data")
    assert hub.files(NAME)["model.safetensors"] == packed.read_bytes()


def test_a_threshold_other_than_that_of_the_figures_is_said(hub, run):
    edit(run / "results.json", lambda results: results.update(threshold=0.4))
    load_model(run, "cpu").push_to_hub(NAME)
    assert "**The uploaded model calls images fake from 0.5**" in section(card_of(hub), "Figures")


def other_rate(run):
    other = with_seed(run, 1)
    text = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(text.replace("lr: 0.001", "lr: 0.002"))
    return [other]


def other_images(run):
    return [with_seed(run, 1, lambda results: results.update(images=7))]


def same_seed(run):
    return [shutil.copytree(run, run.parent / "again")]


def no_results(run):
    (run / "results.json").unlink()
    return []


def cut_results(run):
    (run / "results.json").write_text('{"run": ')
    return []


def no_run(run):
    return [run.parent]


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        (other_rate, "optim.lr was 0.001, is 0.002"),
        (other_images, "not evaluated on the images of"),
        (same_seed, "share a seed"),
        (no_results, "results.json: cannot be read"),
        (cut_results, "results.json: cannot be read"),
        (no_run, "is not the folder of a run"),
    ],
)
def test_runs_that_give_no_card(hub, run, runs, words):
    named = runs(run)
    with pytest.raises(ArtifactNetError) as caught:
        load_model(run, "cpu").push_to_hub(NAME, runs=named)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert hub.requests == []


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("detector", {}, "OWNER/NAME"),
        (NAME, {"licence": "My Licence"}, "not an identifier of the hub"),
        (NAME, {"revision": "../x"}, "OWNER/NAME"),
    ],
)
def test_arguments_are_checked_before_the_hub_is_asked(hub, name, options, words):
    with pytest.raises(ArtifactNetError, match=words):
        Predictor(tiny()).push_to_hub(name, **options)
    assert hub.requests == []


def test_other_kinds_of_models(hub, tmp_path):
    with pytest.raises(ArtifactNetError, match="only detectors are pushed"):
        CannedPredictor().push_to_hub(NAME)
    export_model(tiny(), tmp_path / "model.pt2", heatmap=False)
    with pytest.raises(ArtifactNetError, match="push the model that it was made of"):
        load_model(tmp_path / "model.pt2").push_to_hub(NAME)
    assert hub.requests == []


def test_command_line(hub, run, capsys):
    other = with_seed(run, 1)
    arguments = ["push", str(run), NAME, "--runs", str(other), "--licence", "mit", "--private"]
    assert main([*arguments, "--revision", "v1"]) == 0
    commit = hub.repositories[NAME].branches["v1"]
    printed = capsys.readouterr().out
    assert f"hf:{NAME}@{commit}" in printed
    assert f"{hub.url}/{NAME}/commit/{commit}" in printed
    assert b"license: mit" in hub.files(NAME, "v1")["README.md"]
    assert hub.repositories[NAME].private
    hub.status = 503
    assert main(arguments) == 2
    assert "the hub answered 503" in capsys.readouterr().err
