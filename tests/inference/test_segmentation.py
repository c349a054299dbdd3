"""The predictor on models that segment: maps, masks, instances, tiles, memory, other processes."""

import subprocess
import sys
import weakref

import numpy as np
import pytest
import torch

from artifactnet.data.transforms import Preprocess
from artifactnet.inference.inputs import Failure, ImageInput
from artifactnet.inference.load import load_model
from artifactnet.inference.predictor import Predictor
from artifactnet.models.checkpoint import save_checkpoint
from artifactnet.models.heads.segmentation import bit_field, probabilities
from artifactnet.types import ArtifactNetError

MAPS = ("heatmap", "attention", "probabilities", "mask")


def sizes(answer):
    return {name: getattr(answer, name).shape for name in MAPS if getattr(answer, name) is not None}


# --- whole images -------------------------------------------------------------------------


@pytest.mark.parametrize("labels", ["softmax", "sigmoid"])
@pytest.mark.parametrize("backbone", ["vit", "convnext"])
def test_answer_is_the_models_own(segmenter, noise, backbone, labels):
    """Independently, at the frame's own size, where nothing is resized."""
    model = segmenter(backbone, (32, 64), labels, map_threshold=0.3)
    image = noise(32, 64)
    tensor, _ = Preprocess((32, 64), "stretch", model.mean, model.std).image(image)
    with torch.no_grad():
        output = model(tensor[None], segmentation=True)
    full = torch.nn.functional.interpolate(
        output.segmentation, size=(32, 64), mode="bilinear", align_corners=False
    )
    each, some = probabilities(full)
    answer = Predictor(model).predict(image)
    assert answer.probability == pytest.approx(float(output.logit.sigmoid()[0]), abs=1e-6)
    np.testing.assert_allclose(answer.probabilities, each[0], atol=1e-6)
    np.testing.assert_allclose(answer.heatmap, some[0], atol=1e-6)
    expected = bit_field(each, some, 0.3, labels == "softmax", model.known_categories)[0].numpy()
    assert (answer.mask != expected).mean() < 0.01  # rounding on the threshold
    assert {i.category for i in answer.instances}
    assert sum(i.area for i in answer.instances) == sum(
        int(((answer.mask >> bit) & 1).sum()) for bit in range(8)
    )


@pytest.mark.parametrize("size", [(16, 16), (33, 200), (150, 40), (32, 48)])
@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("labels", ["softmax", "sigmoid"])
def test_maps_have_the_original_size(segmenter, noise, size, resize, labels):
    model = segmenter(resize=resize, labels=labels)
    answer = Predictor(model).predict(noise(*size))
    assert sizes(answer) == {
        "heatmap": size,
        "attention": (2, 3),
        "probabilities": (7, *size),
        "mask": size,
    }
    for plane in (answer.heatmap, answer.probabilities):
        assert plane.dtype == np.float32
        assert 0 <= plane.min() <= plane.max() <= 1
    assert answer.mask.dtype == np.uint8
    np.testing.assert_array_equal(answer.mask != 0, answer.heatmap > 0.5)
    largest = answer.probabilities.max(0)
    if labels == "sigmoid":
        np.testing.assert_array_equal(answer.heatmap, largest)
    else:
        assert (answer.heatmap >= largest).all()


def test_pixels_that_the_model_did_not_see_are_clean(pixel_model):
    model = pixel_model((16, 16), resize="crop")
    answer = Predictor(model).predict(np.full((20, 60, 3), 255, np.uint8))
    assert (answer.mask[:, 20:40] != 0).all()
    for side in (slice(0, 20), slice(40, 60)):
        assert (answer.mask[:, side] == 0).all()
        assert (answer.heatmap[:, side] == 0).all()
        assert (answer.probabilities[:, :, side] == 0).all()


def test_sigmoids_may_overlap(pixel_model, painted):
    image = painted((0, 0, 0, 20, 20), (1, 10, 10, 30, 30), size=(32, 32))
    answer = Predictor(pixel_model((32, 32), "sigmoid")).predict(image)
    assert (answer.mask[10:20, 10:20] == 2 | 4).all()
    assert [i.area for i in answer.instances] == [400, 400]


@pytest.mark.parametrize("labels", ["softmax", "sigmoid"])
@pytest.mark.parametrize("resize", ["stretch", "pad"])
def test_resampling_makes_no_region_without_a_category(segmenter, noise, labels, resize):
    """All seven categories are known, so every artifact pixel has one of them."""
    answer = Predictor(segmenter(labels=labels, resize=resize)).predict(noise(75, 61))
    assert (answer.mask != 0).any()
    assert not (answer.mask & 1).any()


