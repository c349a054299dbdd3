"""Models in the package: what lies there, found by name, and taken as a start."""

from __future__ import annotations

import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors import safe_open
from tiny_models import TINY, tiny

import artifactnet
from artifactnet.config import HeatmapConfig, ModelConfig
from artifactnet.models import packaged
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.models.checkpoint import load_checkpoint, save_checkpoint
from artifactnet.models.create import create_model
from artifactnet.models.metadata import read_metadata
from artifactnet.types import ArtifactNetError

MOST_BYTES = 12_000_000
FOUR = {**TINY, "depth": 4}  # blocks: as many as a heatmap head has levels


@pytest.fixture
def box(tmp_path, monkeypatch):
    """An empty box of our own, and no hub to be reached."""

    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(packaged, "FOLDER", tmp_path / "box")
    return tmp_path / "box"


def put(box: Path, name: str, trained_on: str | None = "edits", **config) -> ArtifactNet:
    """A model with random weights that no other seed gives."""
    model = tiny(seed=77, **{"kwargs": FOUR, **config})
    extra = {} if trained_on is None else {"packed": {"trained_on": trained_on}}
    save_checkpoint(model, box / f"{name}.safetensors", extra, half=True)
    return model


def fresh(**config) -> ArtifactNet:
    arguments = {"backbone": "vit_tiny_patch16_224", "backbone_kwargs": FOUR}
    arguments |= {"image_size": [32, 48], "pretrained": "auto"}
    return create_model(ModelConfig(**{**arguments, **config}))


# --- what is really in the package --------------------------------------------------------


def test_the_box_holds_models_with_cards_and_nothing_else():
    files = [p for p in packaged.FOLDER.iterdir() if p.is_file()]
    weights = {p.stem for p in files if p.suffix == ".safetensors"}
    cards = {p.stem for p in files if p.suffix == ".md" and p.read_text(encoding="utf-8").strip()}
    assert weights == cards
    assert {"student-nano", "vit-aligned"} == weights
    assert {p.suffix for p in files} <= {".safetensors", ".md", ".py"}
    assert [p.name for p in files if p.suffix == ".py"] == ["__init__.py"]


def test_the_box_is_small():
    assert sum(p.stat().st_size for p in packaged.FOLDER.iterdir() if p.is_file()) <= MOST_BYTES


@pytest.mark.parametrize("name", packaged.list_packaged())
def test_a_model_of_the_package_loads_by_name_and_answers(name):
    predictor = artifactnet.load_model(name, device="cpu")
    assert all(p.dtype == torch.float32 for p in predictor.model.parameters())
    image = np.random.default_rng(0).integers(0, 256, (300, 200, 3), dtype=np.uint8)
    answer = predictor.predict(image)
    assert 0 <= answer.probability <= 1
    assert answer.heatmap is not None
    assert answer.heatmap.shape == (300, 200)


@pytest.mark.parametrize("name", packaged.list_packaged())
def test_a_model_of_the_package_says_where_it_comes_from(name):
    path = packaged.FOLDER / f"{name}.safetensors"
    packed = read_metadata(path)["extra"]["packed"]
    assert packed["trained_on"]
    assert len(packed["original_sha256"]) == 64
    with safe_open(path, framework="pt") as handle:
        kinds = {handle.get_tensor(key).dtype for key in handle.keys()}  # noqa: SIM118
    assert torch.float32 not in kinds
    # who starts from its backbone without naming a normalisation must get the one it learned with
    config = read_metadata(path)["model"]
    own = ArtifactNet(replace(config, mean=None, std=None))
    assert (tuple(config.mean), tuple(config.std)) == (own.mean, own.std)


# --- by name ------------------------------------------------------------------------------


def test_names_are_those_of_the_files(box):
    assert packaged.list_packaged() == []
    for name in ("nano", "aligned"):
        put(box, name)
    (box / "nano.md").write_text("# nano")
    assert packaged.list_packaged() == ["aligned", "nano"]


