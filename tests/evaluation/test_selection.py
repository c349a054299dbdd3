"""Which images an evaluation uses: none that were learned from, and otherwise all there are."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_exports import student

from artifactnet import api
from artifactnet.cli import main
from artifactnet.config import Config, DataConfig
from artifactnet.data.datamodule import build_splits
from artifactnet.evaluation.selection import select_images
from artifactnet.models.checkpoint import save_checkpoint
from artifactnet.types import ArtifactNetError


def images(root: Path, *folders: str, count: int = 10) -> Path:
    for folder in folders:
        for number in range(count):
            path = root / folder / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            seed = list(str(path.relative_to(root)).encode())
            pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
    return root


def manifest(path: Path, root: Path, split: str | None = None, count: int = 10) -> Path:
    """A manifest of the images of real/ and fake/ of a folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for label, kind in enumerate(("real", "fake")):
        for number in range(count):
            line = {"image": str(root / kind / f"{number}.png"), "uid": str(number), "label": label}
            line |= {"annotation": "none" if label else "clean"}
            lines.append(json.dumps(line | ({"split": split} if split else {})))
    path.write_text("\n".join(lines))
    return path


def config(root: Path, seed: int = 0, **data) -> Config:
    return Config(seed=seed, data=DataConfig(**{"name": "folder", "root": str(root), **data}))


def chosen(splits, *names: str) -> set[str]:
    found = (splits[name].records for name in names if name in splits)
    return {os.path.realpath(record.location) for records in found for record in records}


@pytest.mark.parametrize(
    ("folders", "used", "name"),
    [
        (("real", "fake"), ("real", "fake"), "all"),
        (("a/real", "a/fake", "b/1_fake"), ("a/real", "a/fake", "b/1_fake"), "all"),
        (("train/nature", "train/ai"), ("train/nature", "train/ai"), "all"),
        (("val/real", "val/fake", "train/real", "train/fake"), ("val/real", "val/fake"), "val"),
        (("Testing/real", "Testing/fake", "dev/real"), ("Testing/real", "Testing/fake"), "test"),
        (("fake/sdxl", "fake/flux"), ("fake/sdxl", "fake/flux"), "all"),
        (("real",), ("real",), "all"),
    ],
)
@pytest.mark.parametrize("known", [True, False])
def test_all_of_a_folder_that_was_not_trained_on(tmp_path, folders, used, name, known):
    own = config(images(tmp_path / "own", "real", "fake")) if known else None
    root = images(tmp_path / "other", *folders)
    selection = select_images(config(root), own)
    places = {os.path.relpath(p, root) for p in chosen(selection.splits, "test")}
    assert places == {f"{folder}/{k}.png" for folder in used for k in range(10)}
    assert selection.splits.keys() == {"test"}
    assert selection.name == name
    assert selection.warnings == ()


@pytest.mark.parametrize("split", [None, "train"])
def test_all_of_a_manifest_that_was_not_trained_on(tmp_path, split):
    root = images(tmp_path / "other", "real", "fake")
    file = manifest(tmp_path / "m.jsonl", root, split)
    own = config(images(tmp_path / "own", "real", "fake"))
    selection = select_images(config(file, name="manifest"), own)
    assert len(chosen(selection.splits, "test")) == 20


@pytest.mark.parametrize("seed", [0, 3])
def test_the_runs_own_data_keeps_its_splits(tmp_path, seed, monkeypatch):
    own = config(images(tmp_path / "own", "real", "fake"), seed, val_fraction=0.2)
    trained = build_splits(own.data, seed)
    monkeypatch.chdir(tmp_path)
    for root in (tmp_path / "own", Path("own"), tmp_path / "own" / ".." / "own"):
        selection = select_images(config(root, seed, val_fraction=0.2, limit=1), own)
        assert chosen(selection.splits, "test") <= chosen(trained, "test")
        selection = select_images(config(root, seed, val_fraction=0.2), own)
        assert selection.name is None
        assert chosen(selection.splits, "test") == chosen(trained, "test")
        assert chosen(selection.splits, "train") == chosen(trained, "train")


def drawn(asked: Config, own: Config, overrides: list[str]) -> set[str]:
    """Images of a split that is drawn anew; none where the run has learned from all of them."""
    try:
        return chosen(select_images(asked, own, overrides).splits, "test")
    except ArtifactNetError:
        return set()


