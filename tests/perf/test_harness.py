"""The benchmark compares what is equal, takes turns, and says where it was run."""

import json

import numpy as np
import pytest
from perf.harness import Times, summary, take_turns, time_side_by_side
from perf.metrics import benchmark_metrics, random_image, straightforward

from artifactnet.benchmarks.xaigd.instances import count_instances
from artifactnet.types import ArtifactNetError

SMALL = {"images": 4, "size": 128, "polygons": 4, "boxes": 10, "repeats": 2}


def test_report():
    report = benchmark_metrics(**SMALL)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["setting"] == SMALL
    assert list(report["forms"]) == ["straightforward", "vectorised"]
    assert report["forms"][report["baseline"]]["times_faster"] == {
        "median": 1, "min": 1, "max": 1,
    }  # fmt: skip
    seconds = report["forms"]["vectorised"]["seconds"]
    assert 0 < seconds["min"] <= seconds["median"] <= seconds["max"]


@pytest.mark.parametrize("seed", range(8))
def test_the_baseline_gives_the_same_numbers(seed):
    image = random_image(seed, 96, 8, 30)
    for t in (0.0, 0.5, 0.9):
        assert np.array_equal(straightforward(t, image), count_instances(t, image))


def test_random_images_are_worth_scoring():
    counts = sum(count_instances(0.5, random_image(seed, 1024, 6, 20)) for seed in range(20))
    tp, fp, fn, images, _, invalid = counts.sum(axis=0)
    assert (images, min(tp, fp, fn, invalid) > 0) == (20 * 7, True)
    assert random_image(0, 1024, 6, 20) == random_image(0, 1024, 6, 20)


def test_cases_take_turns():
    order = []

    def case(name):
        def run():
            order.append(name)
            return [np.zeros(1)]

        return run

    times = time_side_by_side({"a": case("a"), "b": case("b")}, 3)
    assert "".join(order) == "ab" + "ab" + "ba" + "ab"  # the first round is not timed
    assert {name: len(values) for name, values in times.items()} == {"a": 3, "b": 3}
    order.clear()
    take_turns({"a": case("a"), "b": case("b")}, 2, warm_up=True)
    assert "".join(order) == "aabb" + "bbaa"


def test_ratios_are_those_of_each_repeat():
    times = {"base": [Times(8.0, 4.0), Times(9.0, 4.0)], "ours": [Times(2.0, 1.0), Times(1.0, 2.0)]}
    result = summary(times, "ours", "base")
    assert result["times_faster"] == {"median": 6.5, "min": 4.0, "max": 9.0}
    assert result["times_less_cpu"] == {"median": 3.0, "min": 2.0, "max": 4.0}
    assert result["seconds"] == {"median": 1.5, "min": 1.0, "max": 2.0}


def test_unequal_numbers_are_not_timed():
    first, near = [np.array([1.0, 2.0])], [np.array([1.0, 2.0001])]
    assert set(time_side_by_side({"a": lambda: first, "b": lambda: near}, 1, tolerance=1e-4)) == {
        "a", "b",
    }  # fmt: skip
    for other, tolerance in (([np.ones(2)], 0), ([np.ones(3)], 0), (near, 1e-5)):
        cases = {"a": lambda: first, "b": lambda other=other: other}
        with pytest.raises(ArtifactNetError, match="'b' and 'a'"):
            time_side_by_side(cases, 1, tolerance=tolerance)
    with pytest.raises(ArtifactNetError, match="boxes"):
        benchmark_metrics(boxes=0)
