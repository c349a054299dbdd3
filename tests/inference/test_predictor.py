"""The predictor on a real, tiny model: inputs, maps, batches, and what it leaves unchanged."""

import threading

import numpy as np
import pytest
import tiny_models
import torch
from canned_predictor import CannedPredictor
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from artifactnet.config import AttentionConfig
from artifactnet.data.transforms import Preprocess
from artifactnet.inference.inputs import Failure, to_pixels
from artifactnet.inference.predictor import Predictor
from artifactnet.types import ArtifactNetError


def tiny(method: str = "rollout", **options):
    """4x6 patches."""
    return tiny_models.tiny(size=(64, 96), attention=AttentionConfig(method=method), **options)


@pytest.fixture(scope="module")
def predictor():
    return Predictor(tiny())


def picture(height: int = 50, width: int = 70, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(pixels: np.ndarray, path) -> str:
    Image.fromarray(pixels).save(path, format="PNG")
    return str(path)


def same(a, b) -> None:
    assert a.probability == b.probability
    np.testing.assert_array_equal(a.heatmap, b.heatmap)


# --- one answer ---------------------------------------------------------------------------


def test_answer_is_the_models_own(predictor):
    """Independently: preprocess, forward, sigmoid."""
    model, image = predictor.model, picture()
    preprocess = Preprocess((64, 96), "stretch", model.mean, model.std)
    tensor, geometry = preprocess.image(image)
    with torch.no_grad():
        output = model(tensor[None], attention=True)
    answer = predictor.predict(image)
    assert answer.probability == pytest.approx(1 / (1 + np.exp(-float(output.logit[0]))), abs=1e-6)
    np.testing.assert_allclose(answer.attention, output.attention[0], rtol=1e-5)
    np.testing.assert_allclose(
        answer.heatmap, preprocess.restore(output.heatmap[0].numpy(), geometry), atol=1e-6
    )


@pytest.mark.parametrize("size", [(16, 16), (16, 200), (300, 17), (64, 96)])
@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_heatmap_has_the_original_size(size, resize):
    answer = Predictor(tiny(resize=resize)).predict(picture(*size))
    assert answer.heatmap.shape == size
    assert answer.heatmap.dtype == np.float32
    assert 0 <= answer.heatmap.min() <= answer.heatmap.max() <= 1
    assert answer.attention.shape == (4, 6)


@pytest.mark.parametrize("size", [(1, 1), (15, 200), (200, 15)])
def test_an_image_below_one_patch_is_refused(predictor, size, tmp_path):
    path = png(picture(*size), tmp_path / "icon.png")
    words = f"{size[1]}x{size[0]} pixels is too small for one patch"
    with pytest.raises(ArtifactNetError, match=f"^{path}: .*{words}"):
        predictor.predict(path)
    large = png(picture(), tmp_path / "photo.png")
    failure, answer = predictor.predict_stream([path, large])
    assert words in failure.reason
    assert answer.path == large


def test_the_threshold_itself_is_fake():
    model = tiny(threshold=0.5)
    torch.nn.init.zeros_(model.head.weight)  # logit 0, probability 0.5
    assert Predictor(model).predict(picture()).is_fake
    model.config.threshold = 0.51
    assert not Predictor(model).predict(picture()).is_fake


def test_a_nan_is_a_failure(tmp_path):
    model = tiny()
    torch.nn.init.constant_(model.head.bias, float("nan"))
    with pytest.raises(ArtifactNetError, match=r"image 0: .*not a number"):
        Predictor(model).predict(picture())
    path = png(picture(), tmp_path / "a.png")
    (answer,) = Predictor(model).predict_stream([path])
    assert answer == Failure(path, "the model's answer is not a number (NaN)")


def test_gradient_rollout_works_and_leaves_no_gradient():
    model = tiny("gradient_rollout")
    answer = Predictor(model).predict(picture())
    assert answer.heatmap.shape == (50, 70)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_model_without_attention_gives_no_map():
    model = tiny()
    model.has_attention = False
    answer = Predictor(model).predict(picture())
    assert answer.heatmap is None
    assert answer.attention is None


def test_train_and_eval_flags_are_restored(monkeypatch):
    model = tiny(drop_path_rate=0.5).train()
    model.backbone.eval()
    before = {name: module.training for name, module in model.named_modules()}
    first = Predictor(model).predict(picture())
    second = Predictor(model).predict(picture())
    same(first, second)  # dropout would have made them differ
    monkeypatch.setattr(model, "forward", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Predictor(model).predict(picture())
    assert {name: module.training for name, module in model.named_modules()} == before


# --- inputs -------------------------------------------------------------------------------


def test_all_forms_of_an_image_give_one_answer(predictor, tmp_path):
    pixels = picture()
    expected = predictor.predict(pixels)
    path = png(pixels, tmp_path / "a.png")
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    opaque = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
    forms = [
        path,
        tmp_path / "a.png",
        Image.fromarray(pixels),
        tensor,
        opaque,
        pixels.astype(np.float64) / 255,
        tensor.float() / 255,
        pixels.astype(np.uint16) * 257,
        np.asfortranarray(pixels),
        pixels[::-1][::-1],
    ]
    for form in forms:
        same(predictor.predict(form), expected)


def test_gray_forms_give_one_answer(predictor, tmp_path):
    gray = picture()[..., 0]
    expected = predictor.predict(np.repeat(gray[..., None], 3, axis=2))
    wide = gray.astype(np.uint16) * 257
    Image.fromarray(wide).save(tmp_path / "wide.png")
    for form in (gray, gray[..., None], wide, torch.from_numpy(gray), Image.fromarray(gray)):
        same(predictor.predict(form), expected)
    same(predictor.predict(tmp_path / "wide.png"), expected)
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)  # also between those of 8 bits
    Image.fromarray(levels).save(tmp_path / "levels.png")
    same(predictor.predict(levels), predictor.predict(tmp_path / "levels.png"))


def test_other_ranges(predictor):
    """Bool is black and white, transparent is white, bfloat16 a float like others."""
    mask = picture()[..., 0] > 127
    same(predictor.predict(mask), predictor.predict(mask.astype(np.uint8) * 255))
    clear = np.dstack([picture(), np.zeros((50, 70), np.uint8)])
    same(predictor.predict(clear), predictor.predict(np.full((50, 70, 3), 255, np.uint8)))
    half = torch.full((3, 20, 20), 0.5, dtype=torch.bfloat16)
    same(predictor.predict(half), predictor.predict(half.float()))


def test_exif_rotation_is_honoured(predictor, tmp_path):
    image = Image.fromarray(picture())
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    answer = predictor.predict(tmp_path / "turned.png")
    assert answer.heatmap.shape == (70, 50)
    same(answer, predictor.predict(np.rot90(picture(), -1)))


@given(dtype=st.sampled_from([np.float16, np.float32, np.float64]), seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_floats_round_to_the_nearest_level(dtype, seed):
    levels = picture(4, 5, seed)
    shifted = np.clip((levels + np.random.default_rng(seed).uniform(-0.2, 0.2)) / 255, 0, 1)
    np.testing.assert_array_equal(to_pixels(shifted.astype(dtype), "x"), levels)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 2), np.uint8), r"shape \(4, 4, 2\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"shape \(2, 4, 4, 3\)"),
        (np.zeros(4, np.uint8), r"shape \(4,\)"),
        (np.zeros((0, 4, 3), np.uint8), r"shape \(0, 4, 3\)"),
        (np.full((4, 4, 3), 300, np.int64), "levels"),
        (np.zeros((4, 4), np.complex64), "complex64 has no known range"),
        (np.full((4, 4, 3), 200.0), r"spans \[200, 200\]"),
        (np.full((4, 4, 3), -0.1), r"must lie in \[0, 1\]"),
        (np.full((4, 4, 3), np.nan), r"must lie in \[0, 1\]"),
        (torch.zeros(8, 9, 3), r"tensor of shape \(8, 9, 3\)"),
        (torch.zeros(1, 3, 4, 4), r"shape \(1, 3, 4, 4\)"),
        (None, "NoneType"),
        ({"a": 1}, "dict"),
    ],
)
def test_unusable_arrays_are_named(predictor, image, message):
    with pytest.raises(ArtifactNetError, match=message) as info:
        predictor.predict([picture(), image])
    assert str(info.value).startswith("image 1: ")
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("content", [None, b"", b"not an image", b"\x89PNG\r\n\x1a\n"])
def test_missing_and_broken_files_are_named(predictor, tmp_path, content):
    if content is not None:
        (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(ArtifactNetError, match=r"bad\.png"):
        predictor.predict(tmp_path / "bad.png")


# --- many images --------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_answers_do_not_depend_on_the_batch(predictor, batch_size):
    images = [picture(20 + 9 * i, 80 - 7 * i, seed=i) for i in range(5)]
    answers = predictor.predict(images, batch_size=batch_size)
    assert len(answers) == 5
    for image, answer in zip(images, answers, strict=True):
        alone = predictor.predict(image)
        assert answer.probability == pytest.approx(alone.probability, abs=1e-6)
        np.testing.assert_allclose(answer.heatmap, alone.heatmap, atol=1e-5)


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_stream_keeps_order_and_tells_failures(predictor, tmp_path, workers, batch_size):
    paths = [png(picture(seed=i), tmp_path / f"{i}.png") for i in range(6)]
    for bad in (0, 3, 4):
        (tmp_path / f"{bad}.png").write_bytes(b"nothing")
    answers = list(predictor.predict_stream(paths, batch_size, workers))
    assert [a.path for a in answers] == paths
    assert [isinstance(a, Failure) for a in answers] == [True, False, False, True, True, False]
    assert not answers[0].reason.startswith(str(tmp_path))
    alone = predictor.predict(paths[5])
    assert answers[5].probability == pytest.approx(alone.probability, abs=1e-6)


@pytest.mark.parametrize("workers", [0, 2])
def test_stream_reads_no_further_than_it_must(predictor, tmp_path, workers):
    path, asked = png(picture(), tmp_path / "a.png"), []

    def endless():
        while True:
            asked.append(1)
            yield path

    stream = predictor.predict_stream(endless(), batch_size=2, workers=workers)
    assert next(stream).path == path
    assert len(asked) <= 2 * (2 + workers) + 1
    threads = threading.active_count()
    stream.close()
    assert threading.active_count() <= max(threads - workers, 1)


def test_calling_is_predicting(predictor, tmp_path):
    path = png(picture(), tmp_path / "a.png")
    answer = predictor(path)
    assert answer.path == path
    same(answer, predictor.predict(path))
    assert predictor([]) == []
    for images in ([picture()], (picture(), picture(seed=1))):
        for ours, expected in zip(predictor(images), predictor.predict(images), strict=True):
            assert ours.path is None
            same(ours, expected)


def test_stream_without_heatmaps(predictor, tmp_path):
    path = png(picture(), tmp_path / "a.png")
    (answer,) = predictor.predict_stream([path], heatmaps=False)
    assert answer.heatmap is None
    assert answer.probability == pytest.approx(predictor.predict(path).probability, abs=1e-6)


@pytest.mark.parametrize("predictor", [Predictor(tiny()), CannedPredictor()], ids=["own", "canned"])
@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"workers": -1}, "workers"),
        ({"min_area": 0}, "min_area"),
        ({"overlap": -0.1}, r"overlap must be in 0\.\.0\.9"),
        ({"overlap": 1.0}, "overlap"),
        ({"overlap": float("nan")}, "overlap"),
        ({"tiles": True}, "^tiles need .*upernet"),
    ],
)
def test_every_predictor_checks_options_at_the_call(predictor, options, word):
    """Not at the first answer: a generator would be silent until then."""
    with pytest.raises(ArtifactNetError, match=word):
        predictor.predict_stream([], **options)
    if "workers" not in options:
        with pytest.raises(ArtifactNetError, match=word):
            predictor.predict([], **options)