def test_nothing_that_was_learned_is_evaluated(tmp_path):
    """Another seed, other generators, a folder below or above, a link, a manifest of the same."""
    makers = ("fake/sdxl", "fake/flux")
    own = config(images(tmp_path / "set" / "own", "real", *makers), 1, val_fraction=0.2)
    images(tmp_path / "set" / "more", "real", "fake", count=4)
    (tmp_path / "link").symlink_to(tmp_path / "set" / "own")
    listed = tmp_path / "listed"
    listed.mkdir()
    for kind, folder in (("real", "real"), ("fake", "fake/flux")):
        (listed / kind).symlink_to(tmp_path / "set" / "own" / folder)
    file = manifest(tmp_path / "m.jsonl", listed)
    singly = tmp_path / "singly"  # every file is a link
    for path in [*(listed / "real").iterdir(), *(listed / "fake").iterdir()]:
        (singly / path.parent.name).mkdir(parents=True, exist_ok=True)
        (singly / path.parent.name / path.name).symlink_to(path)
    trained = build_splits(own.data, 1)
    learned, free = chosen(trained, "train", "val"), chosen(trained, "test")
    root = tmp_path / "set" / "own"
    above = chosen(select_images(config(tmp_path / "set"), own).splits, "test")
    assert not above & learned
    assert len(above) == len(free) + 8
    for other in (
        config(root, 2),
        config(root, 1, generators=["flux"]),
        config(root / ".." / "own", 1, val_fraction=0.3),
        config(tmp_path / "link", 2),
        config(file, name="manifest"),
        config(listed, 2),  # real/ and fake/ are links
        config(singly, 2),
    ):
        selection = select_images(replace(other, data=replace(other.data)), own)
        found = chosen(selection.splits, "test")
        assert found
        assert found <= free
        assert any("were left out" in text for text in selection.warnings)
        for overrides in (["seed=2"], ["data.val_fraction=0.3"]):
            asked = replace(other, data=replace(other.data))
            assert drawn(asked, own, overrides) <= free


def test_only_what_was_learned_is_an_error(tmp_path):
    images(tmp_path, "train/real", "train/fake", "val/real", "val/fake")
    own = config(tmp_path)
    with pytest.raises(ArtifactNetError, match="trained on all of these"):
        select_images(config(tmp_path / "train"), own)


def test_data_of_the_run_that_is_gone(tmp_path):
    own = config(tmp_path / "gone.jsonl", name="manifest")
    selection = select_images(config(images(tmp_path / "new", "real", "fake")), own)
    assert len(chosen(selection.splits, "test")) == 20
    assert any("unknown whether it was trained" in text for text in selection.warnings)


def test_limit_and_drawing_as_for_training(tmp_path):
    root = images(tmp_path, "real", "fake")
    few = select_images(config(root, limit=3), None)
    assert len(few.splits["test"].records) == 6
    asked = config(root, 5, val_fraction=0.3)
    drawn = select_images(asked, None, ["data.val_fraction=0.3"])
    expected = build_splits(config(root, 5, val_fraction=0.3).data, 5)
    assert chosen(drawn.splits, "test") == chosen(expected, "test")
    assert len(chosen(drawn.splits, "test")) == 6


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "one.safetensors"
    save_checkpoint(student(), path)
    return path


@pytest.mark.parametrize(
    ("folders", "figure"),
    [
        (("fake/a", "fake/b"), "recall"),
        (("AI",), "recall"),
        (("real",), "real_accuracy"),
        (("test/nature",), "real_accuracy"),
    ],
)
def test_one_class_has_its_recall_alone(model, tmp_path, capsys, folders, figure):
    root = images(tmp_path / "data", *folders)
    keys = ["data.name=folder", f"data.root={root}", f"out={tmp_path}"]
    assert main(["evaluate", str(model), *keys]) == 0
    printed = capsys.readouterr().out
    (page,) = (tmp_path / "evaluations").rglob("results.md")
    results = json.loads(page.with_name("results.json").read_text())
    rows = results["authenticity"]["generators"] | {"all": results["authenticity"]["all"]}
    assert len(rows) == (3 if "fake/a" in folders else 1 + (figure == "recall"))
    for row in rows.values():
        assert 0 <= row[figure] <= 1
        absent = {"balanced_accuracy", "precision", "f1", "auc", "recall", "real_accuracy"}
        assert {row[key] for key in absent - {figure}} == {None}
    assert rows["all"]["real"] + rows["all"]["fake"] == 10 * len(folders) == results["images"]
    assert any("only" in text for text in results["data_warnings"])
    assert "balanced accuracy" not in printed + page.read_text().partition("## Auth")[2]
    assert f"{rows['all'][figure]:.4f}" in page.read_text()


@pytest.mark.parametrize("folders", [("real",), ("fake/a", "fake/b"), ("train/ai", "test/ai")])
def test_training_still_refuses_one_class(tmp_path, tiny, folders):
    root = images(tmp_path / "data", *folders)
    with pytest.raises(ArtifactNetError, match="holds no"):
        api.train(tiny("data.name=folder", f"data.root={root}"))


def test_results_say_that_all_images_were_used(model, tmp_path, capsys):
    root = images(tmp_path / "data", "real", "fake", count=12)
    keys = ["data.name=folder", f"data.root={root}", f"out={tmp_path}"]
    found = api.evaluate(model, keys)
    assert found["images"] == 24
    assert found["data"]["split"] == "all"
    (page,) = (tmp_path / "evaluations").rglob("results.md")
    assert "24 images, all of `folder`" in page.read_text()
    assert any("does not say which images" in text for text in found["data_warnings"])
    images(root / "test", "real", "fake", count=3)
    os.rename(root / "real", root / "test" / "real" / "old")
    os.rename(root / "fake", root / "test" / "fake" / "old")
    found = api.evaluate(model, keys)
    assert found["images"] == 30
    assert found["data"]["split"] == "test"
    assert not any("does not say which images" in text for text in found["data_warnings"])
