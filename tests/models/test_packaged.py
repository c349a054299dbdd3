"""Packaged models: what there is, found by name, and used as a start."""

import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors import safe_open
from safetensors.torch import load_file
from skimage import data
from sklearn.metrics import roc_auc_score
from tiny_models import TINY, tiny

import artifactnet
from artifactnet.config import HeatmapConfig, ModelConfig, load
from artifactnet.inference.preprocessing import preprocess_of
from artifactnet.models import packaged
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.models.checkpoint import load_checkpoint, save_checkpoint
from artifactnet.models.create import create_model
from artifactnet.models.metadata import read_metadata
from artifactnet.types import ArtifactNetError

MOST_BYTES = 64_000_000
DINOV2 = "vit_small_patch14_dinov2"
ORIGINAL = packaged.FOLDER
FOUR = {**TINY, "depth": 4}  # blocks: as many as a heatmap head has levels


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder of packaged models, and no hub."""

    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(packaged, "FOLDER", tmp_path / "packaged")
    return tmp_path / "packaged"


def put(folder: Path, name: str, trained_on: str | None = "edits", **config) -> ArtifactNet:
    """A model with random weights that no other seed gives."""
    model = tiny(seed=77, **{"kwargs": FOUR, **config})
    extra = {} if trained_on is None else {"packed": {"trained_on": trained_on}}
    save_checkpoint(model, folder / f"{name}.safetensors", extra, half=True)
    return model


def fresh(**config) -> ArtifactNet:
    arguments = {"backbone": "vit_tiny_patch16_224", "backbone_kwargs": FOUR}
    arguments |= {"image_size": [32, 48], "pretrained": "auto"}
    return create_model(ModelConfig(**{**arguments, **config}))


def test_every_packaged_model_has_a_card_and_all_are_small():
    files = [p for p in packaged.FOLDER.iterdir() if p.is_file()]
    weights = {p.stem for p in files if p.suffix == ".safetensors"}
    cards = {p.stem for p in files if p.suffix == ".md" and p.read_text(encoding="utf-8").strip()}
    assert weights == cards
    assert {"artifactnet-small", "dinov2-small", "student-nano", "vit-aligned"} == weights
    assert {p.suffix for p in files} <= {".safetensors", ".md", ".py"}
    assert [p.name for p in files if p.suffix == ".py"] == ["__init__.py"]
    assert sum(p.stat().st_size for p in files) <= MOST_BYTES


@pytest.mark.parametrize("name", packaged.list_packaged())
def test_a_packaged_model_loads_by_name_and_predicts(name):
    predictor = artifactnet.load_model(name, device="cpu")
    assert all(p.dtype == torch.float32 for p in predictor.model.parameters())
    image = np.random.default_rng(0).integers(0, 256, (300, 200, 3), dtype=np.uint8)
    answer = predictor.predict(image)
    assert 0 <= answer.probability <= 1
    assert answer.heatmap is not None
    assert answer.heatmap.shape == (300, 200)


@pytest.mark.parametrize("name", packaged.list_packaged())
def test_a_packaged_model_records_its_origin(name):
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


def test_names_are_those_of_the_files(folder):
    assert packaged.list_packaged() == []
    with pytest.raises(ArtifactNetError, match="^nano: no such model file$"):
        packaged.resolve_model("nano")
    for name in ("nano", "aligned"):
        put(folder, name)
    (folder / "nano.md").write_text("# nano")
    assert packaged.list_packaged() == ["aligned", "nano"]


def test_a_path_that_exists_wins(folder, tmp_path, monkeypatch):
    put(folder, "nano")
    monkeypatch.chdir(tmp_path)
    assert packaged.resolve_model("nano") == folder / "nano.safetensors"
    assert packaged.resolve_model(Path("nano")) == folder / "nano.safetensors"
    (tmp_path / "nano").mkdir()
    assert packaged.resolve_model("nano") == Path("nano")


@pytest.mark.parametrize("wrong", ["nanu", "nano.safetensors", "./nano", "../packaged/nano", ""])
def test_an_unknown_name_lists_the_known_ones(folder, wrong, tmp_path, monkeypatch):
    put(folder, "nano")
    put(folder, "aligned")
    monkeypatch.chdir(tmp_path)
    if wrong == "":  # the current folder
        assert packaged.resolve_model(wrong) == Path()
        return
    words = rf"^{wrong}: no such model file; models in the package: aligned, nano$"
    with pytest.raises(ArtifactNetError, match=words):
        packaged.resolve_model(wrong)


def test_half_precision_is_how_it_is_stored_not_how_it_computes(folder):
    model = put(folder, "nano", heatmap=HeatmapConfig(head="decoder", width=8))
    model.half()  # what float16 keeps, computed independently
    with safe_open(folder / "nano.safetensors", framework="pt") as handle:
        stored = {k: handle.get_tensor(k) for k in handle.keys()}  # noqa: SIM118
    assert {v.dtype for v in stored.values()} == {torch.float16}
    loaded = load_checkpoint(folder / "nano.safetensors")
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


def same_backbone(one: ArtifactNet, other: ArtifactNet) -> bool:
    ours, theirs = one.backbone.state_dict(), other.backbone.state_dict()
    return all(torch.equal(ours[k], v.half().float()) for k, v in theirs.items())


def test_auto_starts_from_the_same_backbone(folder, caplog):
    packed = put(folder, "nano", "edits of photographs")
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


def test_auto_also_where_the_hub_is_what_is_missing(folder):
    packed = put(folder, "nano", backbone="test_vit", kwargs={})
    model = fresh(backbone="test_vit", backbone_kwargs={})
    assert same_backbone(model, packed)
    assert model.notices[0].endswith("no route to host)")


def test_a_convolutional_stem_comes_along(folder):
    packed = put(folder, "nano", stem="conv", stem_width=8)
    model = fresh(stem="conv", stem_width=8)
    assert same_backbone(model, packed)
    assert "packaged weights nano" in model.notices[0]


@pytest.mark.parametrize(
    ("packed", "config", "same"),
    [
        ({}, {"backbone": "vit_small_patch16_224"}, False),
        ({}, {"backbone_kwargs": TINY}, False),
        ({}, {"stem": "conv", "stem_width": 8}, False),
        ({"stem_width": 32}, {"stem_width": 8}, True),  # without a stem
        ({"stem": "conv", "stem_width": 16}, {"stem": "conv", "stem_width": 8}, False),
    ],
)
def test_another_backbone_is_not_taken(folder, packed, config, same):
    put(folder, "nano", **packed)
    assert ("RANDOM weights" not in fresh(**config).notices[0]) == same


def test_positions_are_resized_to_another_image_size(folder):
    packed = put(folder, "nano", size=(64, 64))
    model = fresh(image_size=[96, 96])
    theirs, ours = packed.backbone.net.pos_embed, model.backbone.net.pos_embed
    assert ours.shape == (1, 1 + 36, 24)
    # independent reference: the class token stays, 4x4 cells become 6x6 by bicubic interpolation
    assert torch.equal(ours[0, 0], theirs[0, 0].half().float())
    grid = theirs[:, 1:].half().float().reshape(1, 4, 4, 24).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(grid, (6, 6), mode="bicubic", antialias=True)
    expected = resized.permute(0, 2, 3, 1).reshape(1, 36, 24)
    torch.testing.assert_close(ours[:, 1:], expected, atol=1e-3, rtol=1e-3)


def test_true_false_and_files_go_first(folder, tmp_path):
    packed = put(folder, "nano")
    silent = fresh(pretrained="false")
    assert silent.notices == ()
    assert not same_backbone(silent, packed)
    with pytest.raises(ArtifactNetError, match="pretrained=true, but"):
        fresh(pretrained="true")
    other = tiny(seed=5, kwargs=FOUR)
    save_checkpoint(other, tmp_path / "other.safetensors", half=True)
    named = fresh(weights=str(tmp_path / "other.safetensors"))
    assert same_backbone(named, other)


def test_loading_a_saved_model_ignores_packaged_ones(folder):
    folder.mkdir()
    model = tiny(seed=3)
    save_checkpoint(model, folder.parent / "own.safetensors")
    (folder / "nano.safetensors").write_bytes(b"damaged")
    loaded = load_checkpoint(folder.parent / "own.safetensors")
    assert torch.equal(loaded.head.weight, model.head.weight)
    with pytest.raises(ArtifactNetError, match=r"nano\.safetensors: not a readable"):
        fresh()


def test_packaged_dinov2_is_the_published_one():
    """Statistics of the tensors, and what its features are known for: they separate objects."""
    state = load_file(packaged.PUBLISHED[DINOV2].path)
    assert len(state) == 174
    assert sum(value.numel() for value in state.values()) == 22_056_192
    assert all(value.dtype == torch.float16 for value in state.values())
    assert float(state["cls_token"].float().norm()) == pytest.approx(0.2918, abs=1e-4)
    assert float(state["pos_embed"].float().std()) == pytest.approx(0.010164, abs=1e-6)
    model = create_model(DINOV2, image_size=224)
    assert model.notices == ()
    # a cat on the left half, gravel on the right, both gray and of one brightness and contrast
    cat, gravel = data.chelsea()[:224, 150:262].mean(2), data.gravel()[:224, :112].astype(float)
    halves = [(x - x.mean()) / x.std() * 50 + 128 for x in (cat, gravel)]
    image = np.concatenate(halves, 1).clip(0, 255).astype(np.uint8)[..., None].repeat(3, 2)
    pixels, _ = preprocess_of(model).image(image)
    with torch.no_grad():
        patches = model.eval().backbone.net.forward_features(pixels[None])[0, 1:]
    centred = patches - patches.mean(0)
    first = centred @ torch.linalg.svd(centred, full_matrices=False).Vh[0]
    sides = np.tile(np.arange(16) < 8, 16)
    separation = roc_auc_score(sides, first.numpy())
    assert max(separation, 1 - separation) > 0.98  # of random weights 0.57


def test_published_weights_in_the_package_come_before_the_hub(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    one, other = (create_model(DINOV2, image_size=size) for size in (56, 70))
    assert one.notices == other.notices == ()
    for name, value in one.state_dict().items():
        if name.startswith("backbone.net.blocks"):
            assert torch.equal(value, other.state_dict()[name])


def test_the_recipe_of_the_aligned_model_builds_it():
    packed = read_metadata(ORIGINAL / "vit-aligned.safetensors")["model"]
    recipe = load("toy_align")
    assert recipe.data.demo_photos == "classic"
    for key in ("backbone", "backbone_kwargs", "stem", "stem_width", "image_size", "attention"):
        assert getattr(recipe.model, key) == getattr(packed, key), key
    assert recipe.model.pretrained == "false"  # auto would start from the model itself
    card = (ORIGINAL / "vit-aligned.md").read_text(encoding="utf-8")
    assert "artifactnet train toy_align\n" in card


@pytest.mark.parametrize("position", [100, 1_000_000, -1])
def test_a_changed_byte_of_published_weights_is_one_line(folder, position):
    folder.mkdir()
    published = packaged.PUBLISHED[DINOV2]
    content = bytearray((ORIGINAL / f"{published.name}.safetensors").read_bytes())
    content[position] ^= 1
    published.path.write_bytes(content)
    with pytest.raises(ArtifactNetError, match=r"dinov2-small\.safetensors: not the published"):
        create_model(DINOV2, image_size=56)


def test_the_default_model_shares_its_context_with_the_published_weights():
    """16 million parameters in 2.5 MB; the context is DINOv2-S's, bit by bit."""
    path = packaged.FOLDER / "artifactnet-small.safetensors"
    assert path.stat().st_size < 4_000_000
    facts = read_metadata(path)
    assert facts["backbones"]["context.net."]["name"] == "dinov2-small"
    assert facts["model"].limits is not None
    model = load_checkpoint(path)
    weights = load_file(packaged.FOLDER / "dinov2-small.safetensors")
    found = model.context.net.state_dict()
    assert len(model.context.net.blocks) == 8
    for name in ("blocks.0.attn.qkv.weight", "blocks.7.mlp.fc2.weight", "norm.weight"):
        assert torch.equal(found[name], weights[name].float())


def test_the_default_model_has_three_verdicts():
    model = artifactnet.load_model(device="cpu")
    low, high = model.model.config.limits
    assert 0 < low < 0.5 < high < 1
    answer = model.predict(data.astronaut())
    wanted = "fake" if answer.probability >= high else "uncertain"
    assert answer.verdict == (wanted if answer.probability >= low else "real")
