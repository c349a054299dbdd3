"""Comparing answers: against sums written out, and with every way to disagree."""

import math

import numpy as np
import pytest
import torch
from tiny_exports import pictures, student

from artifactnet.data.transforms import Preprocess
from artifactnet.exporters.checks import (
    FLAT,
    FLOAT_LIMITS,
    INT8_LIMITS,
    answers_of_file,
    answers_of_model,
    compare,
)
from artifactnet.exporters.graph import facts_of
from artifactnet.inference.backends.exported import to_frames


def answers(count=3, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "logit": rng.normal(size=count).astype(np.float32),
        "heatmap": rng.random((count, 4, 5), dtype=np.float32),
        "sigma": rng.random((count, 4, 5), dtype=np.float32) + 0.1,
        "score": rng.random(count, dtype=np.float32),
    }


def changed(name, value, place=0):
    """The same answers but for one number."""
    other = {key: array.copy() for key, array in answers().items()}
    other[name].ravel()[place] += value
    return other


def test_equal_answers_agree():
    found = compare(answers(), answers())
    assert set(found.differences) == {"probability", "heatmap", "sigma", "score"}
    assert max(found.differences.values()) == 0
    assert found.correlation == pytest.approx(1)
    assert found.problem(FLOAT_LIMITS) is None
    assert found.problem(INT8_LIMITS) is None


@pytest.mark.parametrize("name", ["heatmap", "sigma", "score"])
@pytest.mark.parametrize(("value", "fits"), [(9e-4, True), (1.1e-3, False), (-1.1e-3, False)])
def test_one_number_beyond_the_limit_is_enough(name, value, fits):
    problem = compare(answers(), changed(name, value)).problem(FLOAT_LIMITS)
    assert (problem is None) == fits
    assert fits or name in problem


def test_logits_are_compared_as_probabilities():
    ours, theirs = answers(), changed("logit", 0.5)
    first, second = (1 / (1 + math.exp(-float(x["logit"][0]))) for x in (ours, theirs))
    found = compare(ours, theirs)
    assert found.differences["probability"] == pytest.approx(abs(first - second), abs=1e-7)


@pytest.mark.parametrize("name", ["logit", "heatmap", "sigma", "score"])
@pytest.mark.parametrize("limits", [FLOAT_LIMITS, INT8_LIMITS], ids=["float", "int8"])
def test_not_a_number_never_agrees(name, limits):
    assert compare(answers(), changed(name, np.nan)).problem(limits)


def test_int8_goes_by_correlation():
    noise = np.random.default_rng(1).normal(0, 0.5, (3, 4, 5)).astype(np.float32)
    theirs = answers() | {"heatmap": answers()["heatmap"] + noise}
    expected = [
        np.corrcoef(a.ravel(), b.ravel())[0, 1]
        for a, b in zip(answers()["heatmap"], theirs["heatmap"], strict=True)
    ]
    found = compare(answers(), theirs)
    assert found.correlation == pytest.approx(np.mean(expected), abs=1e-6)
    assert "mean CC" in found.problem(INT8_LIMITS)


def test_flat_maps_go_by_difference():
    ours = answers()
    ours["heatmap"][1] = 0.2
    ours["heatmap"][1, 0, 0] += FLAT  # noise, of which a correlation would be made
    theirs = {key: array.copy() for key, array in ours.items()}
    theirs["heatmap"][1] = 0.2
    found = compare(ours, theirs)
    assert (found.flat, found.correlation) == (1, pytest.approx(1))
    assert found.problem(INT8_LIMITS) is None
    theirs["heatmap"][1] = 0.3
    assert "flat heatmaps" in compare(ours, theirs).problem(INT8_LIMITS)


def test_without_maps_there_is_no_correlation():
    alone = {"logit": np.zeros(2, np.float32)}
    assert compare(alone, alone).correlation is None
    assert "CC" not in str(compare(alone, alone))


def test_other_shapes_are_an_error():
    short = {name: array[:2] for name, array in answers().items()}
    with pytest.raises(ValueError, match="the model answers"):
        compare(answers(), short)


def test_the_model_is_asked_through_its_own_preprocessing():
    """The reference normalises by itself: what is inside the graph is not its own judge."""
    model = student(mean=[0.2, 0.5, 0.9], std=[0.3, 0.1, 0.4])
    preprocess = Preprocess(model.image_size, "stretch", model.mean, model.std)
    images = pictures(3)
    tensors = [preprocess.image(image)[0] for image in images]
    frames = [to_frames(tensor[None], model.mean, model.std)[0] for tensor in tensors]
    found = answers_of_model(model, facts_of(model), frames)
    for k, tensor in enumerate(tensors):
        with torch.no_grad():
            expected = model(tensor[None], heatmap=True)
        assert found["logit"][k] == pytest.approx(float(expected.logit), abs=1e-4)
        np.testing.assert_allclose(found["heatmap"][k], expected.heatmap[0].numpy(), atol=1e-4)
    assert not model.training


class Counting:
    """A session that notes the size of its batches."""

    def __init__(self, facts):
        self.facts, self.sizes = facts, []

    def run(self, frames):
        self.sizes.append(len(frames))
        return [frames.reshape(len(frames), -1)[:, 0].astype(np.float32)]


def test_files_are_tried_with_batches_of_several_sizes():
    session = Counting(facts_of(student(), heatmap=False))
    frames = [np.full((2, 2, 3), k, np.uint8) for k in range(22)]
    found = answers_of_file(session, frames)
    assert session.sizes == [1, 3, 8, 8, 2]
    assert found["logit"].tolist() == list(range(22))
