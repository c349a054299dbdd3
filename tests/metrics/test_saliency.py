"""Saliency measures against loops, scipy, scikit-learn, enumeration and, if there, pysaliency."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from artifactnet.metrics.saliency import auc_judd, cc, fixations, kld, mse, nss, sim
from artifactnet.types import ArtifactNetError

EPSILON = 2.2204e-16
PYSALIENCY = "pysaliency cannot be imported"


def kld_by_loops(p, q):
    p_sum, q_sum = math.fsum(p.flat), math.fsum(q.flat)
    total = []
    for a, b in zip(p.flat, q.flat, strict=True):
        a, b = a / p_sum, b / q_sum
        total.append(b * math.log(EPSILON + b / (a + EPSILON)))
    return math.fsum(total)


def sim_by_loops(p, q):
    p_sum, q_sum = math.fsum(p.flat), math.fsum(q.flat)
    return math.fsum(min(a / p_sum, b / q_sum) for a, b in zip(p.flat, q.flat, strict=True))


def nss_by_loops(p, fixated):
    mean = math.fsum(p.flat) / p.size
    deviation = math.sqrt(math.fsum((a - mean) ** 2 for a in p.flat) / p.size)
    values = [(a - mean) / deviation for a, f in zip(p.flat, fixated.flat, strict=True) if f]
    return math.fsum(values) / len(values)


def judd_by_loops(values, fixated):
    """Judd's code for maps without ties: a threshold at every fixation, trapezoids between."""
    hits = sorted((v for v, f in zip(values, fixated, strict=True) if f), reverse=True)
    others = len(values) - len(hits)
    points = [(0.0, 0.0)]
    for number, threshold in enumerate(hits, start=1):
        above = sum(v >= threshold for v in values)
        points.append(((above - number) / others, number / len(hits)))
    points.append((1.0, 1.0))
    return math.fsum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in itertools.pairwise(points))


def judd_over_all_orders(values, fixated):
    """Mean of `judd_by_loops` over every way to break ties, as infinitely small noise would."""
    areas = []
    for noise in itertools.permutations(range(len(values))):
        order = sorted(zip(values, noise, strict=True))
        ranks = [order.index(pair) for pair in zip(values, noise, strict=True)]
        areas.append(judd_by_loops(ranks, fixated))
    return math.fsum(areas) / len(areas)


def maps(seed, shape=(3, 12, 15), levels=None):
    """Random predictions, and annotations with zeros; ``levels`` makes ties."""
    rng = np.random.default_rng(seed)
    predicted, true = rng.random(shape), np.maximum(rng.random(shape) - 0.6, 0)
    if levels is not None:
        predicted = np.floor(predicted * levels) / levels
    return predicted, true


def tensors(*arrays):
    return [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]


@pytest.mark.parametrize("seed", range(4))
def test_every_measure_equals_its_definition(seed):
    predicted, true = maps(seed, levels=[None, 4, 50, None][seed])
    p, q = tensors(predicted, true)
    looked = fixations(q)
    found = {
        "mse": (mse(p, q), lambda a, b, f: np.mean((a - b) ** 2)),
        "kld": (kld(p, q), lambda a, b, f: kld_by_loops(a, b)),
        "sim": (sim(p, q), lambda a, b, f: sim_by_loops(a, b)),
        "cc": (cc(p, q), lambda a, b, f: stats.pearsonr(a.ravel(), b.ravel()).statistic),
        "nss": (nss(p, looked), lambda a, b, f: nss_by_loops(a, f)),
        "auc": (auc_judd(p, looked), lambda a, b, f: judd_by_loops(a.ravel(), f.ravel())),
    }
    for name, (values, reference) in found.items():
        assert values.dtype == torch.float64, name
        if name == "auc" and seed in (1, 2):  # with ties: see below
            continue
        for i, value in enumerate(values.tolist()):
            expected = reference(predicted[i], true[i], true[i] > 0.5 * true[i].max())
            assert value == pytest.approx(expected, abs=1e-9), name
    for i in range(3):
        for measure, second in ((kld, q), (cc, q), (sim, q), (nss, looked), (auc_judd, looked)):
            assert float(measure(p[i], second[i])) == pytest.approx(measure(p, second)[i].item())
            assert measure(p[:0], second[:0]).shape == (0,)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(0, 2), min_size=2, max_size=5).flatmap(
        lambda values: st.tuples(
            st.just(values), st.lists(st.booleans(), min_size=len(values), max_size=len(values))
        )
    )
)
def test_area_is_the_mean_over_all_orders_of_ties(case):
    values, fixated = case
    p, looked = torch.tensor([values]) / 4, torch.tensor([fixated])
    value = float(auc_judd(p, looked))
    if all(fixated) or not any(fixated):
        assert math.isnan(value)
    elif len(set(values)) == 1:
        hits = sum(fixated)
        assert value == pytest.approx(0.5 + 0.5 / (hits + 1), abs=1e-12)
    else:
        assert value == pytest.approx(judd_over_all_orders(values, fixated), abs=1e-12)


