import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from artifactnet.inference.fingerprint import model_fingerprint
from artifactnet.inference.inputs import Failure, ImageInput
from artifactnet.inference.stability import VARIANTS
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.heie import predictor as module
from artifactnet.vlm.heie import saving
from artifactnet.vlm.heie.predictor import HeiePredictor, load_heie_predictor
from artifactnet.vlm.text.template import TEMPLATE

RNG = np.random.default_rng(5)
TEXT = TEMPLATE.replace("[MAP]", "around the hand: [MAP]")


def picture(height, width):
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def brief(heie):
    heie.mllm = copy.copy(heie.mllm)
    heie.mllm.max_new_tokens = 6
    return heie


def test_answers_are_at_the_images_own_size(brief):
    predictor = HeiePredictor(brief, "template")
    images = [picture(20, 400), picture(57, 41)]
    answers = predictor.predict(images, batch_size=2)
    for image, answer in zip(images, answers, strict=True):
        assert answer.heatmap.shape == answer.sigma.shape == image.shape[:2]
        assert answer.heatmap.dtype == np.float32
        assert answer.heatmap.min() >= 0
        assert answer.heatmap.max() <= 1
        assert answer.sigma.min() > 0
        assert answer.probability == pytest.approx(1 - answer.score)
        assert answer.explanation is None
        assert any("probability is 1 - score" in text for text in answer.warnings)
        assert any("no text was generated" in text for text in answer.warnings)
    assert any("aspect ratio 400:20" in text for text in answers[0].warnings)
    again = predictor.predict(images[1])
    np.testing.assert_allclose(again.heatmap, answers[1].heatmap, atol=1e-5)


def test_given_text_is_read(brief):
    predictor = HeiePredictor(brief)
    image = picture(112, 56)
    one, two = (predictor.predict_from_texts([image], [text])[0] for text in (TEXT, TEMPLATE))
    assert one.explanation.text == TEXT
    assert one.explanation.description
    assert one.score != two.score  # the states at its marks depend on it


def test_truncated_generation_is_mended_and_says_so(brief):
    answer = HeiePredictor(brief).predict(picture(56, 56))
    assert answer.explanation is not None
    assert answer.explanation.text.count("[MAP]") == 1
    assert answer.explanation.text.count("[SCORE]") == 1
    assert len(answer.warnings) > 1  # that something was missing
    assert answer.to_json()["explanation"]["text"] == answer.explanation.text


def test_generated_text_decides_the_heatmap(brief, monkeypatch):
    monkeypatch.setattr(module, "generate_texts", lambda model, images: [TEXT] * len(images))
    image = picture(112, 56)
    predictor = HeiePredictor(brief)
    written, given = predictor.predict(image), predictor.predict_from_texts([image], [TEXT])[0]
    np.testing.assert_array_equal(written.heatmap, given.heatmap)
    assert written.score == given.score
    assert written.explanation == given.explanation


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("here: [MAP] [SCORE]", "heading 'Image Description' is missing"),
        (TEMPLATE + "[MAP]", r"mark \[MAP\]"),
        (TEMPLATE.replace("[MAP]", ""), r"mark \[MAP\]"),
    ],
)
def test_given_text_must_be_a_chain_of_thought(brief, text, problem):
    with pytest.raises(ArtifactNetError, match=f"image 1: its text: the {problem}"):
        HeiePredictor(brief).predict_from_texts([picture(56, 56)] * 2, [TEMPLATE, text])


def test_control_words_that_a_model_spells_out_break_nothing(brief, monkeypatch):
    text = TEMPLATE.replace("[MAP]", "<|im_<|im_end|>end|> [MAP]")
    monkeypatch.setattr(module, "generate_texts", lambda model, images: [text])
    answer = HeiePredictor(brief).predict(picture(56, 56))
    assert "im_" not in answer.explanation.text


def test_answer_that_is_no_number_is_a_failure_and_stops_nothing(brief):
    predictor = HeiePredictor(brief, "template")
    with torch.no_grad():
        brief.head.mapper.maps.bias.fill_(torch.nan)
    (found,) = predictor.predict_stream([ImageInput("a.png", picture(56, 56))])
    assert found == Failure("a.png", "the model's answer is not a number (NaN)")
    with pytest.raises(ArtifactNetError, match="image 0: the model's answer is not a number"):
        predictor.predict(picture(56, 56))


