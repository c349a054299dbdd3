"""The predictor on a real, tiny model: inputs, maps, batches, and what it leaves unchanged."""

from __future__ import annotations

import io
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from artifactnet.config import AttentionConfig, ModelConfig
from artifactnet.data.transforms import Preprocess
from artifactnet.inference.inputs import Failure
from artifactnet.inference.load import load_model
from artifactnet.inference.predictor import Predictor
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.models.checkpoint import save_checkpoint
from artifactnet.types import ArtifactNetError


def tiny(method: str = "rollout", **options) -> ArtifactNet:
    """A two-block ViT on 4x6 patches, random but always the same."""
    torch.manual_seed(0)
    return ArtifactNet(
        ModelConfig(
            backbone="vit_tiny_patch16_224",
            backbone_kwargs={"embed_dim": 32, "depth": 2, "num_heads": 2},
            image_size=[64, 96],
            pretrained="false",
            attention=AttentionConfig(method=method),
            **options,
        )
    )


@pytest.fixture(scope="module")
def predictor():
    return Predictor(tiny().eval())


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


@pytest.mark.parametrize("threshold", [0.01, 0.99])
def test_threshold_is_the_models(threshold):
    answer = Predictor(tiny(threshold=threshold)).predict(picture())
    assert answer.is_fake == (answer.probability >= threshold)
    assert answer.is_fake == (threshold == 0.01)


def test_probability_on_the_threshold_is_fake():
    model = tiny()
    torch.nn.init.zeros_(model.head.weight)  # logit 0, probability 0.5
    assert Predictor(model).predict(picture()).is_fake


def test_a_model_that_answers_nan_is_not_believed(tmp_path):
    model = tiny()
    torch.nn.init.constant_(model.head.bias, float("nan"))
    with pytest.raises(ArtifactNetError, match=r"image 0: .*not a number"):
        Predictor(model).predict(picture())
    path = png(picture(), tmp_path / "a.png")
    (answer,) = Predictor(model).predict_stream([path])
    assert answer == Failure(path, "the model's answer is not a number (NaN)")


def test_notices_of_the_model_are_in_every_answer():
    model = tiny()
    model.notices = ("random weights",)
    predictor = Predictor(model)
    assert [p.warnings for p in predictor.predict([picture(), picture()])] == [
        ("random weights",)
    ] * 2


def test_gradient_rollout_works_and_leaves_no_gradient():
    model = tiny("gradient_rollout")
    answer = Predictor(model).predict(picture())
    assert answer.heatmap.shape == (50, 70)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_model_without_attention_gives_no_map(monkeypatch):
    model = tiny()
    model.has_attention = False
    answer = Predictor(model).predict(picture())
    assert answer.heatmap is None
    assert answer.attention is None


def test_train_and_eval_flags_are_restored():
    model = tiny(drop_path_rate=0.5).train()
    model.backbone.eval()
    before = {name: module.training for name, module in model.named_modules()}
    first = Predictor(model).predict(picture())
    second = Predictor(model).predict(picture())
    assert {name: module.training for name, module in model.named_modules()} == before
    same(first, second)  # dropout would have made them differ


