"""Who takes part in which saliency figure, and what is averaged."""

import json
import math

import numpy as np
import pytest
import torch
from scipy import stats

from artifactnet.metrics.saliency import (
    EMPTY,
    FIGURES,
    SaliencyMetric,
    TeacherAgreementMetric,
    auc_judd,
    cc,
    fixations,
    kld,
    nss,
    sim,
)
from artifactnet.types import Annotation, ArtifactNetError

NONE, CLEAN, MASK = (int(state) for state in Annotation)


def batch(seed=0, count=9, size=(8, 10)):
    """Heatmaps, targets and states: a third empty, a third marked, a third nobody looked at."""
    generator = torch.Generator().manual_seed(seed)
    heatmap = torch.rand(count, *size, generator=generator)
    target = (torch.rand(count, *size, generator=generator) - 0.7).clamp_min(0)
    annotation = torch.tensor([CLEAN, MASK, NONE]).repeat(count)[:count]
    target[annotation == CLEAN] = 0
    return heatmap, target, annotation


def test_only_marked_images_have_saliency_figures():
    heatmap, target, annotation = batch()
    metric = SaliencyMetric()
    for part in (slice(0, 4), slice(4, 5), slice(5, 9)):  # batches without some kind among them
        metric.update(heatmap[part], target[part], annotation[part])
    found = metric.compute()
    errors = ((heatmap.double() - target.double()) ** 2).mean((1, 2))
    assert found["MSE"] == pytest.approx(float(errors[annotation != NONE].mean()), abs=1e-12)
    assert found[EMPTY] == pytest.approx(float(errors[annotation == CLEAN].mean()), abs=1e-12)
    p, q = heatmap[annotation == MASK], target[annotation == MASK]
    expected = {
        "KLD": kld(p, q),
        "CC": cc(p, q),
        "SIM": sim(p, q),
        "AUC-Judd": auc_judd(p, fixations(q)),
        "NSS": nss(p, fixations(q)),
    }
    for name, values in expected.items():
        assert found[name] == pytest.approx(float(values.mean()), abs=1e-12), name
    assert (found["images"], found["empty_images"], found["unannotated_images"]) == (6, 3, 3)
    assert found["counts"] == {"MSE": 6, **dict.fromkeys(FIGURES[1:], 3)}
    json.dumps(found, allow_nan=False)


def test_figures_that_no_image_has_are_none():
    metric = SaliencyMetric()
    metric.update(torch.rand(2, 4, 4), torch.zeros(2, 4, 4), torch.tensor([CLEAN, NONE]))
    result = metric.compute()
    assert result["MSE"] == result[EMPTY]
    assert [result[name] for name in FIGURES[2:]] == [None] * 5
    metric.reset()
    metric.update(torch.rand(2, 4, 4), torch.zeros(2, 4, 4), torch.tensor([NONE, NONE]))
    result = metric.compute()
    assert [result[name] for name in FIGURES] == [None] * 7
    assert (result["images"], result["unannotated_images"]) == (0, 2)
    metric.reset()
    target = torch.ones(2, 4, 4)  # all artifact: neither CC nor AUC
    target[1, :2] = 0
    metric.update(torch.rand(2, 4, 4), target, torch.tensor([MASK, MASK]))
    counts = metric.compute()["counts"]
    assert counts == {"MSE": 2, EMPTY: 0, "KLD": 2, "CC": 1, "SIM": 2, "AUC-Judd": 1, "NSS": 2}


def test_heatmaps_are_resized_to_the_target():
    heatmap, (_, target, annotation) = torch.rand(9, 4, 5).bfloat16(), batch()
    metric, grown = SaliencyMetric(), SaliencyMetric()
    metric.update(heatmap, target, annotation)
    large = torch.nn.functional.interpolate(heatmap.float()[:, None], (8, 10), mode="bilinear")
    grown.update(large[:, 0], target, annotation)
    assert metric.compute() == grown.compute()
    flat = SaliencyMetric()  # constant stays constant, whatever interpolation rounds
    flat.update(torch.full((9, 3, 7), 0.3), target, annotation)
    assert (flat.compute()["CC"], flat.compute()["NSS"]) == (0, 0)


