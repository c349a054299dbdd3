"""Quantisation: which layers take part, and that what is written still says what the model says."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from tiny_exports import pictures, student, traced_once
from torch import nn

from artifactnet.exporters import export
from artifactnet.exporters.checks import Agreement, answers_of_model
from artifactnet.exporters.export import Int8, export_checked
from artifactnet.exporters.graph import facts_of
from artifactnet.exporters.quantize import (
    OUTPUT_LAYERS,
    kept_layers,
    matching,
    need_matches,
    rank_layers,
)
from artifactnet.inference.backends.exported import load_exported
from artifactnet.types import ArtifactNetError

LAYERS = ["backbone.net.stem.conv", "backbone.net.stages.0.fc", "head", "heatmap.score.0"]


@pytest.fixture(scope="module")
def model():
    return student()


@pytest.fixture(scope="module")
def small():
    return student(size=(32, 32))


@pytest.fixture(scope="module")
def frames(small):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*small.image_size, 3), dtype=np.uint8)]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("head", [2]),
        ("backbone", [0, 1]),
        ("backbone.net.stages.*", [1]),
        ("*.0*", [1, 3]),
        ("*", [0, 1, 2, 3]),
        ("hea", []),
    ],
)
def test_patterns(pattern, expected):
    assert matching(LAYERS, [pattern]) == tuple(LAYERS[k] for k in expected)


def test_a_pattern_for_nothing_is_refused():
    need_matches(LAYERS, ["head", "backbone"])
    with pytest.raises(ArtifactNetError, match=r"'steam'.*backbone.net.stem.conv"):
        need_matches(LAYERS, ["head", "steam"])


@pytest.mark.parametrize("patterns", [[], ["head"]])
def test_a_model_without_layers_for_int8_is_refused(patterns):
    with pytest.raises(ArtifactNetError, match=r"no layer of this model can become int8"):
        need_matches([], patterns)


def test_the_harm_of_one_layer_by_hand(small, frames):
    """`head` changes nothing but the probability, which can be computed from its input."""
    seen = []
    handle = small.head.register_forward_hook(lambda _, inputs, out: seen.append((inputs[0], out)))
    exact = answers_of_model(small, facts_of(small), frames)
    handle.remove()
    features, old = seen[0][0][0].double().tolist(), float(seen[0][1])
    weight, bias = small.head.weight[0].double().tolist(), float(small.head.bias.detach())
    step = max(abs(w) for w in weight) / 63
    low, high = min(0.0, *features), max(0.0, *features)
    width = (high - low) / 255
    new = bias
    for w, x in zip(weight, features, strict=True):
        new += round(w / step) * step * (round((x - low) / width) * width + low)
    before, after = (1 / (1 + math.exp(-(float(exact["logit"][0]) + d))) for d in (0, new - old))
    found = dict(rank_layers(small, facts_of(small), frames))["head"]
    # one of three outputs: probability, heatmap, score
    assert found == pytest.approx(abs(after - before) / math.sqrt(3), rel=0.02)


def test_ranking_leaves_the_model_alone(small, frames):
    state = {key: value.clone() for key, value in small.state_dict().items()}
    ranked = rank_layers(small, facts_of(small), frames)
    names = {n for n, x in small.named_modules() if isinstance(x, nn.Conv2d | nn.Linear)}
    assert {name for name, _ in ranked} <= names
    assert "heatmap.maps" in dict(ranked)
    changes = [change for _, change in ranked]
    assert changes == sorted(changes, reverse=True)
    assert min(changes) >= 0
    assert all(torch.equal(value, state[key]) for key, value in small.state_dict().items())
    assert not any(module._forward_pre_hooks for module in small.modules())


def test_choices_grow(small, frames):
    names = [n for n, x in small.named_modules() if isinstance(x, nn.Conv2d | nn.Linear)]
    choices = list(kept_layers(small, facts_of(small), names, ["backbone.net.stages.0"], frames))
    assert len(choices) == 4
    first = set(matching(names, [*OUTPUT_LAYERS, "backbone.net.stages.0"]))
    assert set(choices[0]) == first
    assert {"head", "heatmap.maps", "heatmap.score.0"} <= first
    for smaller, larger in pairwise(choices):
        assert set(smaller) < set(larger)
    rest = len(names) - len(first)
    assert len(choices[-1]) - len(first) == pytest.approx(rest / 2, abs=2)


def test_nothing_is_ranked_while_the_first_choice_will_do(small, frames, monkeypatch):
    monkeypatch.setattr("artifactnet.exporters.quantize.rank_layers", None)
    assert next(kept_layers(small, facts_of(small), ["head"], [], frames)) == ("head",)


@pytest.fixture(scope="module")
def traced():
    with traced_once():
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("name", ["m.onnx", "m.xml"])
def test_int8(model, tmp_path, name):
    pytest.importorskip("onnxruntime" if name.endswith("onnx") else "nncf")
    pytest.importorskip("onnxscript")
    int8 = Int8(pictures(12, seed=3), ["backbone.net.patch_embed"])
    done = export_checked(model, tmp_path / name, pictures(12), int8=int8)
    assert done.agreement.correlation >= 0.98
    assert done.agreement.differences["probability"] <= 0.1
    assert done.agreement.differences["heatmap"] > 1e-4  # it was rounded
    kept = done.facts.kept_float
    assert {"backbone.net.patch_embed.conv1.conv", "heatmap.maps", "head"} <= set(kept)
    exported = load_exported(tmp_path / name)
    assert exported.facts == done.facts
    assert exported(torch.zeros(3, 3, 64, 96), heatmap=True).heatmap.shape == (3, 8, 12)
    content = b"".join(p.read_bytes() for p in tmp_path.iterdir())
    marks = [b"QuantizeLinear", b"FakeQuantize"]
    assert any(mark in content for mark in marks)
    assert sorted(p.suffix for p in tmp_path.iterdir()) in ([".onnx"], [".bin", ".xml"])


@pytest.fixture
def hollow(monkeypatch):
    """Quantisation without its minutes: notes what is kept, writes next to nothing."""
    asked: list[tuple[str, ...]] = []

    def quantize(content, folder, batches, keep):
        asked.append(tuple(keep))
        assert [len(batch) for batch in batches] == [4, 1]
        return b""

    names = [n for n, x in student().named_modules() if isinstance(x, nn.Conv2d | nn.Linear)]
    for name, value in {
        "export_program": lambda *_: None,
        "onnx_bytes": lambda *_: b"",
        "layers_of": lambda _: {layer: [layer] for layer in names},
        "quantize_onnx": quantize,
        "with_metadata": lambda content, _: content,
    }.items():
        monkeypatch.setattr(export, name, value)
    ranked = [(layer, 1.0 / (k + 1)) for k, layer in enumerate(names)]
    monkeypatch.setattr("artifactnet.exporters.quantize.rank_layers", lambda *_: ranked)
    return asked


def agreements(monkeypatch, correlations):
    """The files' mean CC, one after the other."""
    figures = iter(correlations)
    differences = {"probability": 0.0, "score": 0.0}
    monkeypatch.setattr(
        export, "_compare", lambda *_: Agreement(4, differences, next(figures), 0, 0.0)
    )


