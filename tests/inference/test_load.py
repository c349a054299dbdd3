"""Opening whatever a path or a name means, on whichever device."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_models import tiny
from torch.overrides import TorchFunctionMode

from artifactnet.inference import load
from artifactnet.inference.load import find_model, find_weights, load_model, pick_device
from artifactnet.inference.predictor import Predictor
from artifactnet.models import packaged
from artifactnet.models.checkpoint import save_checkpoint
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.heie import predictor as heie_predictor


def picture(height=50, width=70):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """One path of every kind, of which only the weights are real."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(packaged, "FOLDER", tmp_path / "package")
    for file in ("run/model.safetensors", "run.onnx/model.safetensors", "package/nano.safetensors"):
        save_checkpoint(tiny(), tmp_path / file)
    for file in ("heie/heie.json", "m.onnx", "m.xml", "m.pt2", "unfinished/last.safetensors"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("source", "kind", "path"),
    [
        ("run", "weights", "run/model.safetensors"),
        ("run.onnx", "weights", "run.onnx/model.safetensors"),  # the folder of a run
        ("run/model.safetensors", "weights", "run/model.safetensors"),
        ("nano", "weights", "package/nano.safetensors"),
        ("m.onnx", "exported", "m.onnx"),
        ("m.xml", "exported", "m.xml"),
        ("m.pt2", "exported", "m.pt2"),
        ("heie", "heie", "heie"),
        ("empty", "folder", "empty"),
        ("unfinished", "folder", "unfinished"),
    ],
)
def test_what_a_path_or_name_means(here, source, kind, path):
    found = find_model(source)
    assert (found.kind, here / found.path) == (kind, here / path)
    if kind == "weights":
        assert find_weights(source) == found.path
        answer = load_model(source, "cpu").predict(picture())
        assert answer.probability == Predictor(tiny()).predict(picture()).probability
    else:
        with pytest.raises(ArtifactNetError, match=f"^{source}"):
            find_weights(source)


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        ("nothing", {}, "nothing: no such model.*nano"),
        ("empty", {}, r"empty: no model\.safetensors.*: none"),
        ("unfinished", {}, r"unfinished: no model\.safetensors.*last\.safetensors"),
        ("m.onnx", {"device": "cuda"}, "m.onnx: .*CPU"),
        ("m.onnx", {"backend": "torch"}, "m.onnx: the torch backend"),
        ("m.onnx", {"text": "template"}, "m.onnx: text=template"),
        ("run", {"text": "generate"}, "run: text=generate"),
        ("run", {"backend": "onnx"}, "run: the onnx backend.*artifactnet export --model run"),
        ("heie", {"backend": "onnx"}, "heie: .*cannot be exported"),
        ("run", {"device": "warp"}, "device warp"),
    ],
)
def test_wrong_sources_and_options(here, source, options, words):
    with pytest.raises(ArtifactNetError, match=f"^{words}") as caught:
        load_model(source, **options)
    assert "\n" not in str(caught.value)


def test_pickles_are_refused(tmp_path):
    buffer = io.BytesIO()
    torch.save({"weight": torch.zeros(1)}, buffer)
    (tmp_path / "model.safetensors").write_bytes(buffer.getvalue())
    with pytest.raises(ArtifactNetError, match=r"model\.safetensors"):
        load_model(tmp_path)


def test_preprocessing_threshold_and_notices_are_saved(tmp_path):
    model = tiny(resize="pad", mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7], threshold=0.9)
    model.notices = ("weights are random",)
    save_checkpoint(model, tmp_path / "m.safetensors")
    found = load_model(tmp_path / "m.safetensors", "cpu")
    assert found.model.mean == pytest.approx((0.1, 0.2, 0.3))
    assert (found.threshold, found.warnings) == (0.9, ("weights are random",))
    ours, theirs = (p.predict(picture()) for p in (Predictor(model), found))
    assert ours.probability == theirs.probability
    np.testing.assert_array_equal(ours.heatmap, theirs.heatmap)


@pytest.mark.parametrize(
    ("options", "mode"), [({}, "generate"), ({"text": "template"}, "template")]
)
def test_a_heie_gets_device_and_text(here, monkeypatch, options, mode):
    def load_heie(path, device, merge):
        assert merge  # it only predicts
        return SimpleNamespace(path=path, device=device, mllm=SimpleNamespace(text="x"), notices=())

    monkeypatch.setattr(heie_predictor, "load_heie", load_heie)
    found = load_model("heie", "cpu", **options)
    assert (str(found.model.path), found.model.device, found.mode) == (
        "heie",
        torch.device("cpu"),
        mode,
    )


@pytest.mark.parametrize("cuda", [True, False])
@pytest.mark.parametrize("mps", [True, False])
def test_auto_takes_the_best_device(monkeypatch, cuda, mps):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(load.torch, "empty", lambda *_, device: None)  # as if it were there
    best = "cuda" if cuda else "mps" if mps else "cpu"
    assert pick_device("auto") == torch.device(best)
    assert pick_device("gpu") == torch.device("mps" if mps and not cuda else "cuda")
    for name in ("cpu", "cuda:1", "mps"):
        assert pick_device(name) == torch.device(name)


def test_a_device_that_is_not_there():
    with pytest.raises(ArtifactNetError, match="device warp"):
        pick_device("warp")
    if not torch.cuda.is_available() and not torch.backends.mps.is_available():
        with pytest.raises(ArtifactNetError, match="device cuda"):
            pick_device("gpu")


class _NoFloat64(TorchFunctionMode):
    """As MPS does, which has no float64; only what has been moved to the CPU may become it."""

    def __init__(self):
        super().__init__()
        self.on_cpu = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        if function is torch.Tensor.cpu:
            self.on_cpu.append(found)
        elif isinstance(found, torch.Tensor) and found.dtype is torch.float64:
            assert any(found is x or args[0] is x for x in self.on_cpu), function
            self.on_cpu.append(found)
        return found


@pytest.mark.parametrize("name", ["vit-aligned", "student-nano"])
def test_nothing_is_float64_on_the_device(name):
    from artifactnet.inference.forward import forward

    predictor = load_model(name, "cpu")
    height, width = predictor.model.image_size
    image = torch.zeros(3, height, width)
    with _NoFloat64():
        (output,) = forward(
            predictor.model,
            [image],
            attention=predictor.model.has_attention,
            heatmap=predictor.model.has_heatmap,
        )
    assert output.logit.dtype is torch.float64
