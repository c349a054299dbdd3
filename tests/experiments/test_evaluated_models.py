"""Every form of a model is shown the same pixels and answers in the same form."""

import json

import numpy as np
import pytest
import stub_models
import torch
from PIL import Image
from tiny_models import tiny

from artifactnet.experiments.evaluated_models import (
    Judgment,
    ModelSpec,
    Shown,
    open_model,
    parse_models,
)
from artifactnet.inference.inputs import Failure
from artifactnet.inference.predictor import Predictor
from artifactnet.models.checkpoint import save_checkpoint
from artifactnet.types import ArtifactNetError


def shown(pixels, key="sdxl/1", level="original", test_set="set"):
    return Shown(test_set, level, key, (key, f"fake/{key}.png"), pixels)


def judge(text, images, where=True):
    (spec,) = parse_models([text])
    model = open_model(spec, "cpu")
    return model, list(model.judge(images, where))


@pytest.fixture
def lines(tmp_path):
    """Write predictions and return the model's name for them."""

    def write(*rows):
        path = tmp_path / "elsewhere.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write


def test_names_and_kinds(tmp_path, lines):
    file = lines({"image": "a.png", "is_fake": True})
    (tmp_path / "a=b.safetensors").write_bytes(b"")
    texts = [
        "student-nano",
        "again=student-nano",
        f"theirs={file}",
        file,
        str(tmp_path / "a=b.safetensors"),
        "mean=stub_models:net",
        "chat=endpoint:http://localhost:1/v1#Qwen/Qwen3-VL",
        "boxes=endpoint:http://localhost:1/v1#Qwen/Qwen2.5-VL#qwen2_5_vl",
    ]
    specs = parse_models(texts)
    assert [(one.name, one.kind) for one in specs] == [
        *(("student-nano", "saved"), ("again", "saved"), ("theirs", "file")),
        *(("elsewhere", "file"), ("a=b", "saved"), ("mean", "code")),
        *(("chat", "endpoint"), ("boxes", "endpoint")),
    ]
    assert specs[4].source == str(tmp_path / "a=b.safetensors")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no-such-model", "nothing that can be opened; a model is the folder of a run"),
        ("gone.onnx", "no such model file"),
        ("a=b/c.safetensors", "no such model file"),
        ("stub_models:net", "give it a name, NAME=stub_models:net"),
        ("a=stub_models:gone", "the module has no function gone"),
        ("a=no_such_module:net", "cannot be imported from here: No module named"),
        ("a=stub_models:with_argument", "must be a function without arguments"),
        ("a=endpoint:http://x/v1", "give NAME=endpoint:URL#MODEL"),
        ("a=endpoint:http://x/v1#m#gpt", "no rule for coordinates of model_type 'gpt'"),
        ("../x=student-nano", "cannot name a folder"),
        ("a=gone.jsonl", "gone.jsonl: cannot be read"),
    ],
)
def test_what_is_no_model_is_refused(text, message):
    with pytest.raises(ArtifactNetError, match=message) as info:
        parse_models([text])
    assert "\n" not in str(info.value)


def test_a_folder_without_a_model_and_a_name_twice(tmp_path):
    with pytest.raises(ArtifactNetError, match="no finished model in this folder"):
        parse_models([str(tmp_path)])
    with pytest.raises(ArtifactNetError, match="two models are called 'student-nano'"):
        parse_models(["student-nano", "student-nano=stub_models:net"])


def test_parsing_opens_nothing(monkeypatch):
    monkeypatch.setattr(stub_models, "net", lambda: pytest.fail("opened"))
    parse_models(["a=stub_models:net"])


def test_a_saved_detector_answers_as_its_predictor(tmp_path, noise):
    net = tiny()
    save_checkpoint(net, tmp_path / "run.safetensors")
    images = [noise(40, 60, seed) for seed in range(3)]
    model, found = judge(str(tmp_path / "run.safetensors"), [shown(x) for x in images])
    assert model.localization == "map"
    assert model.about["resize"] == "stretch to 48x32"
    for one, expected in zip(found, Predictor(net).predict(images), strict=True):
        assert (one.probability, one.is_fake) == (expected.probability, expected.is_fake)
        threshold = net.config.map_threshold
        np.testing.assert_array_equal(one.mask, expected.heatmap > threshold)
    _, found = judge(str(tmp_path / "run.safetensors"), [shown(images[0])], where=False)
    assert found[0].mask is None


