"""The figures of a report against loops over its images."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from artifactnet.explanation.report.summary import Fact, summarize
from artifactnet.metrics import authenticity
from artifactnet.metrics.confusion import verdict_scores
from artifactnet.types import ArtifactNetError


def random_facts(count=60, seed=0):
    rng = np.random.default_rng(seed)
    facts = []
    for _ in range(count):
        label = int(rng.random() < 0.6)
        probability = float(np.round(np.clip(rng.normal(0.4 + 0.2 * label, 0.25), 0, 1), 2))
        generator = f"g{rng.integers(3)}" if label else "real"
        facts.append(Fact(probability, probability >= 0.5, label, generator))
    return facts


def test_verdicts_and_scores_against_loops():
    facts = random_facts()
    found = summarize(facts, [])
    counts = {"tp": 0, "fp": 0, "tn": 0, "fn": 0}
    for fact in facts:
        counts[("t" if fact.is_fake == bool(fact.label) else "f") + "np"[fact.is_fake]] += 1
    assert found["verdicts"] == counts
    assert (found["images"], found["labelled"]) == (60, 60)
    assert found["called_fake"] == counts["tp"] + counts["fp"]
    assert found["called_fake"] + found["called_real"] == 60
    scores, (tp, fp, tn, fn) = found["authenticity"], counts.values()
    assert scores["balanced_accuracy"] == pytest.approx((tp / (tp + fn) + tn / (tn + fp)) / 2)
    assert scores["f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    json.dumps(found, allow_nan=False)


def test_scores_are_those_of_the_evaluation():
    """One formula, whoever counts: the area of the curve is the Mann-Whitney statistic."""
    facts = random_facts(200, seed=3)
    found = summarize(facts, [])["authenticity"]
    labels = torch.tensor([f.label for f in facts])
    probabilities = torch.tensor([f.probability for f in facts], dtype=torch.float64)
    expected = verdict_scores(*authenticity.confusion(labels, probabilities, 0.5))
    assert found.pop("auc") == pytest.approx(authenticity.auc(labels, probabilities), abs=1e-12)
    assert found == expected


def test_without_labels_nothing_is_called_right():
    found = summarize([Fact(0.3, False, None, "a"), Fact(0.8, True, None, None)], [])
    for key in ("verdicts", "authenticity", "calibration", "roc"):
        assert found[key] is None
    assert (found["called_fake"], found["called_real"], found["labelled"]) == (1, 1, 0)
    assert [row["name"] for row in found["generators"]] == ["a", "unknown"]
    assert all(row["accuracy"] is None for row in found["generators"])
    assert sum(found["histogram"]["unknown"]) == 2
    assert "fake" not in found["histogram"]


def test_a_broken_probability_is_an_error():
    with pytest.raises(ArtifactNetError, match="not numbers"):
        summarize([Fact(float("nan"), False, 1), Fact(0.5, True, 0)], [])


def test_histogram_against_loops():
    facts = [*random_facts(), Fact(1.0, True, 1, "g0"), Fact(0.0, False, 0, "real")]
    found = summarize(facts, [])["histogram"]
    edges = found["edges"]
    for name, label in (("real", 0), ("fake", 1)):
        own = [f.probability for f in facts if f.label == label]
        for k, count in enumerate(found[name]):
            last = k == len(edges) - 2
            inside = [edges[k] <= p < edges[k + 1] or (last and p == edges[k + 1]) for p in own]
            assert count == sum(inside)
    assert sum(found["real"]) + sum(found["fake"]) == len(facts)


def test_generators_against_loops():
    facts = random_facts()
    rows = summarize(facts, [])["generators"]
    assert [row["name"] for row in rows] == ["real", "g0", "g1", "g2"]
    for row in rows:
        own = [f for f in facts if f.generator == row["name"]]
        right = [f for f in own if f.is_fake == bool(f.label)]
        assert row["images"] == len(own)
        assert row["label"] == own[0].label
        assert row["called_fake"] == sum(f.is_fake for f in own)
        assert row["accuracy"] == pytest.approx(len(right) / len(own))
        assert row["mean_probability"] == pytest.approx(np.mean([f.probability for f in own]))


def test_three_verdicts_against_loops():
    """Scores are those at the threshold; counts are those of the verdicts."""
    facts = random_facts()
    unsure = [replace(f, uncertain=0.3 <= f.probability < 0.7) for f in facts]
    plain, found = summarize(facts, []), summarize(unsure, [])
    counted = {
        (label, verdict): sum(f.label == label and f.verdict == verdict for f in unsure)
        for label in (0, 1)
        for verdict in ("fake", "uncertain", "real")
    }
    assert min(counted.values()) > 0
    for label, name in ((0, "real"), (1, "fake")):
        for verdict, count in found["answers"][name].items():
            assert count == counted[label, verdict]
    for verdict in ("fake", "uncertain", "real"):
        total = counted[0, verdict] + counted[1, verdict]
        assert found[f"called_{verdict}"] == total
        rows = found["generators"]
        if verdict != "real":
            assert sum(row[f"called_{verdict}"] for row in rows) == total
    assert plain["called_uncertain"] == 0
    for key in ("verdicts", "authenticity", "calibration", "roc", "histogram"):
        assert found[key] == plain[key]


def fake(probability=0.9, **more):
    """A fake image, called so."""
    return Fact(probability, True, 1, "g", **more)


def test_maps_are_averaged_over_pixels_not_images():
    right, wrong = ({"m": {"pointing": p, "mass": mass}} for p, mass in ((1.0, 0.4), (0.0, 0.2)))
    facts = [
        fake(pixels={"m": (90, 10, 0), "mask": (1, 1, 1)}, scores=right),
        fake(pixels={"m": (0, 0, 0), "mask": (0, 0, 7)}),
        fake(pixels={"m": (0, 10, 90)}, scores=wrong),
        Fact(0.1, False, 0, "real"),
    ]
    rows = {row["name"]: row for row in summarize(facts, ["m", "never made"])["maps"]}
    assert list(rows) == ["m", "mask"]
    m = rows["m"]
    assert (m["tp"], m["fp"], m["fn"], m["evaluated_images"]) == (90, 20, 90, 3)
    ratios = [m[key] for key in ("IoU", "PixP", "PixR", "PixF1")]
    assert ratios == pytest.approx([90 / 200, 90 / 110, 90 / 180, 180 / 290])
    assert (m["artifact_images"], m["pointing"], m["mass"]) == (2, 0.5, pytest.approx(0.3))
    mask = rows["mask"]
    assert (mask["tp"], mask["fp"], mask["fn"], mask["evaluated_images"]) == (1, 1, 8, 2)
    assert mask["pointing"] is None


def test_categories_in_the_order_of_the_taxonomy():
    textures, physics = "low-level-texture", "cognitive-level-physics"
    facts = [
        fake(
            annotated=(physics,),
            predicted=(textures, physics, "uncategorized"),
            regions={textures: 2, physics: 1, "uncategorized": 4},
            category_pixels={textures: (0, 5, 0), physics: (6, 2, 4)},
        ),
        fake(annotated=(physics,), regions={physics: 3}, predicted=(physics,)),
    ]
    rows = summarize(facts, [])["categories"]
    assert [row["label"] for row in rows] == [textures, physics, "uncategorized"]
    by_name = {row["name"]: row for row in rows}
    assert by_name["physics"]["annotated_images"] == 2
    assert by_name["physics"]["regions"] == 4
    assert by_name["physics"]["IoU"] == pytest.approx(6 / 12)
    assert by_name["textures"]["IoU"] == 0
    assert (by_name["textures"]["annotated_images"], by_name["textures"]["regions"]) == (0, 2)
    assert by_name["uncategorized"]["IoU"] is None


def test_one_class_missing_labels_and_no_images():
    one = summarize([Fact(0.3, False, 1, "a"), Fact(0.8, True, 1, "a")], [])
    assert one["authenticity"]["balanced_accuracy"] == 0.5
    assert "only fake" in one["authenticity"]["note"]
    assert one["authenticity"]["auc"] is one["roc"] is one["calibration"] is None
    none = summarize([], ["relevance"])
    assert none["images"] == 0
    assert none["generators"] == none["categories"] == none["maps"] == []
    assert list(none["histogram"]) == ["edges"]
    both = summarize([Fact(0.9, True, 1, "a"), Fact(0.9, True, 0, "a")], [])["generators"]
    assert (both[0]["label"], both[0]["accuracy"]) == (None, 0.5)
    assert summarize([Fact(0.9, True, 1), Fact(0.9, True, 0)], [])["generators"] == []
    # a model with another threshold calls 0.3 fake; 0.5 is not applied again
    found = summarize([fake(0.3), Fact(0.2, False, 0, "real")], [])
    assert found["verdicts"] == {"tp": 1, "fp": 0, "tn": 1, "fn": 0}
    (row,) = summarize([fake(annotated=("low-level-color",))], [])["categories"]
    assert row["regions"] is row["IoU"] is None
