"""Masks of the alignment controls: their shape and place, and that nothing else changes."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from skimage.morphology import convex_hull_image

from artifactnet.config import AlignmentConfig, AugmentConfig, ConfigError, load
from artifactnet.data.alignment_masks import (
    AlignmentMasks,
    count_without_mask,
    felzenszwalb_labels,
    largest_benign_segment,
    random_polygon,
    spectral_saliency,
    write_segments,
)
from artifactnet.data.datamodule import DataModule, build_splits
from artifactnet.data.dataset import DetectionDataset
from artifactnet.data.transforms import Preprocess, TrainTransform
from artifactnet.types import Annotation, ArtifactNetError, Record, Sample

SIZE = (40, 56)


def record(uid="7", generator="sdxl", annotation=Annotation.MASK):
    return Record(uid, 1, generator, annotation, f"{uid}.png")


def sample(mask, uid="7", image=None):
    state = Annotation.MASK if mask is not None else Annotation.CLEAN
    if image is None:
        image = np.random.default_rng(1).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    return Sample(record(uid, annotation=state), image, mask)


def block(rows, columns, value=4):
    mask = np.zeros(SIZE, np.uint8)
    mask[rows, columns] = value
    return mask


ARTIFACT = block(slice(5, 15), slice(10, 30))


class Listed:
    """A source of given samples."""

    def __init__(self, *samples):
        self.samples = samples
        self.records = [each.record for each in samples]

    def load(self, index):
        return self.samples[index]


# --- random polygons -----------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(64, 128), st.floats(0.6, 1.7), st.floats(0, 0.4), st.integers(0, 2**32))
def test_polygons_are_convex_and_of_their_area(height, aspect, share, seed):
    width = round(aspect * height)
    area = round(share * height * width)
    mask = random_polygon((height, width), area, np.random.default_rng(seed))
    wanted = min(max(area, 0.01 * height * width), 0.5 * height * width)
    assert mask.shape == (height, width)
    assert mask.dtype == bool
    assert mask.sum() == pytest.approx(wanted, rel=0.05)
    hull = convex_hull_image(mask, offset_coordinates=False)
    assert mask.sum() <= hull.sum() <= 1.02 * mask.sum()


def test_polygons_lie_anywhere():
    rng = np.random.default_rng(0)
    masks = [random_polygon((60, 60), 400, rng) for _ in range(300)]
    places = np.array([np.argwhere(mask).mean(axis=0) for mask in masks])
    assert 25 < places.mean(axis=0).min() <= places.mean(axis=0).max() < 35
    assert places.std(axis=0).min() > 7
    touched = np.any(masks, axis=0)
    assert all(edge.any() for edge in (touched[0], touched[-1], touched[:, 0], touched[:, -1]))


def test_an_image_of_a_few_pixels_has_no_polygon():
    assert random_polygon((1, 1), 1, np.random.default_rng(0)) is None


def test_a_polygon_belongs_to_seed_generator_and_uid():
    def mask(seed, **names):
        masks = AlignmentMasks(AlignmentConfig(mask="random"), seed, [])
        return masks.replace(replace(sample(ARTIFACT), record=record(**names))).mask

    first = mask(0)
    assert set(np.unique(first)) == {0, 1}
    assert np.count_nonzero(first) == pytest.approx(200, rel=0.05)
    np.testing.assert_array_equal(mask(0), first)
    for other in (mask(1), mask(0, uid="8"), mask(0, generator="flux")):
        assert (other != first).any()
    # the same on every machine: from the hash of names and numpy's PCG64
    rows, columns = np.nonzero(first)
    found = rows.min(), rows.max(), columns.min(), columns.max()
    assert found == (18, 33, 21, 41)


# --- benign segments -----------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 12), st.floats(0, 0.4))
def test_the_largest_benign_segment_is_that_of_a_loop(seed, count, share):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, count + 1, (6, 7))
    labels = np.kron(coarse, np.ones((3, 3), int))
    artifacts = np.kron(rng.random((6, 7)) < share, np.ones((3, 3), bool))
    best, size = None, 0
    for label in range(1, count + 1):
        inside = [(y, x) for y in range(18) for x in range(21) if labels[y, x] == label]
        if len(inside) > size and not any(artifacts[place] for place in inside):
            best, size = label, len(inside)
    found = largest_benign_segment(labels, artifacts)
    masks = [labels == label for label in range(1, count + 1)]
    apart = largest_benign_segment(masks, artifacts)
    if best is None:
        assert found is None
        assert apart is None
    else:
        np.testing.assert_array_equal(found, labels == best)
        np.testing.assert_array_equal(apart, labels == best)


def test_segments_may_overlap_and_of_equals_the_first_counts():
    one, two = block(slice(20, 30), slice(0, 20)) > 0, block(slice(25, 35), slice(10, 30)) > 0
    touching = block(slice(10, 40), slice(0, 50)) > 0
    found = largest_benign_segment([touching, one, two], ARTIFACT > 0)
    np.testing.assert_array_equal(found, one)


@pytest.mark.parametrize("apart", [False, True])
def test_segments_from_files(tmp_path, apart):
    """Labels in one file of 16 bits, or masks in a folder."""
    labels = np.zeros(SIZE, np.int64)
    labels[20:30] = 300  # 560 pixels
    labels[30:] = 7  # 560 as well, of the smaller label
    labels[:5] = 9
    labels[5:10, 10:30] = 9  # touches the artifact
    made = [labels == label for label in (7, 9, 300)] if apart else labels
    write_segments(Listed(sample(ARTIFACT)), tmp_path, lambda image: made)
    assert (tmp_path / "sdxl" / "7.png").is_file() != apart
    config = AlignmentConfig(mask="benign", segments=str(tmp_path))
    masks = AlignmentMasks(config, 0, [record(), record("8")])
    found = masks.replace(sample(ARTIFACT))
    np.testing.assert_array_equal(found.mask, (labels == 7).astype(np.uint8))
    assert found.record.annotation is Annotation.MASK

    everywhere = np.ones(SIZE, np.uint8)
    for other in (sample(everywhere), sample(ARTIFACT, uid="8")):  # no free segment; no file
        nothing = masks.replace(other)
        assert nothing.mask is None
        assert nothing.record.annotation is Annotation.NONE
    source = Listed(sample(ARTIFACT), sample(ARTIFACT, uid="8"), sample(everywhere))
    assert count_without_mask(source, masks) == 2


def test_masks_of_an_image_are_written_together(tmp_path):
    """What a killed process left is no set of masks."""

    def killed(image):
        yield np.ones(SIZE, bool)
        raise KeyboardInterrupt

    source = Listed(sample(ARTIFACT))
    with pytest.raises(KeyboardInterrupt):
        write_segments(source, tmp_path, killed)
    assert not (tmp_path / "sdxl" / "7").exists()
    write_segments(source, tmp_path, lambda image: [ARTIFACT == 0])
    assert [p.name for p in (tmp_path / "sdxl").iterdir()] == ["7"]
    assert [p.name for p in (tmp_path / "sdxl" / "7").iterdir()] == ["0000.png"]


def test_of_two_processes_the_first_writes(tmp_path):
    def slow(image):
        yield ARTIFACT == 0
        write_segments(source, tmp_path, lambda image: [ARTIFACT > 0] * 2)

    source = Listed(sample(ARTIFACT))
    write_segments(source, tmp_path, slow)
    assert [p.name for p in (tmp_path / "sdxl").iterdir()] == ["7"]
    assert len(list((tmp_path / "sdxl" / "7").iterdir())) == 2


def test_segments_are_made_once(tmp_path):
    image = np.full((*SIZE, 3), 200, np.uint8)
    image[:, 28:] = (20, 30, 90)
    labels = felzenszwalb_labels(image)
    assert labels.min() == 1
    assert (labels[:, 4:24] == labels[0, 4]).all()
    assert labels[0, 4] != labels[0, 50]
    clean = Sample(record("c", annotation=Annotation.CLEAN), image)
    source = Listed(sample(ARTIFACT, "7", image), clean, sample(ARTIFACT, "a/8", image))
    write_segments(source, tmp_path, felzenszwalb_labels)
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.png")) == [
        "sdxl/7.png",
        "sdxl/a/8.png",
    ]
    write_segments(source, tmp_path, None)  # calling it would fail
    config = AlignmentConfig(mask="benign", segments=str(tmp_path))
    found = AlignmentMasks(config, 0, source.records).replace(source.load(0))
    np.testing.assert_array_equal(found.mask, (labels == labels[0, 50]).astype(np.uint8))


# --- saliency ------------------------------------------------------------------------------------


def test_the_spectral_residual_is_that_of_scipy():
    rng = np.random.default_rng(3)
    image = rng.integers(90, 110, (64, 64, 3), dtype=np.uint8)
    image[20:30, 35:50] = (250, 20, 20)
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float64)
    spectrum = np.fft.fft2(gray)
    logarithm = np.log(np.abs(spectrum))
    residual = logarithm - ndimage.uniform_filter(logarithm, 3, mode="mirror")
    back = np.abs(np.fft.ifft2(np.exp(residual) * spectrum / np.abs(spectrum))) ** 2
    blurred = ndimage.gaussian_filter(back, 2.5, mode="mirror")
    expected = np.zeros(64 * 64, bool)
    expected[np.argsort(-blurred.ravel())[:150]] = True
    found = spectral_saliency(image, 150)
    assert found.sum() == 150
    both = (found & expected.reshape(64, 64)).sum()
    assert both >= 145


@pytest.mark.parametrize(("area", "expected"), [(1, 22), (500, 500), (2200, 1120)])
def test_saliency_has_the_area_of_the_artifacts(area, expected):
    assert spectral_saliency(sample(None).image, area).sum() == expected


def test_an_image_of_one_colour_has_no_saliency():
    flat = sample(ARTIFACT, image=np.full((*SIZE, 3), 7, np.uint8))
    found = AlignmentMasks(AlignmentConfig(mask="saliency"), 0, []).replace(flat)
    assert found.mask is None
    assert found.record.annotation is Annotation.NONE


def test_maps_made_elsewhere(tmp_path):
    values = np.zeros((20, 28), np.uint8)  # half the size
    values[4:8, 6:12] = 128
    values[12:16] = 127
    (tmp_path / "sdxl").mkdir()
    Image.fromarray(values).save(tmp_path / "sdxl" / "7.png")
    Image.fromarray(np.zeros((20, 28), np.uint8)).save(tmp_path / "sdxl" / "8.png")
    Image.fromarray(np.zeros((30, 28), np.uint8)).save(tmp_path / "sdxl" / "9.png")
    config = AlignmentConfig(mask="saliency", saliency=str(tmp_path))
    masks = AlignmentMasks(config, 0, [record()])
    found = masks.replace(sample(ARTIFACT)).mask
    inner = block(slice(9, 15), slice(13, 23), 1)
    outer = block(slice(8, 16), slice(12, 24), 1)
    assert (found >= inner).all()
    assert (found <= outer).all()
    assert masks.replace(sample(ARTIFACT, uid="8")).mask is None  # empty
    assert masks.replace(sample(ARTIFACT, uid="10")).mask is None  # no map
    with pytest.raises(ArtifactNetError, match=r"9\.png: it is 28x30, its image .*56x40"):
        masks.replace(sample(ARTIFACT, uid="9"))


# --- in training ---------------------------------------------------------------------------------


def test_nothing_but_the_mask_changes():
    """The same crop, flips and colours; photographs and clean fakes as they were."""
    config = load("dinov2_align", ["data.demo_train=6", "data.demo_size=64"])
    source = build_splits(config.data, 0)["train"]
    augment = AugmentConfig(crop=True, crop_artifact=True, color=0.5, rotate=0.5, jpeg_on="none")
    preprocess = Preprocess((42, 42), "crop", [0.5] * 3, [0.5] * 3)
    transform = TrainTransform(augment, preprocess)
    other = AlignmentMasks(AlignmentConfig(mask="random"), 0, source.records)
    usual = DetectionDataset(source, preprocess, transform, 0, "raise", alike=True)
    changed = DetectionDataset(source, preprocess, transform, 0, "raise", True, other)
    moved = 0
    for index, item in enumerate(source.records):
        for epoch in range(3):
            a, b = usual[(epoch, index)], changed[(epoch, index)]
            torch.testing.assert_close(a.image, b.image, rtol=0, atol=0)
            if item.annotation is Annotation.MASK:
                assert b.record.annotation is Annotation.MASK
                moved += bool(((a.mask != 0) != (b.mask != 0)).any())
            else:
                assert not b.mask.any()
                assert b.record == item
    assert moved >= 12  # of 18; a crop may miss both


def test_evaluation_keeps_the_annotated_artifacts():
    config = load("dinov2_align", ["data.demo_train=4", "data.demo_val=3", "data.demo_size=64"])
    preprocess = Preprocess((64, 64), "stretch", [0.5] * 3, [0.5] * 3)
    other = AlignmentConfig(mask="saliency")
    data = DataModule(config.data, preprocess, 0, alignment=other)
    for loader, as_annotated in ((data.val_loader(), True), (data.train_loader(), False)):
        (batch,) = loader
        split = "val" if as_annotated else "train"
        shares = {r.uid + r.generator: data.splits[split].load(i).mask for i, r in
                  enumerate(data.splits[split].records)}  # fmt: skip
        same = [
            np.array_equal(mask.numpy() != 0, shares[r.uid + r.generator] != 0)
            for mask, r in zip(batch.mask, batch.record, strict=True)
            if r.label
        ]
        assert all(same) if as_annotated else not any(same)


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["benign", "saliency"])
def test_a_folder_without_a_file_that_fits_is_refused(tmp_path, kind):
    folder = tmp_path / "maps"
    folder.mkdir()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(folder / "other.png")
    key = "segments" if kind == "benign" else kind
    config = AlignmentConfig(**{"mask": kind, key: str(folder)})
    with pytest.raises(ArtifactNetError, match=rf"loss\.alignment\.{key}=.*maps: it holds no "):
        AlignmentMasks(config, 0, [record()])


def test_unusable_segments_are_named(tmp_path):
    config = AlignmentConfig(mask="benign", segments=str(tmp_path))
    write_segments(Listed(sample(ARTIFACT)), tmp_path, lambda image: np.zeros((4, 5), np.int64))
    masks = AlignmentMasks(config, 0, [record()])
    with pytest.raises(ArtifactNetError, match=r"sdxl/7\.png: it is 5x4, its image 56x40"):
        masks.replace(sample(ARTIFACT))
    (tmp_path / "sdxl" / "7.png").write_bytes(b"no image")
    with pytest.raises(ArtifactNetError, match=r"sdxl/7\.png: "):
        masks.replace(sample(ARTIFACT))
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(tmp_path / "sdxl" / "7.png", "JPEG")
    with pytest.raises(ArtifactNetError, match="labels are whole numbers from 0 in a PNG"):
        masks.replace(sample(ARTIFACT))
    with pytest.raises(ArtifactNetError, match=r"8\.png: no file of segments .*'\.\.' cannot name"):
        masks.replace(Sample(record("../8"), sample(None).image, ARTIFACT))


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        (["mask=benign"], r"loss\.alignment\.segments must name a folder"),
        (["segments=x"], r"loss\.alignment\.segments needs mask=benign"),
        (["saliency=x"], r"loss\.alignment\.saliency needs mask=saliency"),
        (["mask=random", "weight=0"], r"loss\.alignment\.mask needs loss\.alignment\.weight above"),
    ],
)
def test_keys_that_do_not_fit_together(keys, problem):
    with pytest.raises(ConfigError, match=problem):
        load("dinov2_align", [f"loss.alignment.{key}" for key in keys])


def test_unknown_masks_are_refused():
    with pytest.raises(ConfigError, match=r"loss\.alignment\.mask.*artifact, random, benign"):
        load("dinov2_align", ["loss.alignment.mask=nothing"])
