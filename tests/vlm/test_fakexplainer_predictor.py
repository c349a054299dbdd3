"""FakeXplainer's predictions: probability, boxes, tags, warnings, and what refuses such a model."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

tiny_mllm = pytest.importorskip("tiny_mllm")
pytest.importorskip("peft", reason="needs the extra mllm")

from artifactnet.cli import main  # noqa: E402
from artifactnet.config import MllmConfig  # noqa: E402
from artifactnet.inference.fingerprint import model_fingerprint  # noqa: E402
from artifactnet.inference.inputs import Failure, ImageInput  # noqa: E402
from artifactnet.inference.load import find_model, find_weights, load_model  # noqa: E402
from artifactnet.types import ArtifactNetError, Region  # noqa: E402
from artifactnet.vlm.fakexplainer import answering  # noqa: E402
from artifactnet.vlm.fakexplainer.predictor import FakexplainerPredictor  # noqa: E402
from artifactnet.vlm.fakexplainer.saving import (  # noqa: E402
    build_fakexplainer,
    save_fakexplainer,
)
from artifactnet.vlm.image_chat import Sampling, generate_answers  # noqa: E402

FAMILIES = ("qwen", "internvl")
ANSWER = (
    '<think>\n{"bbox_2d": [10, 20, 56, 84], "label": "hand <script>alert(1)</script>"}\n'
    '{"bbox_2d": [70, 20, 60, 40], "label": "nothing"}\n'
    "<tag>wrong texture, odd</tag>\n</think>\n<verdict>generated</verdict>"
)
IMAGE = tiny_mllm.random_image(112, 84)  # (H, W): 84 x 112 to Qwen, as it is


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A saved FakeXplainer of each family, with fresh adapters."""
    root, found = tmp_path_factory.mktemp("fakexplainer"), {}
    for family, save in (("qwen", tiny_mllm.save_qwen), ("internvl", tiny_mllm.save_base)):
        base = save(root / f"{family}_base")
        mllm = MllmConfig(task="fakexplainer", base=str(base), lora_rank=2, max_new_tokens=24)
        found[family] = root / family
        trained = build_fakexplainer(mllm, "cpu")
        save_fakexplainer(trained, found[family], {"epoch": 1, "notices": ["a notice"]})
    return found


@pytest.fixture(scope="module")
def predictors(folders):
    return {family: load_model(folder, "cpu") for family, folder in folders.items()}


def told(predictor, monkeypatch, *texts, cut_off=False):
    """The predictor, writing these texts instead of what the random model would."""
    queue = list(texts)
    monkeypatch.setattr(
        predictor,
        "_write",
        lambda images: ([queue.pop(0) for _ in images], [cut_off] * len(images)),
    )
    return predictor


def test_probability_of_the_worked_example():
    assert answering.verdict_probability(-0.20, -1.70) == pytest.approx(0.817574, abs=1e-6)
    assert answering.verdict_probability(-1.70, -0.20) == pytest.approx(1 - 0.817574, abs=1e-6)
    assert answering.verdict_probability(-5000.0, -1.0) == 0
    assert answering.verdict_probability(-1.0, -math.inf) == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_probability_is_that_of_the_two_whole_answers(predictors, monkeypatch, family):
    """Token by token, without padding or cache, in float64."""
    predictor = predictors[family]
    answer = told(predictor, monkeypatch, ANSWER).predict(IMAGE)
    head = ANSWER[: ANSWER.index("<verdict>") + len("<verdict>")]
    processing, total = predictor.processing, {}
    prompt = processing.encode([IMAGE])["input_ids"].shape[1]
    for word in ("generated", "real"):
        batch = processing.encode([IMAGE], [f"{head}{word}</verdict>"])
        with torch.no_grad():
            logits = predictor.model(**batch).logits[0].double()
        ids = batch["input_ids"][0].tolist()
        total[word] = sum(
            float(logits[place - 1, ids[place]] - torch.logsumexp(logits[place - 1], 0))
            for place in range(prompt, len(ids))
        )
    expected = 1 / (1 + math.exp(total["real"] - total["generated"]))
    assert answer.probability == pytest.approx(expected, abs=1e-5)
    assert 0 < answer.probability < 1


def test_an_answer_becomes_a_prediction(predictors, monkeypatch):
    found = told(predictors["qwen"], monkeypatch, ANSWER).predict(IMAGE)
    caption = "hand <script>alert(1)</script>"
    assert found.is_fake
    assert found.regions == (Region((10.0, 20.0, 56.0, 84.0), caption),)
    assert found.tags == ("wrong texture",)
    (instance,) = found.instances
    assert (instance.box, instance.area) == ((10, 20, 56, 84), 46 * 64)
    assert (instance.category, instance.caption) == ("uncategorized", caption)
    assert instance.confidence == found.probability
    mask = np.zeros((112, 84), np.uint8)
    mask[20:84, 10:56] = 1
    np.testing.assert_array_equal(found.mask, mask)
    np.testing.assert_array_equal(found.heatmap, mask.astype(np.float32))
    x, y = instance.contours[0].T
    assert (x.min(), y.min(), x.max(), y.max()) == (10, 20, 55, 83)  # outermost pixels
    assert found.explanation.text == ANSWER
    assert (found.explanation.regions, found.explanation.issues) == (caption, "wrong texture")
    notes = " ".join(found.warnings)
    assert "a notice" in notes
    assert "1 boxes of the answer" in notes
    assert "1 tags of the answer" in notes
    line = json.loads(json.dumps(found.to_json()))
    assert line["regions"] == [{"bbox": [10.0, 20.0, 56.0, 84.0], "caption": caption}]
    assert line["tags"] == ["wrong texture"]