def test_what_does_not_fit_is_refused():
    heatmap, target, annotation = batch()
    metric = SaliencyMetric()
    for wrong in (heatmap[:2], heatmap[0]):
        with pytest.raises(ValueError, match="need heatmaps"):
            metric.update(wrong, target, annotation)
        with pytest.raises(ValueError, match="need heatmaps"):
            TeacherAgreementMetric().update(wrong, target)
    with pytest.raises(ValueError, match="annotation"):
        metric.update(heatmap, target, annotation[:3])
    with pytest.raises(ValueError, match="negative"):
        metric.update(heatmap, -target, annotation)
    broken = heatmap.clone()
    broken[2] = math.nan  # nobody looked at this one
    metric.update(broken, target, annotation)
    broken[1, 0, 0] = math.inf
    with pytest.raises(ArtifactNetError, match="not finite"):
        metric.update(broken, target, annotation)
    with pytest.raises(ArtifactNetError, match="not finite"):
        TeacherAgreementMetric().update(broken, target)


def test_teacher_agreement():
    heatmap, teacher, _ = batch(seed=1)
    teacher[4] = 0.2
    heatmap[5] = 0.7
    metric = TeacherAgreementMetric()
    metric.update(heatmap[:6], teacher[:6])
    metric.update(heatmap[6:], None)
    found = metric.compute()
    pairs = zip(heatmap[:6].numpy(), teacher[:6].numpy(), strict=True)
    constant = [np.ptp(part) == 0 for part in teacher[:6].numpy()]
    values = [
        0.0 if np.ptp(a) == 0 else stats.pearsonr(a.ravel(), b.ravel()).statistic
        for (a, b), flat in zip(pairs, constant, strict=True)
        if not flat
    ]
    assert found["CC"] == pytest.approx(np.mean(values), abs=1e-6)
    difference = heatmap[:6].double() - teacher[:6].double()
    assert found["MSE"] == pytest.approx(float((difference**2).mean()), abs=1e-12)
    assert (found["images"], found["constant_images"]) == (6, sum(constant))
    assert sum(constant) > 1
    metric.reset()
    metric.update(heatmap, None)
    nothing = {"CC": None, "MSE": None, "images": 0, "constant_images": 0}
    assert metric.compute() == nothing | dict.fromkeys(("marked", "real", "fake"), nothing)
    metric.update(heatmap[:1], torch.zeros(1, 8, 10))
    assert metric.compute()["CC"] is None


def test_teacher_agreement_of_groups_over_the_pixels_that_it_saw():
    """Each image's figures again in numpy, from the seen pixels alone."""
    rng = np.random.default_rng(5)
    heatmap, teacher = rng.random((2, 7, 6, 8)).astype(np.float32)
    teacher[:3] *= 0.5  # never above the threshold
    seen = rng.random((7, 6, 8)) < 0.6
    seen[2], seen[5] = True, False
    teacher[1][~seen[1]] = 1.0  # what was not seen marks nothing
    label = np.array([0, 1, 0, 1, 1, 0, 1], np.float32)
    metric = TeacherAgreementMetric()
    for part in (slice(0, 4), slice(4, 7)):
        metric.update(*(torch.from_numpy(x[part]) for x in (heatmap, teacher, seen, label)))
    found = metric.compute()
    values = {}
    for k in (0, 1, 2, 3, 4, 6):
        a, b = heatmap[k][seen[k]].astype(np.float64), teacher[k][seen[k]].astype(np.float64)
        values[k] = stats.pearsonr(a, b).statistic, ((a - b) ** 2).mean()
    groups = {"all": list(values), "marked": [3, 4, 6], "real": [0, 2], "fake": [1, 3, 4, 6]}
    for name, members in groups.items():
        own = found if name == "all" else found[name]
        assert own["CC"] == pytest.approx(np.mean([values[k][0] for k in members]), abs=1e-9)
        assert own["MSE"] == pytest.approx(np.mean([values[k][1] for k in members]), abs=1e-9)
        assert (own["images"], own["constant_images"]) == (len(members), 0)
