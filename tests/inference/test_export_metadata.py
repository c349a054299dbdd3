"""Metadata of exported files: complete, and checked when read."""

import json
from dataclasses import replace

import pytest
import tiny_models
from hypothesis import given
from hypothesis import strategies as st
from tiny_exports import TINY_VIT, student

import artifactnet
from artifactnet.config import HeatmapConfig, ModelConfig
from artifactnet.exporters.graph import facts_of
from artifactnet.inference.backends.metadata import FORMAT, KEYS, facts_from_strings
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.types import ArtifactNetError


@pytest.fixture(scope="module")
def model():
    made = student(resize="pad", threshold=0.3, map_threshold=0.7)
    made.notices = ('weights are "random" é <b>',)
    made.config.weights = "/home/someone/secret.safetensors"
    return made


def test_everything_that_a_user_needs_is_there(model):
    facts = facts_of(model)
    assert facts.version == artifactnet.__version__
    assert facts.model["backbone_kwargs"] == TINY_VIT
    assert (facts.threshold, facts.map_threshold, facts.resize) == (0.3, 0.7, "pad")
    assert facts.image_size == (64, 96)
    assert facts.classes == ("real", "fake")
    assert (facts.mean, facts.std) == (tuple(model.mean), tuple(model.std))
    assert facts.model["mean"] == list(model.mean)
    assert facts.notices == model.notices
    assert facts.outputs == ("logit", "heatmap", "sigma", "score")
    assert facts.kept_float is None
    assert facts_of(model, heatmap=False).outputs == ("logit",)


def test_paths_of_the_machine_stay_out(model):
    assert "secret" not in json.dumps(facts_of(model).to_strings())
    assert model.config.weights is not None  # and the model keeps its own


def test_strings_come_back_as_they_were(model):
    strings = facts_of(model).to_strings()
    assert set(strings) == set(KEYS)
    assert facts_from_strings(strings | {"of": "others"}, "x") == facts_of(model)


def test_attention_is_refused_but_for_the_verdict_alone():
    vit = tiny_models.tiny()
    with pytest.raises(ArtifactNetError, match=r"rollout.*cannot be exported.*--no-heatmap"):
        facts_of(vit)
    assert facts_of(vit, heatmap=False).heatmap == "none"
    assert facts_of(vit, heatmap=False).patch_size == 16


@pytest.mark.parametrize("adaptive", [True, False])
def test_an_adaptive_mapper_notes_its_fixed_size(adaptive):
    heatmap = HeatmapConfig(head="mapper", width=16, tile=32, heads=2, adaptive=adaptive)
    model = ArtifactNet(
        ModelConfig(
            backbone="test_convnext", image_size=[64, 96], pretrained="false", heatmap=heatmap
        )
    )
    notices = facts_of(model).notices
    assert len(notices) - len(model.notices) == adaptive
    assert not adaptive or "exported for images of 64x96" in notices[-1]


def test_a_file_of_others_is_refused():
    with pytest.raises(ArtifactNetError, match=r"^x.onnx: not exported by ArtifactNet"):
        facts_from_strings({"producer": "someone"}, "x.onnx")


def test_another_format_says_which(model):
    strings = facts_of(model).to_strings() | {"format": "artifactnet-export-9"}
    with pytest.raises(ArtifactNetError, match=rf"artifactnet-export-9.*reads {FORMAT}"):
        facts_from_strings(strings, "x")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("heatmap", '"dream"'),
        ("image_size", "[64]"),
        ("image_size", "[64, 0]"),
        ("image_size", "7"),
        ("std", "[1, 1, 0]"),
        ("mean", "[1, 1]"),
        ("model", "{"),
        ("model", "[1]"),
        ("model", "[" * 100_000),
        ("version", "1"),
        ("classes", '["real"]'),
        ("categories", '["a"]'),
        ("image_size", "[64.5, 96]"),
        ("image_size", "[true, 96]"),
        ("std", '["a", "b", "c"]'),
        ("mean", "[NaN, 1, 1]"),
        ("resize", '"squeeze"'),
        ("resize", "3"),
        ("threshold", '"high"'),
        ("threshold", "NaN"),
        ("threshold", "1.5"),
        ("threshold", "9" * 400),
        ("map_threshold", "null"),
        ("map_threshold", "true"),
        ("patch_size", '"16"'),
        ("patch_size", "0"),
        ("patch_size", "1.5"),
        ("heatmap", "{}"),
        ("notices", "[1]"),
        ("notices", '"text"'),
        ("kept_float", "[1]"),
        ("calibrated", "0"),
        ("fake_from", "0.9"),  # without the other limit
        ("real_below", "0.1"),
        ("calibrated", '"64"'),
    ],
)
def test_damage_is_named(model, key, value):
    with pytest.raises(ArtifactNetError, match=r"^x: its metadata is damaged") as caught:
        facts_from_strings(facts_of(model).to_strings() | {key: value}, "x")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("low", "high"), [("0.6", "0.9"), ("0.1", "0.2"), ("0.9", "0.1"), ('"a"', "0.9"), ("0.1", "2")]
)
def test_limits_lie_on_both_sides_of_the_threshold(model, low, high):
    strings = facts_of(model).to_strings()
    facts = facts_from_strings(strings | {"real_below": "0.25", "fake_from": "0.75"}, "x")
    assert (facts.real_below, facts.threshold, facts.fake_from) == (0.25, 0.3, 0.75)
    with pytest.raises(ArtifactNetError, match="damaged"):
        facts_from_strings(strings | {"real_below": low, "fake_from": high}, "x")


# facts of int8 files, of which earlier ones name no calibration; and of calibrated detectors
OPTIONAL = ("kept_float", "calibrated", "fake_from", "real_below")


@pytest.mark.parametrize("key", [k for k in KEYS if k not in ("format", "outputs", *OPTIONAL)])
def test_what_is_missing_is_named(model, key):
    strings = facts_of(model).to_strings()
    del strings[key]
    with pytest.raises(ArtifactNetError, match=key):
        facts_from_strings(strings, "x")


def test_facts_that_only_some_files_have_may_be_missing(model):
    facts = replace(facts_of(model), kept_float=("head",), calibrated=64)
    facts = replace(facts, real_below=0.25, fake_from=0.75)
    strings = facts.to_strings()
    assert facts_from_strings(strings, "x") == facts
    for key in OPTIONAL:
        del strings[key]
    assert facts_from_strings(strings | {"newer": "{}"}, "x") == facts_of(model)


@given(st.dictionaries(st.sampled_from(KEYS), st.text(max_size=20)))
def test_no_content_leads_to_another_error(strings):
    with pytest.raises(ArtifactNetError):
        facts_from_strings({"format": FORMAT} | strings, "x")
