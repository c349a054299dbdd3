"""A teacher's maps go through the same geometry as the image."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifactnet.config import AugmentConfig
from artifactnet.data.dataset import collate
from artifactnet.data.transforms import Preprocess, TrainTransform
from artifactnet.types import Annotation, ArtifactNetError, Record, Sample, TeacherAnswer

RECORD = Record("u", 1, "gan", Annotation.NONE, "folder/x.png")


def sample(height=48, width=64, box=(8, 16, 24, 48)):
    """A bright box that the teacher marks, sure of it inside."""
    image = np.zeros((height, width, 3), np.uint8)
    heatmap, sigma = np.zeros((2, height, width), np.float32)
    top, left, bottom, right = box
    image[top:bottom, left:right] = 255
    heatmap[top:bottom, left:right] = 1
    sigma = np.where(heatmap > 0, 0.25, 0.75).astype(np.float32)
    return Sample(RECORD, image, teacher=TeacherAnswer(heatmap, sigma, 0.3, 1.5))


def preprocess(size=(32, 32), resize="pad"):
    return Preprocess(size, resize, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), resize=st.sampled_from(["stretch", "pad", "crop", "reflect"]))
def test_maps_stay_on_the_image(seed, resize):
    augment = AugmentConfig(jpeg_on="none", hflip=0.5, vflip=0.5, rotate=0.5)
    example = TrainTransform(augment, preprocess(resize=resize))(sample(), seed)
    bright = example.image[0].numpy()
    assert np.abs(bright - example.teacher.heatmap).mean() < 0.03
    inside, outside = bright > 0.99, bright < 0.01
    sigma = example.teacher.sigma
    assert np.median(sigma[inside]) == pytest.approx(0.25, abs=0.05)
    assert sigma[outside].min() > 0.3
    assert sigma.min() > 0  # padding too
    assert (example.teacher.score, example.teacher.logit) == (0.3, 1.5)


def test_crops_cut_the_maps_as_well():
    augment = AugmentConfig(jpeg_on="none", crop=True, crop_size=[16, 16])
    for seed in range(5):
        example = TrainTransform(augment, preprocess())(sample(), seed)
        np.testing.assert_allclose(example.image[0].numpy(), example.teacher.heatmap, atol=1e-6)


def test_batches_carry_the_answers():
    pre = preprocess()
    batch = collate([pre.sample(sample()), pre.sample(sample())])
    assert batch.teacher.heatmap.shape == batch.teacher.sigma.shape == (2, 32, 32)
    assert batch.teacher.logit.tolist() == [1.5, 1.5]
    assert math.isnan(batch.score[0])
    moved = batch.to("cpu")
    assert moved.teacher.heatmap.equal(batch.teacher.heatmap)
    assert moved.record is batch.record
    known = sample()
    known.teacher, known.score = None, 0.5
    batch = collate([pre.sample(known)])
    assert batch.teacher is None
    assert batch.score.tolist() == [0.5]


def test_maps_of_another_size_are_refused():
    wrong = sample()
    wrong.teacher.sigma = wrong.teacher.sigma[:-1]
    with pytest.raises(ArtifactNetError, match=r"x.png: the teacher's sigma has shape \(47, 64\)"):
        preprocess().sample(wrong)
