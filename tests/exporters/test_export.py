"""Real exported files of a tiny student: they say what it says, and nothing else is written."""

import copy
import os

import numpy as np
import pytest
import tiny_models
import torch
from PIL import Image
from tiny_exports import pictures, student, traced_once

from artifactnet.config import ModelConfig, SegmentationConfig
from artifactnet.exporters import export, graph
from artifactnet.exporters.export import Int8, export_checked
from artifactnet.exporters.graph import facts_of
from artifactnet.inference.backends.exported import load_exported
from artifactnet.inference.folder import predict_to_folder
from artifactnet.inference.predictor import Predictor
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.types import ArtifactNetError

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")
openvino = pytest.importorskip("openvino")

NAMES = ("student.onnx", "student.xml", "student.pt2")


@pytest.fixture(scope="module")
def model():
    made = student(resize="pad", threshold=0.4, mean=[0.2, 0.5, 0.9], std=[0.3, 0.1, 0.4])
    made.notices = ("these weights are random",)
    return made


@pytest.fixture(scope="module")
def traced():
    with traced_once():
        yield


@pytest.fixture(scope="module")
def folder(model, traced, tmp_path_factory):
    """One export per format."""
    where = tmp_path_factory.mktemp("exports")
    for name in NAMES:
        export_checked(model, where / name, pictures(13))
    return where


@pytest.fixture(scope="module")
def loaded(folder):
    """Each file opened once, by its name."""
    return {name: load_exported(folder / name, threads=1) for name in NAMES}


def normalised(model, count, seed=5):
    """A batch of whole pixel values, normalised in float64."""
    height, width = model.image_size
    frames = np.random.default_rng(seed).integers(0, 256, (count, 3, height, width))
    mean, std = (np.reshape(values, (3, 1, 1)) for values in (model.mean, model.std))
    return torch.from_numpy(((frames / 255 - mean) / std).astype(np.float32))


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_any_batch_gets_the_models_answers(model, loaded, name, count):
    images = normalised(model, count)
    with torch.no_grad():
        expected = model(images, heatmap=True)
    found = loaded[name](images, heatmap=True)
    for output in ("logit", "heatmap", "sigma", "score"):
        ours, theirs = getattr(expected, output), getattr(found, output)
        assert theirs.shape == ours.shape
        torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=1e-4)
    assert found.attention is None


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_metadata_is_inside(model, loaded, name):
    exported = loaded[name]
    assert exported.facts == facts_of(model)
    assert exported.notices == ("these weights are random",)
    assert (exported.config.threshold, exported.config.resize) == (0.4, "pad")


@pytest.mark.slow
def test_openvino_also_runs_the_onnx_file(model, folder):
    exported = load_exported(folder / "student.onnx", "openvino", threads=1)
    assert exported.facts == facts_of(model)
    with torch.no_grad():
        expected = model(normalised(model, 2)).logit
    torch.testing.assert_close(exported(normalised(model, 2)).logit, expected, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_files_hold_no_trace_of_the_machine(folder):
    for file in folder.iterdir():
        content = file.read_bytes()
        for trace in (str(folder), os.path.dirname(export.__file__), "site-packages"):
            assert trace.encode() not in content, file.name


@pytest.mark.slow
def test_only_the_files_themselves_are_left(folder):
    assert sorted(p.name for p in folder.iterdir()) == sorted([*NAMES, "student.bin"])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_predictor_takes_it_for_the_model(model, loaded, name):
    images = pictures(3, seed=9)
    expected = Predictor(model).predict(images)
    found = Predictor(loaded[name]).predict(images)
    for ours, theirs in zip(expected, found, strict=True):
        # padding is the mean colour, which the file gets as whole levels
        assert theirs.probability == pytest.approx(ours.probability, abs=0.02)
        assert theirs.heatmap.shape == ours.heatmap.shape
        assert np.abs(theirs.heatmap - ours.heatmap).mean() < 0.01
        assert theirs.sigma.shape == ours.sigma.shape
        assert theirs.score == pytest.approx(ours.score, abs=0.02)
        assert theirs.warnings == ours.warnings
        assert theirs.is_fake == (theirs.probability >= 0.4)
        assert theirs.mask is None


@pytest.mark.slow
def test_folders_are_streamed_through_it(folder, tmp_path):
    for k, pixels in enumerate(pictures(5)):
        Image.fromarray(pixels).save(tmp_path / f"{k}.png")
    predictor = Predictor(load_exported(folder / "student.onnx"))
    summary = predict_to_folder(predictor, [tmp_path], tmp_path / "out", batch_size=2, workers=1)
    assert (summary.images, summary.failures) == (5, [])
    assert len(list((tmp_path / "out" / "heatmaps").iterdir())) == 5


@pytest.mark.slow
def test_the_model_is_left_as_it_was():
    model = student()
    model.train()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    flags = [weight.requires_grad for weight in model.parameters()]
    graph.export_program(model, facts_of(model))
    assert model.training
    assert [weight.requires_grad for weight in model.parameters()] == flags
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    # a network that keeps what it computed must not keep what the tracer put in its place
    model.eval()(torch.zeros(1, 3, 64, 96), heatmap=True).logit.sum().backward()


# --- an export that disagrees ------------------------------------------------------------


@pytest.fixture(scope="module")
def lossy(model, traced):
    """The model's program as if the converter had lost something: it has another weight."""
    program = copy.deepcopy(export.export_program(model, facts_of(model)))
    program.state_dict["model.heatmap.maps.bias"].data += 0.5
    return program


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_disagrees_is_not_written(model, lossy, tmp_path, monkeypatch, name):
    (tmp_path / name).write_bytes(b"the old one")
    if name.endswith(".xml"):
        (tmp_path / "student.bin").write_bytes(b"the old one")
    before = sorted(p.name for p in tmp_path.iterdir())
    monkeypatch.setattr(export, "export_program", lambda *_: lossy)
    with pytest.raises(ArtifactNetError, match="heatmap"):
        export_checked(model, tmp_path / name, pictures(4), overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    assert all(p.read_bytes() == b"the old one" for p in tmp_path.iterdir())


# --- what is refused before any work -----------------------------------------------------


@pytest.fixture
def no_work(monkeypatch):
    def fail(*_):
        raise AssertionError("the model was traced")

    monkeypatch.setattr(export, "export_program", fail)


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("name", "images", "int8", "message"),
    [
        ("m.tflite", 3, None, "m.tflite"),
        ("m.onnx", 1, None, "images"),
        ("m.onnx", 3, Int8([]), "images"),
        ("m.pt2", 3, Int8(pictures(1)), "int8"),
    ],
)
def test_what_cannot_be_done_is_said(model, tmp_path, name, images, int8, message):
    with pytest.raises(ArtifactNetError, match=message):
        export_checked(model, tmp_path / name, pictures(images), int8=int8)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("name", "there"), [("m.onnx", "m.onnx"), ("m.xml", "m.xml"), ("m.xml", "m.bin")]
)
def test_an_existing_file_is_not_replaced(model, tmp_path, name, there):
    (tmp_path / there).write_bytes(b"mine")
    with pytest.raises(ArtifactNetError, match=rf"{there}: exists already"):
        export_checked(model, tmp_path / name, pictures(3))
    assert (tmp_path / there).read_bytes() == b"mine"