def test_a_model_that_learned_no_category_finds_uncategorized_regions(segmenter, noise):
    answer = Predictor(segmenter(categories=[])).predict(noise())
    assert set(np.unique(answer.mask)) <= {0, 1}
    assert {i.category for i in answer.instances} == {"uncategorized"}
    region = answer.instances[0]
    assert region.confidence > 0.5  # the mean of what exceeds the threshold


def test_attention_stays_raw_beside_the_segmentation(segmenter, noise):
    model, image = segmenter(method="gradient_rollout"), noise(32, 48)
    tensor, _ = Preprocess((32, 48), "stretch", model.mean, model.std).image(image)
    output = model(tensor[None], attention=True)
    answer = Predictor(model).predict(image)
    np.testing.assert_allclose(answer.attention, output.attention[0].detach(), atol=1e-6)
    assert not np.allclose(
        answer.heatmap,
        Predictor(model)._preprocess.restore(
            output.heatmap[0].detach().numpy(),
            Preprocess((32, 48), "stretch", model.mean, model.std).image(image)[1],
        ),
    )


def test_answers_do_not_depend_on_the_batch(segmenter, noise):
    predictor = Predictor(segmenter())
    images = [noise(20 + 9 * i, 80 - 7 * i, seed=i) for i in range(5)]
    for image, answer in zip(images, predictor.predict(images, batch_size=3), strict=True):
        alone = predictor.predict(image)
        np.testing.assert_allclose(answer.probabilities, alone.probabilities, atol=1e-5)
        assert answer.probability == pytest.approx(alone.probability, abs=1e-6)


def test_a_map_that_is_no_number_is_a_failure(pixel_model, noise, tmp_path, put):
    model = pixel_model((16, 16))
    model.conv.bias.data[3] = float("nan")
    path = put(noise(), tmp_path / "a.png")
    for options in ({}, {"tiles": True}):
        (answer,) = Predictor(model).predict_stream([path], **options)
        assert answer == Failure(path, "the model's map of artifacts is not a number (NaN)")
    with pytest.raises(ArtifactNetError, match=r"image 0: .*not a number"):
        Predictor(model).predict(noise())


def test_content_of_a_file_is_an_image(segmenter, noise, tmp_path, put):
    path = put(noise(), tmp_path / "a.png")
    predictor = Predictor(segmenter())
    content = (tmp_path / "a.png").read_bytes()
    answers = [predictor.predict(path), predictor.predict(content)]
    answers += predictor.predict_stream(
        [ImageInput("shard#1", content), ImageInput("x", path)], batch_size=1
    )
    assert [a.path for a in answers] == [path, None, "shard#1", "x"]
    for answer in answers[1:]:
        np.testing.assert_array_equal(answer.probabilities, answers[0].probabilities)


def test_a_failure_in_a_stream_is_passed_on(segmenter, noise, tmp_path, put):
    path = put(noise(), tmp_path / "a.png")
    known = Failure("x", "why")
    answers = list(Predictor(segmenter()).predict_stream([known, path, known], batch_size=2))
    assert answers[0] is answers[2] is known
    assert answers[1].path == path


# --- memory -------------------------------------------------------------------------------


def test_without_maps_the_head_is_not_run(pixel_model, noise, tmp_path, put):
    model = pixel_model((16, 16))
    path = put(noise(), tmp_path / "a.png")
    (answer,) = Predictor(model).predict_stream([path], heatmaps=False)
    assert sizes(answer) == {}
    assert answer.instances == ()
    assert model.calls == [(1, False, False)]


@pytest.mark.parametrize("options", [{}, {"tiles": True}])
def test_one_image_has_maps_at_a_time(pixel_model, noise, tmp_path, put, options):
    """An answer that its reader lets go of is gone before the next one is made."""
    paths = [put(noise(seed=i), tmp_path / f"{i}.png") for i in range(6)]
    predictor = Predictor(pixel_model((16, 16)))
    alive: list[weakref.ref] = []
    for answer in predictor.predict_stream(paths, batch_size=3, workers=1, **options):
        assert [ref for ref in alive if ref() is not None] == []
        alive += [weakref.ref(getattr(answer, n)) for n in ("probabilities", "mask", "heatmap")]
        del answer
    assert len(alive) == 18


# --- tiles --------------------------------------------------------------------------------


def test_tiles_see_the_original_resolution(pixel_model):
    """A checkerboard averages to gray in the frame; at its own resolution it is one."""
    image = np.zeros((64, 96, 3), np.uint8)
    image[::2, ::2, 0] = image[1::2, 1::2, 0] = 255
    predictor = Predictor(pixel_model((16, 24)))
    whole, tiled = predictor.predict(image), predictor.predict(image, tiles=True)
    assert np.ptp(whole.heatmap) < 0.1
    np.testing.assert_array_equal(tiled.mask, (image[..., 0] > 0) * np.uint8(2))
    assert tiled.probability == whole.probability


