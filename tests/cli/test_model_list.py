"""``artifactnet models``: what is in the package and in the cache of the hub."""

import shutil

import pytest
from huggingface_hub import constants
from safetensors.torch import save_file
from tiny_models import tiny

from artifactnet.cli import main
from artifactnet.inference.load import load_model
from artifactnet.models import packaged
from artifactnet.models.catalogue import known_models
from artifactnet.models.checkpoint import save_checkpoint

CARD = "---\nlicense: cc-by-4.0\n---\n# Detector\n\x1b[2J of hands\n"
OLD, NEW = "a" * 40, "b" * 40


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of the hub: ours in two revisions, the newer with a card, and models of others."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def add(repository, commit, branch=None):
        place = folder / f"models--{repository.replace('/', '--')}"
        snapshot = place / "snapshots" / commit
        snapshot.mkdir(parents=True)
        (place / "refs").mkdir(exist_ok=True)
        if branch is not None:
            (place / "refs" / branch).write_text(commit)
        return snapshot

    save_checkpoint(tiny(seed=0), add("owner/detector", OLD) / "model.safetensors")
    newer = add("owner/detector", NEW, "main")
    save_checkpoint(tiny(seed=1), newer / "model.safetensors")
    (newer / "README.md").write_text(CARD)
    save_file({"x": tiny().head.weight}, add("timm/vit", OLD, "main") / "model.safetensors")
    (add("owner/words", OLD, "main") / "config.json").write_text("{}")
    return folder


@pytest.fixture
def no_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "nowhere"))


def test_packaged_models(no_cache, capsys):
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * len(packaged.list_packaged())
    for name in packaged.list_packaged():
        path = packaged.FOLDER / f"{name}.safetensors"
        (at,) = (k for k, line in enumerate(lines) if line.startswith(f"{name} "))
        assert f"{path.stat().st_size / 1e6:.1f} MB  Apache-2.0, packaged" in lines[at]
        assert (", the default" in lines[at]) == (name == packaged.DEFAULT)
        assert lines[at + 1] == f"  card: {path.with_suffix('.md')}"


def test_cached_models_are_those_of_ours(cache, capsys):
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    old, new = f"hf:owner/detector@{OLD}", "hf:owner/detector"
    names = [line.split()[0] for line in out.splitlines()[::2]]
    assert names == [*packaged.list_packaged(), new, old]
    assert "cc-by-4.0, cache of the hub" in out
    assert f"  card: {cache}/models--owner--detector/snapshots/{NEW}/README.md" in out
    assert "licence: see the card, cache of the hub" in out
    assert f"  card: {constants.ENDPOINT}/owner/detector\n" in out
    for model in known_models()[-2:]:  # the names are those that the library takes
        assert load_model(model.path, "cpu").threshold == load_model(model.name, "cpu").threshold


def test_a_card(no_cache, capsys):
    assert main(["models", "student-nano"]) == 0
    expected = (packaged.FOLDER / "student-nano.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out == expected


def test_a_card_of_the_hub_cannot_move_the_cursor(cache, capsys):
    assert main(["models", "hf:owner/detector"]) == 0
    assert capsys.readouterr().out == CARD.replace("\x1b", "\\u001b")


def test_a_card_that_is_not_here(cache, capsys):
    assert main(["models", f"hf:owner/detector@{OLD}"]) == 2
    err = capsys.readouterr().err
    assert f"its card is not in the cache; see {constants.ENDPOINT}/owner/detector" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", ["nope", "hf:timm/vit", "../student-nano"])
def test_no_such_model(cache, capsys, name):
    assert main(["models", name]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"artifactnet: error: {name}: no such model here; there are: ")
    assert "student-nano" in err


def test_a_damaged_cache_hides_nothing_else(cache, capsys):
    shutil.rmtree(cache / "models--owner--detector" / "snapshots" / OLD)
    (cache / "models--owner--detector" / "snapshots" / OLD).mkdir()
    (cache / "models--owner--words" / "refs" / "main").write_text("c" * 40)
    assert main(["models"]) == 0
    assert "hf:owner/detector " in capsys.readouterr().out