def test_thousandths_become_pixels_of_the_image(predictors, monkeypatch):
    text = ANSWER.replace("[10, 20, 56, 84]", "[100, 250, 300, 1000]")
    found = told(predictors["internvl"], monkeypatch, text).predict(IMAGE)
    assert found.regions[0].bbox == pytest.approx((8.4, 28.0, 25.2, 112.0))
    assert found.instances[0].box == (8, 28, 25, 112)


@pytest.mark.parametrize(
    ("text", "is_fake"),
    [
        ("", False),
        ("It is fake.", False),
        ("<verdict>real</verdict><verdict>generated</verdict>", 0),
    ],
)
def test_without_a_verdict_the_probability_is_a_half(predictors, monkeypatch, text, is_fake):
    found = told(predictors["qwen"], monkeypatch, text, cut_off=True).predict(IMAGE)
    assert (found.probability, found.is_fake) == (0.5, bool(is_fake))
    assert answering.NO_VERDICT in found.warnings
    assert answering.CUT_OFF in found.warnings
    assert found.regions == ()


def test_verdict_and_probability_may_differ(predictors, monkeypatch):
    predictor = told(predictors["qwen"], monkeypatch, ANSWER)
    monkeypatch.setattr(predictor, "_judge", lambda image, text: (-0.1, -3.0))  # real, generated
    found = predictor.predict(IMAGE)
    assert found.is_fake
    assert found.probability == pytest.approx(1 / (1 + math.exp(2.9)))


@pytest.mark.parametrize("family", FAMILIES)
def test_images_of_several_sizes_answer_together_as_alone(predictors, family):
    images = [IMAGE, tiny_mllm.random_image(60, 100), tiny_mllm.random_image(90, 90)]
    together = predictors[family].predict(images, 3)
    for image, one in zip(images, together, strict=True):
        alone = predictors[family].predict(image)
        assert one.explanation.text == alone.explanation.text
        assert one.probability == pytest.approx(alone.probability, abs=1e-5)
        assert answering.CUT_OFF in one.warnings  # 24 tokens of a random model


def test_generated_text_never_holds_a_control_word(predictors):
    predictor = predictors["qwen"]
    text = predictor.predict(IMAGE).explanation.text
    assert predictor.processing.remove_control_words(text) == text


def test_an_image_of_no_use_and_nan_are_failures(predictors, monkeypatch):
    thin = np.zeros((2, 600, 3), np.uint8)
    predictor = told(predictors["qwen"], monkeypatch, ANSWER, ANSWER)
    monkeypatch.setattr(predictor, "_judge", lambda image, text: (math.nan, 0.0))
    found = list(predictor.predict_stream([ImageInput("thin", thin), ImageInput("nan", IMAGE)]))
    assert all(isinstance(one, Failure) for one in found)
    assert "too narrow" in found[0].reason
    assert "NaN" in found[1].reason


def test_without_maps_nothing_is_drawn(predictors, monkeypatch):
    predictor = told(predictors["qwen"], monkeypatch, ANSWER)
    (found,) = predictor.predict_stream([ImageInput("a", IMAGE)], heatmaps=False)
    assert found.mask is None
    assert found.heatmap is None
    assert found.instances == ()
    assert len(found.regions) == 1


@pytest.mark.parametrize("drop", ["bbox", "caption", "tags", "label"])
def test_what_answers_lack_is_none(folders, monkeypatch, drop):
    base = folders["qwen"].parent / "qwen_base"
    mllm = MllmConfig(task="fakexplainer", base=str(base), lora_rank=0, drop=drop)
    predictor = FakexplainerPredictor(build_fakexplainer(mllm, "cpu"))
    text = "<verdict>generated</verdict>"
    if drop != "label":
        line = {"bbox": '{"label": "hand"}', "caption": '{"bbox_2d": [1, 2, 30, 40]}'}
        line = line.get(drop, '{"bbox_2d": [1, 2, 30, 40], "label": "hand"}')
        tag = "" if drop == "tags" else "<tag>none</tag>\n"
        text = f"<think>\n{line}\n{tag}</think>\n{text}"
    found = told(predictor, monkeypatch, text).predict(IMAGE)
    assert found.is_fake
    assert (found.regions is None) == (drop in ("bbox", "label"))
    assert (found.heatmap is None) == (drop in ("bbox", "label"))
    assert (found.tags is None) == (drop in ("tags", "label"))
    assert found.explanation.regions == ("" if drop in ("caption", "label") else "hand")