def test_a_path_that_exists_wins(box, tmp_path, monkeypatch):
    put(box, "nano")
    monkeypatch.chdir(tmp_path)
    assert packaged.resolve_model("nano") == box / "nano.safetensors"
    assert packaged.resolve_model(Path("nano")) == box / "nano.safetensors"
    (tmp_path / "nano").mkdir()
    assert packaged.resolve_model("nano") == Path("nano")


@pytest.mark.parametrize("wrong", ["nanu", "nano.safetensors", "./nano", "../box/nano", ""])
def test_an_unknown_name_is_told_the_known_ones(box, wrong, tmp_path, monkeypatch):
    put(box, "nano")
    put(box, "aligned")
    monkeypatch.chdir(tmp_path)
    if wrong == "":  # the current folder
        assert packaged.resolve_model(wrong) == Path()
        return
    words = rf"^{wrong}: no such model file; models in the package: aligned, nano$"
    with pytest.raises(ArtifactNetError, match=words):
        packaged.resolve_model(wrong)


def test_an_empty_box_promises_nothing(box):
    with pytest.raises(ArtifactNetError, match="^nano: no such model file$"):
        packaged.resolve_model("nano")


# --- half precision -----------------------------------------------------------------------


def test_half_precision_is_how_it_is_stored_not_how_it_computes(box):
    model = put(box, "nano", heatmap=HeatmapConfig(head="decoder", width=8))
    model.half()  # what float16 keeps, computed independently
    with safe_open(box / "nano.safetensors", framework="pt") as handle:
        stored = {k: handle.get_tensor(k) for k in handle.keys()}  # noqa: SIM118
    assert {v.dtype for v in stored.values()} == {torch.float16}
    loaded = load_checkpoint(box / "nano.safetensors")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    state = loaded.state_dict()
    assert all(torch.equal(state[k], v.float()) for k, v in model.state_dict().items())
    assert loaded(torch.zeros(1, 3, 32, 48)).logit.dtype == torch.float32


def test_counters_and_indices_keep_their_type(tmp_path):
    kwargs = {"channels": (8, 8, 16, 16), "layers": (1, 1, 1, 1), "stem_width": 8}
    model = tiny("resnet18", kwargs=kwargs)
    model.backbone.net.bn1.num_batches_tracked.fill_(100_003)  # float16 has no such number
    save_checkpoint(model, tmp_path / "m.safetensors", half=True)
    loaded = load_checkpoint(tmp_path / "m.safetensors")
    assert int(loaded.backbone.net.bn1.num_batches_tracked) == 100_003


@pytest.mark.parametrize("value", [65505.0, -7e4, float("inf"), float("nan")])
def test_a_weight_beyond_half_precision_is_named(tmp_path, value):
    path = tmp_path / "m.safetensors"
    model = tiny()
    with torch.no_grad():
        model.head.weight[0, 3] = value
    with pytest.raises(ArtifactNetError, match=r"^head\.weight: .*half precision.*65504"):
        save_checkpoint(model, path, half=True)
    assert list(tmp_path.iterdir()) == []
    save_checkpoint(model, path)  # full precision takes it
    model.head.weight.data[0, 3] = 65504.0
    save_checkpoint(model, path, half=True)
    assert load_checkpoint(path).head.weight[0, 3] == 65504.0


# --- as a start ---------------------------------------------------------------------------


def same_backbone(one: ArtifactNet, other: ArtifactNet) -> bool:
    ours, theirs = one.backbone.state_dict(), other.backbone.state_dict()
    return all(torch.equal(ours[k], v.half().float()) for k, v in theirs.items())


def test_auto_starts_from_the_same_backbone(box, caplog):
    packed = put(box, "nano", "edits of photographs")
    model = fresh(heatmap=HeatmapConfig(head="decoder", width=8))  # heads may differ
    assert same_backbone(model, packed)
    assert not torch.equal(model.head.weight, packed.head.weight.half().float())
    (notice,) = model.notices
    assert notice.startswith(
        "vit_tiny_patch16_224 started from the packaged weights nano, trained on edits of "
        "photographs (see its model card): model.backbone_kwargs changes"
    )
    assert "RANDOM" not in notice
    assert notice in caplog.text


