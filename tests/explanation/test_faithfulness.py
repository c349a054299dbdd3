"""Deletion and insertion against loops over pixels."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.metrics import auc
from tiny_models import tiny
from torch import nn

from artifactnet.config import HeatmapConfig
from artifactnet.explanation.detector import Classifier, OwnDetector
from artifactnet.explanation.faithfulness import blurred, faithfulness, pixel_order
from artifactnet.inference.predictor import Predictor
from artifactnet.types import ArtifactNetError

SIZE = (9, 12)


class Linear(nn.Module):
    """Logit: weighted sum of all values of the picture; remembers what it saw."""

    def __init__(self, weight, bias=0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.as_tensor(weight, dtype=torch.float32))
        self.bias = nn.Parameter(torch.tensor(float(bias)))
        self.seen = []
        self.modes = []

    def forward(self, images):
        self.seen += [image.clone() for image in images]
        self.modes.append((self.training, torch.is_grad_enabled(), self.weight.requires_grad))
        return (images * self.weight).sum(dim=(1, 2, 3)) + self.bias


def detector_of(net, size=SIZE):
    """Pixels come to it as value / 255, at their own size."""
    return Classifier(net, size, (0, 0, 0), (1, 1, 1))


def random_case(seed, size=SIZE, levels=6):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    heatmap = (rng.integers(0, levels, size) / levels).astype(np.float32)
    return pixels, heatmap, rng.normal(0, 0.2, (3, *size))


def sigmoid(value):
    return 1 / (1 + np.exp(-value))


def curve_by_loops(start, end, order, steps, weight):
    """Pixels one by one, whole pictures in float64."""
    curve = []
    for step in range(steps + 1):
        picture = start.astype(np.float64).copy()
        for position in order[: len(order) * step // steps]:
            y, x = divmod(int(position), start.shape[1])
            for channel in range(3):
                picture[y, x, channel] = end[y, x, channel]
        curve.append(sigmoid((picture.transpose(2, 0, 1) / 255 * weight).sum()))
    return curve


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("steps", [1, 7, 20])
def test_curves_by_loops(seed, steps):
    pixels, heatmap, weight = random_case(seed)
    order = pixel_order(heatmap, seed)
    mean = np.zeros_like(pixels)
    for channel in range(3):
        mean[..., channel] = round(float(pixels[..., channel].mean()))
    found = faithfulness(detector_of(Linear(weight)), pixels, heatmap, steps=steps, seed=seed)
    deletion = curve_by_loops(pixels, mean, order, steps, weight)
    insertion = curve_by_loops(blurred(pixels), pixels, order, steps, weight)
    assert found.deletion == pytest.approx(deletion, abs=1e-5)
    assert found.insertion == pytest.approx(insertion, abs=1e-5)
    share = np.linspace(0, 1, steps + 1)
    assert found.deletion_area == pytest.approx(auc(share, found.deletion), abs=1e-12)
    assert found.insertion_area == pytest.approx(auc(share, found.insertion), abs=1e-12)
    assert found.deletion[0] == found.insertion[-1]


def test_the_largest_values_come_first_and_ties_are_in_no_order():
    heatmap = np.array([[0.5, 0.9, 0.5], [0.1, 0.5, 1.0]], np.float32)
    order = pixel_order(heatmap).tolist()
    assert order[:2] == [5, 1]
    assert order[-1] == 3
    assert sorted(order[2:5]) == [0, 2, 4]
    constant = np.zeros((40, 50), np.float32)
    order = pixel_order(constant)
    assert sorted(order.tolist()) == list(range(2000))
    early = order[:500] // 50  # rows of the first quarter: everywhere, not the top ten
    assert np.bincount(early // 10, minlength=4).min() > 90
    assert pixel_order(constant + 1).tolist() == order.tolist()
    assert pixel_order(constant, seed=1).tolist() != order.tolist()


def test_what_the_model_is_shown():
    """The image's own mean colour, which after normalisation is not zero."""
    pixels, heatmap, weight = random_case(3)
    before = pixels.copy()
    net = Linear(weight).train()
    net.bias.requires_grad_(False)
    net.weight.grad = gradient = torch.ones_like(net.weight)
    faithfulness(detector_of(net), pixels, heatmap, steps=4)
    assert set(net.modes) == {(False, False, False)}
    assert (net.training, net.weight.requires_grad, net.bias.requires_grad) == (True, True, False)
    assert net.weight.grad is gradient  # the model is left as it was
    assert len(net.seen) == 5 + 4
    shown = [np.rint(image.numpy().transpose(1, 2, 0) * 255) for image in net.seen]
    assert (shown[0] == pixels).all()
    assert np.ptp(shown[4], axis=(0, 1)).tolist() == [0, 0, 0]
    assert abs(shown[4][0, 0] - pixels.mean(axis=(0, 1))).max() <= 0.5
    assert (shown[5] == blurred(pixels)).all()
    changed = [(a != pixels).any(axis=2).sum() for a in shown[:5]]
    assert changed[0] == 0
    assert all(a < b for a, b in pairwise(changed))
    assert (pixels == before).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (500, 3), (37, 64), (900, 1200)])
def test_a_blurred_image_keeps_its_colour_and_loses_its_detail(size):
    rows, columns = np.indices(size)
    board = np.repeat(((rows + columns) % 2 * 200)[..., None], 3, axis=2).astype(np.uint8)
    board[..., 1] = 90
    soft = blurred(board)
    assert soft.shape == board.shape
    assert soft.dtype == np.uint8
    assert (soft[..., 1] == 90).all()
    if min(size) > 30:
        assert abs(soft[..., 0].astype(float) - 100).max() < 12


def test_bad_input_is_refused():
    pixels, heatmap, weight = random_case(0)
    detector = detector_of(Linear(weight))
    with pytest.raises(ValueError, match=r"\(12, 9\)"):
        faithfulness(detector, pixels, heatmap.T)
    for options in ({"steps": 0}, {"batch_size": 0}):
        with pytest.raises(ValueError, match="1 or more"):
            faithfulness(detector, pixels, heatmap, **options)
    heatmap[0, 0] = np.nan
    with pytest.raises(ArtifactNetError, match="not finite"):
        faithfulness(detector, pixels, heatmap)
    with pytest.raises(ArtifactNetError, match="not a number"):
        faithfulness(detector_of(Linear(weight * np.nan)), pixels, np.zeros(SIZE))


def test_an_adaptive_mapper_is_followed_on_the_grid_that_predict_uses():
    heatmap = HeatmapConfig(head="mapper", width=16, heads=2, tile=32, max_tiles=4, adaptive=True)
    kwargs = {"embed_dim": 24, "depth": 4, "num_heads": 2}
    model = tiny(size=(64, 64), kwargs=kwargs, heatmap=heatmap)
    pixels = random_case(0, (30, 120))[0]
    curves = faithfulness(OwnDetector(model), pixels, np.zeros((30, 120), np.float32), steps=1)
    assert curves.deletion[0] == pytest.approx(Predictor(model).predict(pixels).probability)