@pytest.mark.parametrize("levels", [None, 5])
def test_area_exceeds_the_full_roc_curves_by_at_most_half_a_fixation(levels):
    predicted, true = maps(7, levels=levels)
    p, q = tensors(predicted, true)
    looked = fixations(q)
    for i, value in enumerate(auc_judd(p, looked).tolist()):
        full = roc_auc_score(looked[i].flatten().numpy(), predicted[i].ravel())
        assert 0 < value - full <= 0.5 / int(looked[i].sum())


@pytest.mark.filterwarnings("ignore:divide by zero")  # its own, at log 0
def test_pysaliency_agrees(monkeypatch):
    metrics = pytest.importorskip("pysaliency.metrics", reason=PYSALIENCY, exc_type=ImportError)
    roc = pytest.importorskip("pysaliency.roc", reason=PYSALIENCY, exc_type=ImportError)
    monkeypatch.setattr(np, "trapz", np.trapezoid, raising=False)  # its name before numpy 2
    predicted, true = maps(3)
    predicted[0, :4] = 0
    p, q = tensors(predicted, true)
    looked = fixations(q)
    found = [measure(p, q).tolist() for measure in (kld, cc, sim)]
    scan = nss(p, looked).tolist()
    for i in range(len(predicted)):
        a, b = predicted[i], true[i]
        assert found[0][i] == pytest.approx(metrics.MIT_KLDiv(a, b), abs=1e-6)
        assert found[1][i] == pytest.approx(metrics.CC(a, b), abs=1e-6)
        assert found[2][i] == pytest.approx(metrics.SIM(a, b), abs=1e-6)
        inside = looked[i].numpy()
        ys, xs = np.nonzero(inside)
        assert scan[i] == pytest.approx(metrics.NSS(a, xs, ys).mean(), abs=1e-6)
        area, _, _ = roc.general_roc(a[inside], a[~inside], judd=1)
        assert float(auc_judd(p, looked)[i]) == pytest.approx(area, abs=1e-6)


@pytest.mark.parametrize("height", [0.0, 0.3, 1.0])
def test_a_constant_prediction_is_the_uniform_map(height):
    _, true = maps(2)
    (q,) = tensors(true)
    p, uniform = torch.full_like(q, height), np.full(true.shape[1:], 1 / true[0].size)
    looked = fixations(q)
    assert cc(p, q).tolist() == [0, 0, 0]
    assert nss(p, looked).tolist() == [0, 0, 0]
    for i in range(3):
        assert float(kld(p, q)[i]) == pytest.approx(kld_by_loops(uniform, true[i]), abs=1e-9)
        assert float(sim(p, q)[i]) == pytest.approx(sim_by_loops(uniform, true[i]), abs=1e-9)
        hits = int(looked[i].sum())
        assert float(auc_judd(p, looked)[i]) == pytest.approx(0.5 + 0.5 / (hits + 1), abs=1e-12)
    rounded = p + 1e-8 * q  # as by bilinear weights; without a height it is a map of its own
    assert cc(rounded, q).tolist() == pytest.approx([0 if height else 1] * 3, abs=1e-9)


def test_what_cannot_be_measured_is_nan():
    predicted, _ = maps(0)
    (p,) = tensors(predicted)
    empty, full = torch.zeros_like(p), torch.ones_like(p)
    for measure in (kld, sim, cc):
        assert measure(p, empty).isnan().all(), measure
    assert cc(p, full).isnan().all()
    assert not kld(p, full).isnan().any()
    assert not fixations(empty).any()
    for measure in (nss, auc_judd):
        assert measure(p, fixations(empty)).isnan().all(), measure
    assert auc_judd(p, fixations(full)).isnan().all()
    assert nss(p, fixations(full)).abs().max() < 1e-12
    assert not mse(p, empty).isnan().any()


def test_fixations_are_relative_to_the_maximum():
    target = torch.tensor([[[0.0, 0.1, 0.2, 0.15]], [[1.0, 0.5, 0.51, 0.0]]])
    assert fixations(target).int().tolist() == [[[0, 0, 1, 1]], [[1, 0, 1, 0]]]
    assert fixations(target, 0).sum().item() == 6
    for share in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match="share"):
            fixations(target, share)
    with pytest.raises(ValueError, match="negative"):
        fixations(-target)


@pytest.mark.parametrize("measure", [mse, kld, cc, sim, nss, auc_judd])
def test_bad_maps_are_refused(measure):
    points = measure in (nss, auc_judd)
    p = torch.rand(2, 4, 4)
    target = torch.ones(2, 4, 4, dtype=torch.bool) if points else torch.rand(2, 4, 4)
    for wrong in (p[:1], p[:, :3], p[None]):
        with pytest.raises(ValueError, match="one shape"):
            measure(wrong, target)
    with pytest.raises(ValueError, match="no pixels"):
        measure(p[:, :0], target[:, :0])
    broken = p.clone()
    broken[1, 2, 3] = math.nan
    with pytest.raises(ArtifactNetError, match="not finite"):
        measure(broken, target)
    with pytest.raises(ValueError, match="bool" if points else "not finite"):
        measure(p, broken)
    if measure in (kld, sim):
        with pytest.raises(ValueError, match="negative"):
            measure(p - 1, target)
