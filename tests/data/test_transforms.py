"""Preprocessing and augmentation: values, alignment, determinism, refusal of bad samples."""

import io
import os
import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from artifactnet.config import AugmentConfig, Config
from artifactnet.data import transforms
from artifactnet.data.geometry import POLICIES, random_window
from artifactnet.data.transforms import Preprocess, TrainTransform, window_around
from artifactnet.rules import problems
from artifactnet.types import Annotation, ArtifactNetError, Record, Sample

MEAN, STD = (0.45, 0.45, 0.4), (0.229, 0.224, 0.225)
SEED = st.integers(0, 2**32 - 1)
RED, GREY = (230, 20, 20), (120, 120, 120)


def preprocess(size=(64, 64), resize="stretch"):
    return Preprocess(size, resize, MEAN, STD)


def make_sample(height, width, box=None, label=1, noise=False):
    """Grey image with a red box that the mask and the heatmap mark."""
    image = np.full((height, width, 3), GREY, np.uint8)
    if noise:
        image = np.random.default_rng(0).integers(0, 256, image.shape).astype(np.uint8)
    annotation, mask, heatmap = Annotation.CLEAN if label == 0 else Annotation.NONE, None, None
    if box is not None:
        top, left, bottom, right = box
        mask = np.zeros((height, width), np.uint8)
        mask[top:bottom, left:right] = 0b0100
        image[top:bottom, left:right] = RED
        heatmap = (mask > 0).astype(np.float32)
        annotation = Annotation.MASK
    record = Record("u", label, "gan" if label else "real", annotation, "folder/x.png")
    return Sample(record, image, mask, heatmap)


def pixels(example):
    """Undo the normalisation: (H, W, 3) in 0..255."""
    image = example.image.numpy().transpose(1, 2, 0)
    return (image * STD + MEAN) * 255


def redness(example):
    """Share of the marker colour in each pixel, from image channels alone."""
    image = pixels(example)
    return np.clip((image[..., 0] - image[..., 1]) / (RED[0] - RED[1]), 0, 1)