def test_stream_passes_failures_on_in_order(brief, tmp_path):
    good, bad = tmp_path / "a.png", tmp_path / "b.png"
    Image.fromarray(picture(60, 60)).save(good)
    bad.write_bytes(b"no image")
    earlier = Failure("c", "not there")
    predictor = HeiePredictor(brief, "template")
    found = list(predictor.predict_stream([good, bad, earlier, good], 2, heatmaps=False))
    assert [isinstance(answer, Failure) for answer in found] == [False, True, True, False]
    assert found[0].path == str(good)
    assert found[0].heatmap is None
    assert found[1].path == str(bad)
    assert found[2] is earlier
    assert found[0].score == pytest.approx(found[3].score)


def test_options_are_checked_at_the_call(brief):
    """Not at the first answer: a generator would be silent until then."""
    with pytest.raises(ArtifactNetError, match="generate, template"):
        HeiePredictor(brief, "guess")
    predictor = HeiePredictor(brief, "template")
    with pytest.raises(ArtifactNetError, match="2 texts for 1 images"):
        predictor.predict_from_texts([picture(56, 56)], [TEXT, TEXT])
    for options in ({"tiles": True}, {"batch_size": 0}, {"workers": -1}):
        with pytest.raises(ArtifactNetError, match=next(iter(options))):
            predictor.predict_stream([], **options)
    with pytest.raises(ArtifactNetError, match="batch_size"):
        predictor.predict([], batch_size=0)


def test_verdict_follows_the_threshold(brief):
    predictor = HeiePredictor(brief, "template")
    image = picture(56, 56)
    probability = predictor.predict(image).probability
    for threshold, fake in ((probability, True), (probability + 0.01, False)):
        predictor.threshold = threshold
        assert predictor.predict(image).is_fake is fake


def test_load_heie_predictor(brief, tmp_path):
    saving.save_heie(brief, tmp_path, {"notices": ["the score is UNTRAINED"]})
    image = picture(56, 112)
    loaded = load_heie_predictor(tmp_path, mode="template").predict(image)
    np.testing.assert_allclose(
        loaded.heatmap, HeiePredictor(brief, "template").predict(image).heatmap, atol=1e-5
    )
    assert loaded.warnings[0] == "the score is UNTRAINED"


@pytest.mark.parametrize("mode", ["template", "generate"])
def test_answers_in_many_threads_are_those_of_one(brief, mode):
    predictor = HeiePredictor(brief.train(), mode)
    images = [picture(56, 56), picture(60, 112), picture(112, 57)]
    right = [predictor.predict(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda k: predictor.predict(images[k % 3]), range(8)))
    for number, answer in enumerate(found):
        expected = right[number % 3]
        assert answer.score == pytest.approx(expected.score, abs=1e-5)
        assert answer.explanation == expected.explanation
        np.testing.assert_allclose(answer.heatmap, expected.heatmap, atol=1e-4)
    assert brief.training


@pytest.mark.parametrize("mode", ["template", "generate"])
def test_reencodings_are_read_as_images(brief, mode):
    predictor = HeiePredictor(brief, mode)
    image = picture(60, 112)
    answer = predictor.predict(image, stability=True)
    for name, probability in answer.stability.probabilities.items():
        variant = VARIANTS[name](image) if name in VARIANTS else image
        assert probability == pytest.approx(predictor.predict(variant).probability, abs=1e-5)
    assert len(answer.stability.probabilities) == 1 + len(VARIANTS)


def test_the_fingerprint_knows_what_decides_a_text(brief):
    writes, reads = HeiePredictor(brief), HeiePredictor(brief, "template")
    before = model_fingerprint(writes), model_fingerprint(reads)
    brief.mllm.sequence_bias = {"No": 1.0}
    assert model_fingerprint(writes) != before[0]
    assert model_fingerprint(reads) == before[1]  # no text, no bias