def test_the_notice_claims_no_data_that_nobody_named(box):
    put(box, "nano", trained_on=None)
    assert "packaged weights nano (see its model card)" in fresh().notices[0]


def test_auto_also_where_the_hub_is_what_is_missing(box):
    packed = put(box, "nano", backbone="test_vit", kwargs={})
    model = fresh(backbone="test_vit", backbone_kwargs={})
    assert same_backbone(model, packed)
    assert model.notices[0].endswith("no route to host)")


def test_a_convolutional_stem_comes_along(box):
    packed = put(box, "nano", stem="conv", stem_width=8)
    model = fresh(stem="conv", stem_width=8)
    assert same_backbone(model, packed)
    assert "packaged weights nano" in model.notices[0]


@pytest.mark.parametrize(
    "other",
    [
        {"backbone": "vit_small_patch16_224"},
        {"backbone_kwargs": TINY},
        {"stem": "conv", "stem_width": 8},
    ],
)
def test_another_backbone_is_not_taken(box, other):
    put(box, "nano")
    (notice,) = fresh(**other).notices
    assert "RANDOM weights" in notice


def test_another_stem_width_is_another_backbone_only_where_there_is_a_stem(box):
    packed = put(box, "nano", stem_width=32)
    assert same_backbone(fresh(stem_width=8), packed)
    put(box, "nano", stem="conv", stem_width=16)
    assert "RANDOM weights" in fresh(stem="conv", stem_width=8).notices[0]


def test_the_first_of_two_by_name(box):
    for seed, name in enumerate(("b", "a")):
        model = tiny(seed=seed, kwargs=FOUR)
        save_checkpoint(model, box / f"{name}.safetensors", half=True)
    assert same_backbone(fresh(), model)


def test_positions_are_resized_to_another_image_size(box):
    packed = put(box, "nano", size=(64, 64))
    model = fresh(image_size=[96, 96])
    theirs, ours = packed.backbone.net.pos_embed, model.backbone.net.pos_embed
    assert ours.shape == (1, 1 + 36, 24)
    # independent reference: the class token stays, 4x4 cells become 6x6 by bicubic interpolation
    assert torch.equal(ours[0, 0], theirs[0, 0].half().float())
    grid = theirs[:, 1:].half().float().reshape(1, 4, 4, 24).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(grid, (6, 6), mode="bicubic", antialias=True)
    expected = resized.permute(0, 2, 3, 1).reshape(1, 36, 24)
    torch.testing.assert_close(ours[:, 1:], expected, atol=1e-3, rtol=1e-3)


def test_oblong_positions_come_to_the_bit(box):
    packed = put(box, "nano", size=(32, 64))
    assert same_backbone(fresh(image_size=[32, 64]), packed)


def test_who_asks_for_true_false_or_a_file_gets_it(box, tmp_path):
    packed = put(box, "nano")
    silent = fresh(pretrained="false")
    assert silent.notices == ()
    assert not same_backbone(silent, packed)
    with pytest.raises(ArtifactNetError, match="pretrained=true, but"):
        fresh(pretrained="true")
    other = tiny(seed=5, kwargs=FOUR)
    save_checkpoint(other, tmp_path / "other.safetensors", half=True)
    named = fresh(weights=str(tmp_path / "other.safetensors"))
    assert same_backbone(named, other)


def test_loading_a_model_looks_at_no_box(box):
    box.mkdir()
    model = tiny(seed=3)
    save_checkpoint(model, box.parent / "own.safetensors")
    (box / "nano.safetensors").write_bytes(b"damaged")
    loaded = load_checkpoint(box.parent / "own.safetensors")
    assert torch.equal(loaded.head.weight, model.head.weight)
    with pytest.raises(ArtifactNetError, match=r"nano\.safetensors: not a readable"):
        fresh()