def test_every_level_is_normalised_as_by_arithmetic():
    """To the last bit: a table that rounds otherwise would change what models were trained on."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    image = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    image[..., 1] = image[::-1, :, 1]
    scale = (1 / (255 * np.array(std))).astype(np.float32)
    shift = (np.array(mean) / np.array(std)).astype(np.float32)
    for policy in POLICIES:
        tensor, _ = Preprocess((16, 16), policy, mean, std).image(image)
        assert tensor.is_contiguous()
        expected = (image * scale - shift).transpose(2, 0, 1)
        np.testing.assert_array_equal(tensor.numpy(), expected)


def test_padding_is_the_mean_colour_or_mirrors_image_and_mask_together():
    tensor, geometry = preprocess(resize="pad").image(np.full((20, 40, 3), 255, np.uint8))
    assert geometry.target.size == (32, 64)
    assert not tensor[:, [*range(16), *range(48, 64)]].any()
    assert (tensor[:, 16:48] > 1).all()
    image = np.zeros((16, 32, 3), np.uint8)
    image[2:9, 5:12] = 255
    mask = (image[..., 0] > 0).astype(np.uint8) * 2
    mirrored = preprocess((32, 32), "reflect")
    tensor, geometry = mirrored.image(image)
    bright = tensor[0].numpy() > tensor[0].numpy().mean()
    assert np.array_equal(bright, mirrored.mask(mask, geometry) > 0)
    assert bright.sum() == 2 * 7 * 7  # once more above or below
    assert np.array_equal(mirrored.restore(bright.astype(np.float32), geometry) > 0, mask > 0)


@settings(deadline=None)
@given(
    height=st.integers(1, 120),
    width=st.integers(1, 120),
    policy=st.sampled_from(POLICIES),
    size=st.sampled_from([(48, 48), (28, 70)]),
)
def test_any_size_goes_in_and_comes_back(height, width, policy, size):
    prepare = preprocess(size, policy)
    tensor, geometry = prepare.image(np.full((height, width, 3), 200, np.uint8))
    assert tensor.shape == (3, *size)
    assert np.isfinite(tensor.numpy()).all()
    assert prepare.restore(np.ones((4, 5), np.float32), geometry).shape == (height, width)


def test_wrong_arrays_are_refused():
    uint8 = np.zeros((4, 4, 3), np.uint8)
    for bad in (uint8[:0], uint8[..., 0], uint8.astype(np.float32)):
        with pytest.raises(ValueError, match="uint8 image"):
            preprocess().image(bad)
    with pytest.raises(ValueError, match="known: stretch"):
        preprocess(resize="fill")
    with pytest.raises(ValueError, match="positive stds"):
        Preprocess((8, 8), "pad", MEAN, (0.1, 0.0, 0.1))


def test_unusable_samples_are_named():
    prepare = Preprocess((64, 64), "stretch", MEAN, STD, min_side=14)
    transform = TrainTransform(AugmentConfig(), prepare)

    def refused(sample, message=""):
        for use in (prepare.sample, lambda sample: transform(sample, 0)):
            with pytest.raises(ArtifactNetError, match=rf"^folder/x\.png: .*{message}"):
                use(sample)

    for shape in ((13, 90), (90, 13)):
        words = rf"{shape[1]}x{shape[0]} pixels is too small for one patch of the model \(14x14"
        with pytest.raises(ArtifactNetError, match=f"^an image of {words}"):
            prepare.image(make_sample(*shape).image)
        refused(make_sample(*shape), words)
    assert prepare.sample(make_sample(14, 14)).image.shape == (3, 64, 64)
    for mask in (np.zeros((39, 40), np.uint8), None):
        refused(replace(make_sample(40, 40, (0, 0, 9, 9)), mask=mask))
    refused(replace(make_sample(40, 40), mask=np.zeros((40, 40), np.uint8)))
    with pytest.raises(ArtifactNetError, match=r"folder/x\.png: .*jpeg_on=none"):
        TrainTransform(AugmentConfig(), preprocess())(make_sample(1, 70000), 0)


def aligned(example):
    """Mask, heatmap and marker colour agree but for the blurred border of the marker."""
    mask, red, heatmap = example.mask.numpy() > 0, redness(example), example.heatmap.numpy()
    assert set(np.unique(example.mask.numpy())) <= {0, 4}
    area = max(mask.sum(), red.sum(), 1.0)
    perimeter = np.abs(np.diff(mask.astype(int), axis=0)).sum()
    perimeter += np.abs(np.diff(mask.astype(int), axis=1)).sum()
    allowed = 1.1 * perimeter + 0.02 * area + 2
    assert np.abs(mask - red).sum() <= allowed
    assert np.abs(mask - heatmap).sum() <= allowed


@settings(deadline=None, max_examples=120)
@given(
    shape=st.tuples(st.integers(24, 150), st.integers(24, 150)),
    corner=st.tuples(st.floats(0, 0.7), st.floats(0, 0.7)),
    crop=st.booleans(),
    rotate=st.sampled_from([0.0, 1.0]),
    policy=st.sampled_from(POLICIES),
    scale=st.sampled_from([(1.0, 1.0), (0.5, 2.0)]),
    seed=SEED,
)
def test_the_marker_stays_under_the_mask(shape, corner, crop, rotate, policy, scale, seed):
    top, left = int(corner[0] * shape[0]), int(corner[1] * shape[1])
    box = (top, left, top + max(6, shape[0] // 4), left + max(6, shape[1] // 4))
    sample = make_sample(*shape, box)
    crops = {"crop": True, "scale": list(scale)} if crop else {}
    augment = AugmentConfig(jpeg_quality=[], vflip=0.5, rotate=rotate, **crops)
    aligned(TrainTransform(augment, preprocess((64, 48), policy))(sample, seed))
    aligned(preprocess((64, 48), policy).sample(sample))


def test_alignment_survives_jpeg(monkeypatch):
    monkeypatch.delenv("NO_ALBUMENTATIONS_UPDATE", raising=False)
    transform = TrainTransform(AugmentConfig(jpeg_quality=[95, 100], vflip=0.5), preprocess())
    assert os.environ["NO_ALBUMENTATIONS_UPDATE"] == "1"  # else its import asks the network
    for seed in range(20):
        aligned(transform(make_sample(96, 80, (8, 16, 40, 48)), seed))


def test_result_depends_on_sample_and_seed_alone():
    flips = {"vflip": 0.5, "rotate": 0.5, "crop": True, "scale": [0.5, 2.0]}
    augment = AugmentConfig(color=0.5, jpeg_on="both", **flips)
    first, second = (TrainTransform(augment, preprocess()) for _ in range(2))
    sample = make_sample(90, 70, (10, 10, 40, 50), noise=True)
    before = sample.image.copy()
    expected = [first(sample, seed) for seed in range(12)]
    np.random.seed(7)  # global state must not matter
    copied = pickle.loads(pickle.dumps(second))  # as a spawned worker gets it
    for transform in (second, copied):
        for seed in reversed(range(12)):
            got = transform(sample, seed)
            for name in ("image", "mask", "heatmap"):
                assert getattr(got, name).equal(getattr(expected[seed], name))
    np.testing.assert_array_equal(sample.image, before)
    assert len({example.image.numpy().tobytes() for example in expected}) == 12


def plain(**options):
    """Augmentation of which only what the test names is switched on."""
    return AugmentConfig(**{"jpeg_quality": [], "hflip": 0.0, **options})


def test_quarter_turns_are_exact_and_all_occur():
    """Image, mask and heatmap are turned by the same multiple of 90 degrees, pixel for pixel."""
    sample = make_sample(64, 64, (4, 30, 20, 60), noise=True)
    sample.heatmap = np.random.default_rng(3).random((64, 64), dtype=np.float32)
    reference = preprocess().sample(sample)
    transform = TrainTransform(plain(rotate=1.0), preprocess())
    turns = set()
    for seed in range(40):
        got = transform(sample, seed)
        matches = [k for k in range(4) if got.mask.equal(reference.mask.rot90(k))]
        assert len(matches) == 1
        turn = matches[0]
        assert got.image.equal(reference.image.rot90(turn, (1, 2)))
        assert got.heatmap.equal(reference.heatmap.rot90(turn))
        turns.add(turn)
    assert turns >= {1, 2, 3}


def test_a_turned_oblong_image_is_placed_by_its_new_shape():
    """Under ``pad`` the frame shows which side is long: the turn precedes the geometry."""
    sample = make_sample(32, 64, (8, 8, 24, 30))
    transform = TrainTransform(plain(rotate=1.0), preprocess(resize="pad"))
    upright = 0
    for seed in range(20):
        example = transform(sample, seed)
        aligned(example)
        padded_columns = bool((example.image[:, :, 0] == 0).all())
        assert padded_columns != bool((example.image[:, 0, :] == 0).all())
        upright += padded_columns
    assert 0 < upright < 20


def test_color_changes_the_pixels_of_either_class_and_nothing_else():
    transform = TrainTransform(plain(color=1.0), preprocess())
    for sample in (make_sample(64, 64, (8, 16, 40, 48)), make_sample(64, 64, label=0, noise=True)):
        before, reference = sample.image.copy(), preprocess().sample(sample)
        results = [transform(sample, seed) for seed in range(8)]
        for example in results:
            assert not example.image.equal(reference.image)
            assert example.mask.equal(reference.mask)
            assert example.heatmap.equal(reference.heatmap)
            low, high = pixels(example).min(), pixels(example).max()
            assert -1e-3 <= low <= high <= 255 + 1e-3
            # Equal pixels stay equal: no new edge may appear where the mask knows of none.
            for region in () if sample.mask is None else (sample.mask > 0, sample.mask == 0):
                found = pixels(example)[region]
                np.testing.assert_allclose(found, found[:1].repeat(region.sum(), 0))
        assert len({example.image.numpy().tobytes() for example in results}) == 8
        np.testing.assert_array_equal(sample.image, before)
        again = TrainTransform(plain(color=1.0), preprocess())
        for seed in reversed(range(8)):
            assert again(sample, seed).image.equal(results[seed].image)

    def change(strength):  # of the last sample, which is noise
        transform = TrainTransform(plain(color=strength), preprocess())
        found = [transform(sample, seed).image - reference.image for seed in range(10)]
        return float(np.mean([difference.abs().mean() for difference in found]))

    assert change(0.0) == 0.0
    assert 0 < change(0.2) < change(1.0)


def test_flips_and_quality_are_independent():
    """One seed must not tie the two flips, or a flip and the JPEG quality, together."""
    augment = AugmentConfig(jpeg_quality=[30, 100], hflip=0.5, vflip=0.5)
    transform = TrainTransform(augment, preprocess((96, 96)))
    sample = make_sample(96, 96, noise=True)
    original = sample.image.astype(float)
    variants = {
        (h, v): original[:: -1 if v else 1, :: -1 if h else 1] for h in (0, 1) for v in (0, 1)
    }
    damage: dict[tuple[int, int], list[float]] = {key: [] for key in variants}
    for seed in range(120):
        image = pixels(transform(sample, seed))
        errors = {key: np.abs(image - variant).mean() for key, variant in variants.items()}
        best = min(errors, key=errors.__getitem__)
        damage[best].append(errors[best])
    assert min(len(values) for values in damage.values()) >= 15
    means = [np.mean(values) for values in damage.values()]
    assert max(means) < 1.25 * min(means)


def test_jpeg_damage_is_that_of_a_real_jpeg_file():
    """Channels must reach the encoder in their order, or chroma is not what files have."""
    rng = np.random.default_rng(3)
    smooth = np.kron(rng.integers(0, 256, (12, 12, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    sample = make_sample(96, 96)
    sample.image = np.clip(smooth + rng.normal(0, 12, smooth.shape), 0, 255).astype(np.uint8)
    augment = AugmentConfig(jpeg_quality=[50, 50], hflip=0.0)
    got = pixels(TrainTransform(augment, preprocess((96, 96)))(sample, 0))
    difference = {}
    for name, order in (("rgb", [0, 1, 2]), ("bgr", [2, 1, 0])):
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(sample.image[..., order])).save(
            buffer, "JPEG", quality=50, subsampling="4:2:0"
        )
        decoded = np.asarray(Image.open(buffer), dtype=float)[..., order]
        difference[name] = np.abs(got - decoded).mean()
    assert difference["rgb"] < 0.5
    assert difference["bgr"] > 2


def reference_balanced(mask, ratio):
    """The category-ratio rule pixel by pixel."""
    counts: dict[str, int] = {}
    for value in mask.ravel().tolist():
        classes = [f"bit{bit}" for bit in range(8) if value >> bit & 1] or ["background"]
        for name in classes:
            counts[name] = counts.get(name, 0) + 1
    return len(counts) > 1 and max(counts.values()) / sum(counts.values()) < ratio


@given(
    values=st.lists(st.sampled_from([0, 0, 0, 1, 2, 4, 6, 128, 255]), min_size=1, max_size=30),
    ratio=st.sampled_from([0.3, 0.5, 0.75, 0.9]),
)
def test_category_ratio_rule(values, ratio):
    mask = np.array([values], np.uint8)
    assert transforms.passes_category_ratio(mask, ratio) == reference_balanced(mask, ratio)
    assert transforms.passes_category_ratio(mask, 1.0)


@settings(deadline=None)
@given(
    original=st.tuples(st.integers(1, 120), st.integers(1, 120)),
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    place=st.tuples(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True)),
    scale=st.floats(0.2, 3),
    seed=SEED,
)
def test_a_window_around_a_pixel_is_inside_and_holds_it(original, size, place, scale, seed):
    pixel = (int(place[0] * original[0]), int(place[1] * original[1]))
    window = window_around(pixel, original, size, scale, np.random.default_rng(seed))
    free = random_window(original, size, scale, np.random.default_rng(seed))
    assert (window.original, window.size, window.target) == (original, size, free.target)
    assert window.source.size == free.source.size  # the scale is kept
    box = window.source
    assert 0 <= box.top <= pixel[0] < box.top + box.height <= original[0]
    assert 0 <= box.left <= pixel[1] < box.left + box.width <= original[1]


def test_every_window_around_a_pixel_is_equally_likely():
    """4 of 9 columns around column 6: it can start at 3, 4 or 5, not at 6."""
    rng = np.random.default_rng(0)
    windows = [window_around((0, 6), (4, 9), (4, 4), 1.0, rng).source for _ in range(3000)]
    found, counts = np.unique([box.left for box in windows], return_counts=True)
    assert found.tolist() == [3, 4, 5]
    assert counts.min() > 900
    assert {box.top for box in windows} == {0}


@settings(deadline=None, max_examples=60)
@given(
    shape=st.tuples(st.integers(20, 200), st.integers(20, 200)),
    corner=st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)),
    side=st.integers(1, 30),
    scale=st.sampled_from([[1.0, 1.0], [1.0, 2.0]]),
    ratio=st.sampled_from([0.75, 1.0]),
    seed=SEED,
)
def test_an_artifact_crop_always_holds_artifact(shape, corner, side, scale, ratio, seed):
    top, left = int(corner[0] * shape[0]), int(corner[1] * shape[1])
    sample = make_sample(*shape, (top, left, top + side, left + side))
    sample.mask[sample.mask > 0] = 1  # an artifact without a category is one too
    crops = {"crop_size": [24, 40], "scale": scale, "max_category_ratio": ratio}
    augment = plain(crop=True, crop_artifact=True, rotate=0.5, hflip=0.5, **crops)
    example = TrainTransform(augment, preprocess((64, 64)))(sample, seed)
    assert example.mask.shape == (24, 40)
    assert example.mask.any()


def test_artifact_crops_reach_every_artifact_pixel_and_shrink_with_the_rest():
    """Two far marks of 1 and 3 pixels: crops hold one of them, the larger more often."""
    sample = make_sample(300, 300, (5, 5, 6, 6))
    sample.mask[290, 280:283] = 8
    augment = plain(crop=True, crop_artifact=True, max_category_ratio=1.0)
    transform = TrainTransform(augment, preprocess((32, 32)))
    masks = [transform(sample, seed).mask.numpy() for seed in range(200)]
    small, large = (sum((mask == value).any() for mask in masks) for value in (4, 8))
    assert small + large == 200
    assert 25 < small < 80
    shrunk = plain(crop=True, crop_artifact=True, scale=[0.5, 0.5])
    sample = make_sample(300, 300, (100, 100, 120, 120))
    for seed in range(50):
        window = TrainTransform(shrunk, preprocess((32, 32)))._geometry(
            (300, 300), sample.mask, np.random.default_rng(seed)
        )
        assert window.source.size == (64, 64)
        assert sample.mask[window.source.slices].any()


def test_the_category_ratio_rule_chooses_among_artifact_crops():
    sample = make_sample(256, 256, (0, 0, 60, 60))
    rates = []
    for ratio in (0.75, 1.0):
        augment = plain(crop=True, crop_artifact=True, max_category_ratio=ratio)
        transform = TrainTransform(augment, preprocess())
        masks = [transform(sample, seed).mask.numpy() for seed in range(100)]
        assert all((mask > 0).any() for mask in masks)
        rates.append(np.mean([0.25 < (mask > 0).mean() < 0.75 for mask in masks]))
    assert rates[0] > 1.3 * rates[1]
    assert rates[0] > 0.95
    # A rule that no window can pass gives way: the mark is too small for any ratio.
    tiny = make_sample(256, 256, (200, 200, 202, 202))
    augment = plain(crop=True, crop_artifact=True, max_category_ratio=0.5)
    transform = TrainTransform(augment, preprocess())
    assert all(transform(tiny, seed).mask.any() for seed in range(50))


def test_where_no_artifact_is_known_any_window_is_drawn():
    """Photographs, fakes without annotation, and masks in which nothing is marked."""
    empty = make_sample(150, 120, (0, 0, 0, 0), noise=True)
    samples = [make_sample(150, 120, label=0, noise=True), make_sample(150, 120, noise=True), empty]
    with_rule, without = (
        TrainTransform(plain(crop=True, crop_artifact=on, scale=[0.5, 2.0]), preprocess())
        for on in (True, False)
    )
    for sample in samples:
        images = [with_rule(sample, seed).image for seed in range(10)]
        assert all(image.equal(without(sample, seed).image) for seed, image in enumerate(images))
        assert len({image.numpy().tobytes() for image in images}) == 10


def test_crop_size_is_the_frame_of_training_alone():
    sample = make_sample(90, 100, (10, 10, 40, 50), noise=True)
    unmarked = make_sample(90, 100, label=0)  # no mask to take the size from
    prepare = preprocess((64, 48))
    transform = TrainTransform(plain(crop=True, crop_size=[40, 72]), prepare)
    same = TrainTransform(plain(crop=True, crop_size=[64, 48]), prepare)
    default = TrainTransform(plain(crop=True), prepare)
    for item in (sample, unmarked):
        example = transform(item, 5)
        assert example.image.shape == (3, 40, 72)
        assert example.mask.shape == example.heatmap.shape == (40, 72)
        assert prepare.sample(item).image.shape == (3, 64, 48)
        assert same(item, 5).image.equal(default(item, 5).image)
    aligned(transform(make_sample(90, 100, (10, 10, 60, 70)), 5))


@pytest.mark.parametrize("options", [{"crop_size": [32, 32]}, {"crop_artifact": True}])
def test_crop_keys_without_crop_are_refused(options):
    (key,) = options
    with pytest.raises(ArtifactNetError, match=rf"data\.augment\.{key} needs .*crop=true"):
        TrainTransform(AugmentConfig(**options), preprocess())
    config = Config()
    config.data.augment = AugmentConfig(**options)
    assert list(problems(config)) == [(f"data.augment.{key}", "needs data.augment.crop=true")]
    config.data.augment.crop = True
    assert list(problems(config)) == []
    with pytest.raises(ArtifactNetError, match=r"scale=\[0\.5, 2\.0\] needs .*crop=true"):
        TrainTransform(AugmentConfig(scale=[0.5, 2.0]), preprocess())


def test_a_small_image_is_padded_with_the_mean_colour_and_not_enlarged():
    augment = AugmentConfig(crop=True, jpeg_on="none", hflip=0.0)
    sample = make_sample(20, 30, label=0)
    example = TrainTransform(augment, preprocess())(sample, 1)
    filled = np.abs(pixels(example) - GREY).max(axis=2) < 1
    assert filled.sum() == 20 * 30
    assert np.abs(example.image.numpy()[:, ~filled]).max() == 0


def test_webp_resave_and_blur_change_pixels_alone_and_by_seed():
    sample = make_sample(96, 64, box=(20, 10, 60, 40), noise=True)
    plain = AugmentConfig(jpeg_quality=[60, 60], jpeg_on="both", hflip=0.0)
    before = TrainTransform(plain, preprocess((96, 64)))(sample, 3)
    for key in ("webp", "resave", "blur"):
        transform = TrainTransform(replace(plain, **{key: 1.0}), preprocess((96, 64)))
        first, again, other = transform(sample, 3), transform(sample, 3), transform(sample, 4)
        assert (first.image == again.image).all(), key
        assert (first.mask == before.mask).all(), key
        assert not (first.image == before.image).all(), key
        if key != "webp":  # one quality, and nothing else is drawn
            assert not (first.image == other.image).all(), key


def test_webp_is_that_of_a_file():
    sample = make_sample(64, 64, box=(20, 10, 60, 40))
    augment = AugmentConfig(jpeg_quality=[50, 50], jpeg_on="both", hflip=0.0, webp=1.0)
    got = pixels(TrainTransform(augment, preprocess((64, 64)))(sample, 0))
    buffer = io.BytesIO()
    Image.fromarray(sample.image).save(buffer, "WEBP", quality=50)
    assert np.abs(got - np.asarray(Image.open(buffer).convert("RGB"), float)).mean() < 1


def test_blur_and_resave_remove_fine_detail():
    sample = make_sample(96, 96, noise=True)

    def roughness(**keys):
        augment = AugmentConfig(jpeg_quality=[100, 100], jpeg_on="both", hflip=0.0, **keys)
        transform = TrainTransform(augment, preprocess((96, 96)))
        rows = [np.diff(pixels(transform(sample, seed)), axis=0) for seed in range(5)]
        return np.mean([np.abs(row).mean() for row in rows])

    assert roughness(blur=1.0) < 0.8 * roughness()
    assert roughness(resave=1.0) < 0.8 * roughness()


def test_twins_are_treated_alike():
    """What differs between a photograph and its edit must not be how they were saved."""
    fake, real = make_sample(64, 64, noise=True), make_sample(64, 64, label=0, noise=True)
    keys = {"webp": 0.5, "resave": 0.5, "blur": 0.5, "jpeg_quality": [30, 100], "jpeg_on": "both"}
    transform = TrainTransform(AugmentConfig(**keys), preprocess())
    for seed in range(12):
        assert (transform(fake, seed).image == transform(real, seed).image).all()


def test_what_is_not_compressed_is_not_resaved_either():
    augment = AugmentConfig(jpeg_on="fake", resave=1.0, webp=1.0, hflip=0.0)
    sample = make_sample(64, 64, label=0, noise=True)
    got = pixels(TrainTransform(augment, preprocess())(sample, 0))
    assert np.abs(got - sample.image).max() < 1e-3