def test_one_tile_is_the_whole(segmenter, noise):
    predictor = Predictor(segmenter("convnext", (32, 64)))
    whole, tiled = (predictor.predict(noise(32, 64), tiles=tiles) for tiles in (False, True))
    np.testing.assert_array_equal(whole.probabilities, tiled.probabilities)
    np.testing.assert_array_equal(whole.mask, tiled.mask)
    assert whole.probability == tiled.probability


def test_only_maps_come_from_tiles(segmenter, noise):
    predictor, image = Predictor(segmenter(size=(32, 48))), noise(100, 90)
    whole, tiled = predictor.predict(image), predictor.predict(image, tiles=True, overlap=0.5)
    assert tiled.probability == pytest.approx(whole.probability, abs=1e-6)
    np.testing.assert_allclose(tiled.attention, whole.attention, atol=1e-6)
    assert sizes(tiled) == sizes(whole)
    assert not np.allclose(tiled.probabilities, whole.probabilities, atol=1e-3)
    np.testing.assert_array_equal(tiled.mask != 0, tiled.heatmap > 0.5)


def test_the_whole_image_is_not_segmented_for_nothing(pixel_model, noise):
    model = pixel_model((16, 16))
    Predictor(model).predict([noise(16, 16), noise(16, 16)], tiles=True)
    assert model.calls == [(1, False, False), (1, False, True)] * 2


def test_streams_by_tiles_keep_order(pixel_model, noise, tmp_path, put):
    paths = [put(noise(30 + i, 40, i), tmp_path / f"{i}.png") for i in range(4)]
    (tmp_path / "2.png").write_bytes(b"nothing")
    predictor = Predictor(pixel_model((16, 16)))
    answers = list(predictor.predict_stream(paths, batch_size=3, workers=2, tiles=True))
    assert [a.path for a in answers] == paths
    assert isinstance(answers[2], Failure)
    alone = predictor.predict(paths[3], tiles=True)  # in batches of another size, so not to the bit
    np.testing.assert_allclose(answers[3].probabilities, alone.probabilities, rtol=0, atol=1e-5)


def test_tiles_need_maps(pixel_model):
    with pytest.raises(ArtifactNetError, match="tiles"):
        Predictor(pixel_model((16, 16))).predict_stream([], heatmaps=False, tiles=True)


# --- saved models -------------------------------------------------------------------------

OTHER_PROCESS = """
import sys
import numpy as np
from artifactnet import load_model
for folder in sys.argv[2:]:
    tiles = folder.endswith("tiles")
    answer = load_model(f"{folder}/m.safetensors", device="cpu").predict(sys.argv[1], tiles=tiles)
    np.savez(f"{folder}/answer.npz", probability=answer.probability,
             probabilities=answer.probabilities, mask=answer.mask, heatmap=answer.heatmap)
"""


@pytest.mark.slow
def test_another_process_gives_the_same_bits(segmenter, noise, tmp_path, put):
    """From the safetensors alone: no config, no code of the run."""
    image = put(noise(70, 90), tmp_path / "a.png")
    models = {
        how: segmenter(backbone, labels=labels, resize="pad", map_threshold=0.4)
        for backbone, labels, how in (("vit", "softmax", "whole"), ("convnext", "sigmoid", "tiles"))
    }
    for how, model in models.items():
        save_checkpoint(model, tmp_path / how / "m.safetensors")
    arguments = [image, *(str(tmp_path / how) for how in models)]
    subprocess.run([sys.executable, "-c", OTHER_PROCESS, *arguments], check=True, timeout=1200)
    for how, model in models.items():
        here = Predictor(model).predict(image, tiles=how == "tiles")
        there = np.load(tmp_path / how / "answer.npz")
        assert len(there.files) == 4
        for name in there:
            message = f"{how} {name}"
            np.testing.assert_array_equal(there[name], getattr(here, name), err_msg=message)
        assert (here.mask != 0).any()


def test_a_saved_segmenter_answers_alike(segmenter, noise, tmp_path):
    model = segmenter(categories=["low-level-texture", "high-level-semantics"])
    save_checkpoint(model, tmp_path / "m.safetensors")
    here = Predictor(model).predict(noise())
    there = load_model(tmp_path / "m.safetensors", device="cpu").predict(noise())
    for name in ("probability", "probabilities", "mask", "heatmap"):
        np.testing.assert_array_equal(getattr(here, name), getattr(there, name))
    assert set(np.unique(there.mask)) <= {0, 2, 32}