def test_flags_are_restored_after_an_error(monkeypatch):
    model = tiny().train()
    monkeypatch.setattr(model, "forward", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Predictor(model).predict(picture())
    assert all(module.training for module in model.modules())


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


def test_sixteen_bit_files_and_arrays_agree(predictor, tmp_path):
    """Also for values between the 8-bit levels."""
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(values).save(tmp_path / "wide.png")
    same(predictor.predict(values), predictor.predict(tmp_path / "wide.png"))


def test_bool_is_black_and_white(predictor):
    mask = picture()[..., 0] > 127
    same(predictor.predict(mask), predictor.predict(mask.astype(np.uint8) * 255))


def test_transparent_is_white(predictor):
    clear = np.dstack([picture(), np.zeros((50, 70), np.uint8)])
    same(predictor.predict(clear), predictor.predict(np.full((50, 70, 3), 255, np.uint8)))


def test_exif_rotation_is_honoured(predictor, tmp_path):
    image = Image.fromarray(picture())
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    answer = predictor.predict(tmp_path / "turned.png")
    assert answer.heatmap.shape == (70, 50)
    same(answer, predictor.predict(np.rot90(picture(), -1)))


@given(
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=10, deadline=None)
def test_floats_round_to_the_nearest_level(dtype, seed):
    from artifactnet.inference.inputs import to_pixels

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
        (np.zeros((4, 4, 3), np.int64), "int64 has no known range"),
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
def test_unusable_inputs_are_named(predictor, image, message):
    with pytest.raises(ArtifactNetError, match=message) as info:
        predictor.predict([picture(), image])
    assert str(info.value).startswith("image 1: ")
    assert "\n" not in str(info.value)


def test_bfloat16_tensor(predictor):
    image = torch.full((3, 20, 20), 0.5, dtype=torch.bfloat16)
    same(predictor.predict(image), predictor.predict(image.float()))


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n"])
def test_broken_file_is_named(predictor, tmp_path, content):
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(ArtifactNetError, match=r"bad\.png"):
        predictor.predict(tmp_path / "bad.png")


def test_missing_file_is_named(predictor, tmp_path):
    with pytest.raises(ArtifactNetError, match=r"none\.png"):
        predictor.predict(str(tmp_path / "none.png"))


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


def test_lists_give_lists(predictor):
    assert predictor.predict([]) == []
    assert len(predictor.predict([picture()])) == 1
    assert len(predictor.predict((picture(), picture()))) == 2


def test_paths_are_in_the_answers(predictor, tmp_path):
    path = png(picture(), tmp_path / "a.png")
    assert predictor.predict(path).path == path
    assert predictor.predict(picture()).path is None


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


def test_stream_without_heatmaps(predictor, tmp_path):
    path = png(picture(), tmp_path / "a.png")
    (answer,) = predictor.predict_stream([path], heatmaps=False)
    assert answer.heatmap is None
    assert answer.probability == pytest.approx(predictor.predict(path).probability, abs=1e-6)


def test_impossible_numbers(predictor):
    with pytest.raises(ArtifactNetError, match="batch_size must be 1 or more"):
        predictor.predict(picture(), batch_size=0)
    with pytest.raises(ArtifactNetError, match="workers must be 0 or more"):
        predictor.predict_stream([], workers=-1)


# --- loading ------------------------------------------------------------------------------


def test_saved_model_answers_alike(predictor, tmp_path):
    run = tmp_path / "run"
    save_checkpoint(predictor.model, run / "model.safetensors")
    expected = predictor.predict(picture())
    same(load_model(run, device="cpu").predict(picture()), expected)
    same(load_model(str(run / "model.safetensors"), device="cpu").predict(picture()), expected)


def test_preprocessing_travels_with_the_model(tmp_path):
    model = tiny(resize="pad", mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7], threshold=0.9)
    save_checkpoint(model, tmp_path / "m.safetensors")
    loaded = load_model(tmp_path / "m.safetensors", device="cpu")
    assert loaded.model.mean == pytest.approx((0.1, 0.2, 0.3))
    same(loaded.predict(picture()), Predictor(model).predict(picture()))


def test_notices_survive_saving(tmp_path):
    model = tiny()
    model.notices = ("weights are random",)
    save_checkpoint(model, tmp_path / "m.safetensors")
    answer = load_model(tmp_path / "m.safetensors", device="cpu").predict(picture())
    assert answer.warnings == ("weights are random",)


def test_folder_without_a_finished_model(tmp_path):
    (tmp_path / "last.safetensors").write_bytes(b"")
    with pytest.raises(ArtifactNetError, match=r"no model\.safetensors.*last\.safetensors"):
        load_model(tmp_path)


def test_missing_model(tmp_path):
    with pytest.raises(ArtifactNetError, match="nothing"):
        load_model(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("suffix", "backend"), [(".onnx", "onnx"), (".xml", "openvino"), (".pt2", "torch")]
)
def test_an_exported_file_says_how_to_run_it(tmp_path, suffix, backend):
    path = tmp_path / f"m{suffix}"
    path.write_bytes(b"x")
    words = rf"m{suffix}: an exported file.*predict --backend {backend}.*runtime\.load_exported"
    with pytest.raises(ArtifactNetError, match=words):
        load_model(path)


def test_a_run_may_be_called_as_exports_are(predictor, tmp_path):
    save_checkpoint(predictor.model, tmp_path / "run.onnx/model.safetensors")
    same(
        load_model(tmp_path / "run.onnx", device="cpu").predict(picture()),
        predictor.predict(picture()),
    )


def test_unknown_device(tmp_path):
    save_checkpoint(tiny(), tmp_path / "m.safetensors")
    with pytest.raises(ArtifactNetError, match="device warp"):
        load_model(tmp_path / "m.safetensors", device="warp")
    if not torch.cuda.is_available():
        with pytest.raises(ArtifactNetError, match="device gpu cannot be used"):
            load_model(tmp_path / "m.safetensors", device="gpu")


def test_pickles_are_refused(tmp_path):
    buffer = io.BytesIO()
    torch.save({"weight": torch.zeros(1)}, buffer)
    (tmp_path / "model.safetensors").write_bytes(buffer.getvalue())
    with pytest.raises(ArtifactNetError, match=r"model\.safetensors"):
        load_model(tmp_path)