def test_more_layers_are_kept_until_it_agrees(model, tmp_path, hollow, monkeypatch):
    agreements(monkeypatch, [0.90, 0.95, 0.99])
    done = export_checked(model, tmp_path / "m.onnx", pictures(4), int8=Int8(pictures(5)))
    assert len(hollow) == 3
    assert set(hollow[0]) < set(hollow[1]) < set(hollow[2])
    assert done.facts.kept_float == hollow[2]
    assert done.facts.calibrated == 5
    assert done.path.exists()


def test_int8_that_never_agrees_is_not_written(model, tmp_path, hollow, monkeypatch):
    agreements(monkeypatch, [0.90, 0.95, 0.97, 0.979])
    with pytest.raises(ArtifactNetError, match=r"not written.*CC of 0.979 \(limit 0.98\)"):
        export_checked(model, tmp_path / "m.onnx", pictures(4), int8=Int8(pictures(5)))
    assert len(hollow) == 4
    assert list(tmp_path.iterdir()) == []


def test_a_misspelt_layer_is_refused(model, tmp_path, hollow):
    int8 = Int8(pictures(5), ["backbone.net.patch_embedding"])
    with pytest.raises(ArtifactNetError, match="backbone.net.patch_embedding"):
        export_checked(model, tmp_path / "m.onnx", pictures(4), int8=int8)
    assert hollow == []