@pytest.mark.usefixtures("no_work")
def test_an_image_that_is_too_small_is_named(tmp_path):
    vit = tiny_models.tiny()
    images = [*pictures(2), np.zeros((8, 40, 3), np.uint8)]
    with pytest.raises(ArtifactNetError, match=r"image 2 of 3: .*too small"):
        export_checked(vit, tmp_path / "m.onnx", images, heatmap=False)


@pytest.mark.usefixtures("no_work")
def test_attention_alone_is_refused(tmp_path):
    with pytest.raises(ArtifactNetError, match=r"rollout.*--no-heatmap"):
        export_checked(tiny_models.tiny(), tmp_path / "m.onnx", pictures(3))


def test_a_refusal_is_said_without_images_of_ones_own(tmp_path):
    """Where none of them failed, there is none to name."""
    with pytest.raises(ArtifactNetError, match="cannot be exported"):
        export.export_model(tiny_models.tiny(), tmp_path / "m.onnx", check=2)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named_with_its_line(model, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    program = torch.export.export(torch.nn.Linear(1, 1), (torch.zeros(1, 1),))
    monkeypatch.setattr(export, "export_program", lambda *_: program)
    with pytest.raises(ArtifactNetError, match=r"pip install 'onnx>="):
        export_checked(model, tmp_path / "m.onnx", pictures(3))


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad", "reflect"])
def test_a_frame_is_its_own_frame(resize):
    made = student(resize=resize, mean=[0.2, 0.5, 0.9], std=[0.3, 0.1, 0.4])
    for image in pictures(3):
        frame = export.frame_of(made, image)
        assert (frame.shape, frame.dtype) == ((64, 96, 3), np.uint8)
        np.testing.assert_array_equal(export.frame_of(made, frame), frame)


# --- other models --------------------------------------------------------------------------


@pytest.mark.slow
def test_the_verdict_of_a_vit(tmp_path):
    vit = tiny_models.tiny()
    done = export_checked(vit, tmp_path / "vit.pt2", pictures(4), heatmap=False)
    exported = load_exported(done.path)
    assert done.facts.outputs == ("logit",)
    assert not exported.has_heatmap
    with pytest.raises(ArtifactNetError, match=r"vit.pt2: an export without heatmap"):
        exported(torch.zeros(1, 3, 32, 48), heatmap=True)
    expected = Predictor(vit).predict(pictures(1)[0])
    found = Predictor(exported).predict(pictures(1)[0])
    assert found.heatmap is None
    assert found.probability == pytest.approx(expected.probability, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("labels", "name"),
    [("softmax", "seg.pt2"), ("sigmoid", "seg.onnx")],  # .onnx takes longer
)
def test_a_segmentation_head_gives_the_probability_of_any_artifact(tmp_path, labels, name):
    torch.manual_seed(0)
    model = ArtifactNet(
        ModelConfig(
            backbone="convnext_atto",
            backbone_kwargs={"dims": (8, 8, 16, 16), "depths": (1, 1, 1, 1)},
            image_size=[64, 64],
            pretrained="false",
            segmentation=SegmentationConfig(
                head="upernet", channels=8, auxiliary_channels=8, labels=labels
            ),
        )
    ).eval()
    last = model.segmentation.main.conv_seg
    with torch.no_grad():  # untrained, it would say the same everywhere
        logits = model(torch.randn(1, 3, 64, 64), segmentation=True).segmentation
        last.weight.mul_(2 / logits.std())
        last.bias.sub_(3 if labels == "sigmoid" else 0)
    done = export_checked(model, tmp_path / name, pictures(4, least=70))
    assert done.facts.outputs == ("logit", "heatmap")
    assert done.agreement.correlation is not None
    image = pictures(1, least=64)[0][:64, :64]
    expected = Predictor(model).predict(image)
    found = Predictor(load_exported(done.path)).predict(image)
    np.testing.assert_allclose(found.heatmap, expected.heatmap, atol=1e-3)