def test_the_fingerprint_knows_weights_and_settings(predictors, folders):
    first = model_fingerprint(predictors["qwen"])
    assert model_fingerprint(load_model(folders["qwen"], "cpu")) == first
    other = load_model(folders["qwen"], "cpu")
    other.trained.mllm.max_new_tokens = 25
    assert model_fingerprint(FakexplainerPredictor(other.trained)) != first
    other.trained.mllm.max_new_tokens, other.trained.mllm.temperature = 24, 1.0
    assert model_fingerprint(FakexplainerPredictor(other.trained)) != first


@pytest.mark.parametrize("family", FAMILIES)
def test_sampled_answers_depend_on_the_image_alone(folders, family):
    predictor = load_model(folders[family], "cpu")
    greedy = predictor.predict(IMAGE).explanation.text
    predictor.trained.mllm.temperature = 1e-5
    assert predictor.predict(IMAGE).explanation.text == greedy
    predictor.trained.mllm.temperature = 1.0
    state = torch.random.get_rng_state()
    first = predictor.predict(IMAGE).explanation.text
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first != greedy
    second = predictor.predict(255 - IMAGE).explanation.text
    assert second != first
    together = predictor.predict([255 - IMAGE, IMAGE, IMAGE], batch_size=3)
    assert [answer.explanation.text for answer in together] == [second, first, first]
    assert "sampled at temperature" in FakexplainerPredictor(predictor.trained).warnings[-1]


def test_answers_are_sampled_from_the_whole_distribution(predictors):
    """First tokens of 400 answers against the softmax of the model's own logits."""
    predictor = predictors["qwen"]
    chat, model = predictor.processing, predictor.model
    inputs = chat.encode([IMAGE] * 400)
    with torch.no_grad():
        logits = model(**chat.encode([IMAGE]), logits_to_keep=1).logits[0, -1].double()
        sampling = Sampling(0.5, range(400))
        found = generate_answers(chat, model, inputs, 1, sampling=sampling).sequences[:, -1]
    logits[list(chat.forbidden_ids)] = -torch.inf
    likelihoods = (logits / 0.5).log_softmax(-1)
    order = likelihoods.argsort(descending=True).tolist()
    ranks = [order.index(token) for token in found.tolist()]
    outside = 1 - likelihoods[order[:50]].exp().sum()  # transformers' default leaves these out
    assert outside > 0.3
    share = sum(rank >= 50 for rank in ranks) / 400
    assert abs(share - outside) < 4 * (outside * (1 - outside) / 400) ** 0.5


def test_predict_writes_regions_and_tags(folders, predictors, monkeypatch, tmp_path, capsys):
    told(predictors["qwen"], monkeypatch, ANSWER)
    monkeypatch.setattr("artifactnet.load_model", lambda *a, **k: predictors["qwen"])
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    out = tmp_path / "out"
    assert main(["predict", str(tmp_path / "a.png"), "--model", "x", "--out", str(out)]) == 0
    (line,) = [json.loads(row) for row in (out / "predictions.jsonl").open()]
    assert line["regions"][0]["caption"] == "hand <script>alert(1)</script>"
    assert line["tags"] == ["wrong texture"]
    assert line["instances"][0]["box"] == [10, 20, 56, 84]
    with Image.open(out / line["heatmap"]) as picture:
        assert np.unique(np.asarray(picture)).tolist() == [0, 255]


def test_what_needs_a_detector_refuses_it_in_one_line(folders, tmp_path, capsys):
    folder = folders["qwen"]
    assert find_model(folder).kind == "fakexplainer"
    with pytest.raises(ArtifactNetError, match="a FakeXplainer on a vision-language model, where"):
        find_weights(folder)
    for options in ({"text": "template"}, {"backend": "onnx"}):
        with pytest.raises(ArtifactNetError):
            load_model(folder, "cpu", **options)
    image = str(tmp_path / "a.png")
    Image.fromarray(IMAGE).save(image)
    for command in (
        ["explain", image, "--model", str(folder), "--out", str(tmp_path / "e")],
        ["export", "--model", str(folder), "--out", str(tmp_path / "m.onnx")],
        ["pack", str(folder), "--out", str(tmp_path / "m.safetensors")],
        ["predict", image, "--model", str(folder), "--out", str(tmp_path / "p"), "--tiles"],
        ["predict", image, "--model", str(folder), "--out", str(tmp_path / "p"), "--save-masks"],
    ):
        assert main(command) == 2, command
        lines = capsys.readouterr().err.strip().splitlines()
        assert "Traceback" not in "".join(lines)
        errors = [line for line in lines if line.startswith("artifactnet: error")]
        assert len(errors) == 1, (command, lines)