def test_a_segmentation_models_mask_is_its_own(pixel_model, painted):
    from artifactnet.experiments.evaluated_models import PredictorModel

    predictor = Predictor(pixel_model((32, 32)))
    spec = ModelSpec("pixels", "saved", "pixels")
    model = PredictorModel(spec, predictor, "stretch", None)
    pixels = painted((0, 4, 5, 20, 25))
    (found,) = model.judge([shown(pixels)], True)
    np.testing.assert_array_equal(found.mask, predictor.predict(pixels).mask > 0)
    assert found.mask.sum() > 200


def test_a_torch_classifier_of_others(noise):
    images = [noise(40, 60, seed) // (seed + 1) for seed in range(3)]
    model, found = judge("mean=stub_models:net", [shown(x) for x in images])
    assert model.about["resize"] == "stretch to 24x16"
    for one, pixels in zip(found, images, strict=True):
        detector = stub_models.net()
        tensor, _ = detector.preprocess.image(pixels)
        logit = detector.logits(tensor[None]).double()
        assert one == Judgment(bool(logit >= 0), torch.sigmoid(logit).item())
    with pytest.raises(ArtifactNetError, match="give image_size"):
        judge("mean=stub_models:bare_net", [])


def test_a_function_of_others(noise):
    images = [np.full((4, 5, 3), level, np.uint8) for level in (51, 204)]
    model, found = judge("mean=stub_models:brightness", [shown(x) for x in images])
    assert found == [Judgment(False, 0.2), Judgment(True, 0.8)]
    assert (model.localization, model.about["resize"]) == (None, "its own")
    dark = np.zeros((4, 5, 3), np.uint8)
    _, found = judge("nan=stub_models:no_number", [shown(dark), shown(images[1])])
    assert isinstance(found[0], Failure)
    assert found[1] == Judgment(True, 0.9)


@pytest.mark.parametrize("name", ["out_of_range", "too_few"])
def test_a_function_that_gives_no_probabilities(name):
    images = [shown(np.zeros((4, 5, 3), np.uint8))] * 2
    with pytest.raises(ArtifactNetError, match=r"must return a probability in \[0, 1\] of each of"):
        judge(f"a=stub_models:{name}", images)


def test_a_function_that_returns_no_model():
    with pytest.raises(ArtifactNetError, match="returned 7; it must return a torch classifier"):
        judge("a=stub_models:nothing", [])


def test_predictions_of_a_file(tmp_path, lines, noise):
    Image.fromarray(np.array([[0, 127], [128, 255]], np.uint8)).save(tmp_path / "mask.png")
    text = lines(
        {"generator": "sdxl", "uid": "1", "probability": 0.5, "mask": "mask.png"},
        {"image": "fake/b.png", "level": "half", "is_fake": False, "probability": 0.9},
        {"image": "fake/b.png", "set": "other", "is_fake": True},
        {"image": "fake/c.png", "is_fake": True, "mask": "gone.png"},
        {"image": "fake/d.png", "is_fake": True, "mask": "mask.png"},
    )
    (spec,) = parse_models([text])
    model = open_model(spec)
    assert model.covers("set", "half")
    assert not model.covers("set", "jpeg80")
    assert model.localization == "map"

    def one(key, level="original", test_set="set", size=(2, 2)):
        names = (key, f"fake/{key}.png", str(tmp_path / f"{key}.png"))
        image = Shown(test_set, level, key, names, noise(*size))
        (found,) = model.judge([image], True)
        return found

    found = one("sdxl/1")
    assert (found.is_fake, found.probability) == (True, 0.5)
    np.testing.assert_array_equal(found.mask, [[False, False], [True, True]])
    assert one("b", "half") == Judgment(False, 0.9)
    assert one("b", test_set="other") == Judgment(True)
    assert one("b") == Failure("b", "the file has no prediction of it")
    assert "gone.png" in one("c").reason
    assert "another aspect ratio" in one("d", size=(20, 60)).reason


def test_boxes_of_a_file(lines, noise):
    rows = (
        {"image": "a.png", "is_fake": True, "boxes": [[1, 2, 3, 4.5]]},
        {"image": "b.png", "is_fake": True},
    )
    (spec,) = parse_models([lines(*rows)])
    model = open_model(spec)
    assert model.localization == "boxes"
    images = [Shown("set", "original", n, (f"{n}.png",), noise(9, 9)) for n in "ab"]
    assert [one.boxes for one in model.judge(images, True)] == [((1, 2, 3, 4.5),), ()]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "needs 'probability', or 'is_fake'"),
        ({"is_fake": True}, "names no image: give 'image', or 'generator' and 'uid'"),
        ({"uid": "1", "is_fake": True}, "names no image"),
        ({"image": "a", "is_fake": 1}, "'is_fake' as true or false, not 1"),
        ({"image": "a", "probability": 1.5}, r"must be a number in \[0, 1\], not 1.5"),
        ({"image": "a", "probability": True}, r"must be a number in \[0, 1\], not True"),
        ({"image": "a", "is_fake": True, "level": "zoom"}, "unknown level 'zoom'"),
        ({"image": "a", "is_fake": True, "boxes": [[3, 0, 1, 1]]}, r"boxes\[0\] must have 0 <= x1"),
        ({"image": "a", "is_fake": True, "boxes": {}}, "'boxes' must be a list"),
        ({"image": "a", "is_fake": True, "mask": 3}, "'mask' must be text, not 3"),
        ([1], "not an object"),
    ],
)
def test_a_line_that_is_no_prediction(lines, row, message):
    with pytest.raises(ArtifactNetError, match=rf"elsewhere.jsonl:2: .*{message}") as info:
        parse_models([lines({"image": "x", "is_fake": True}, row)])
    assert "\n" not in str(info.value)


def test_files_that_contradict_themselves(lines):
    a = {"image": "a", "is_fake": True}
    with pytest.raises(ArtifactNetError, match=r":2: its image has a prediction in .*:1"):
        parse_models([lines(a, a)])
    both = lines(a | {"boxes": []}, {"image": "b", "is_fake": True, "mask": "m"})
    with pytest.raises(ArtifactNetError, match="has boxes and masks"):
        parse_models([both])
    with pytest.raises(ArtifactNetError, match="holds no prediction"):
        parse_models([lines()])


def test_a_model_behind_an_endpoint(noise):
    pytest.importorskip("openai", reason="needs the extra endpoint")
    from chat_server import Reply, serving

    fake = (
        '<think>\n{"bbox_2d": [100, 50, 300, 200], "label": "a hand"}\n<tag>none</tag>\n</think>\n'
        "<verdict>generated</verdict>"
    )
    real = "<think>\n<tag>none</tag>\n</think>\n<verdict>real</verdict>"
    replies = [Reply(fake), Reply(real), Reply("I cannot say.")]
    with serving(replies) as server:
        (spec,) = parse_models([f"chat=endpoint:{server.url}#some/model"])
        model = open_model(spec, batch_size=1)
        found = list(model.judge([shown(noise(40, 60, seed)) for seed in range(3)], True))
    assert server.requests[0].body["model"] == "some/model"
    assert model.localization == "boxes"
    assert model.about["threshold"] is None
    # without likelihoods there is a verdict alone, and so no AUC
    assert found[0] == Judgment(True, None, [(6.0, 2.0, 18.0, 8.0)])
    assert (found[1].is_fake, found[1].boxes) == (False, [])
    assert found[2] == Failure("sdxl/1", "the answer has no verdict")


def test_a_device_is_for_what_takes_one(monkeypatch, tmp_path):
    """Exported files run on the CPU alone, so that one option serves several models."""
    from artifactnet.experiments import evaluated_models

    (tmp_path / "a.onnx").write_bytes(b"")
    seen = []

    class Opened(Exception):
        pass

    def load_model(source, device):
        seen.append(device)
        raise Opened

    monkeypatch.setattr(evaluated_models, "load_model", load_model)
    for spec in parse_models([str(tmp_path / "a.onnx"), "student-nano"]):
        with pytest.raises(Opened):
            open_model(spec, "cuda:1")
    assert seen == ["auto", "cuda:1"]
