import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifactnet.training.optim import lr_factor


@pytest.mark.parametrize(
    ("total", "options", "expected"),
    [
        # round(0.3 * 7) = 2 rising steps, then 5 on a half cosine from 1 to 0.2
        (
            7,
            {"warmup": 0.3, "schedule": "cosine", "min_ratio": 0.2},
            [0.5, 1.0] + [0.2 + 0.4 * (1 + math.cos(math.pi * i / 4)) for i in range(5)],
        ),
        (
            7,
            {"warmup": 0.3, "schedule": "linear", "min_ratio": 0.2},
            [0.5, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2],
        ),
        (5, {"warmup": 0, "schedule": "linear"}, [1, 0.75, 0.5, 0.25, 0]),
        (10, {"warmup": 0.2, "schedule": "constant"}, [0.5] + [1.0] * 9),
    ],
)
def test_values_by_hand(total: int, options: dict[str, Any], expected: list[float]) -> None:
    factors = [lr_factor(step, total, **options) for step in range(total)]
    assert factors == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_beyond_the_end_it_stays(schedule: str) -> None:
    for step in (99, 150):
        factor = lr_factor(step, 100, warmup=0.1, schedule=schedule, min_ratio=0.01)
        assert factor == pytest.approx(0.01)


@given(
    total=st.integers(1, 500),
    warmup=st.floats(0, 1),
    schedule=st.sampled_from(["cosine", "linear", "constant"]),
    min_ratio=st.floats(0.001, 1),
)
def test_rises_then_falls_within_bounds(
    total: int, warmup: float, schedule: str, min_ratio: float
) -> None:
    factors = [
        lr_factor(s, total, warmup=warmup, schedule=schedule, min_ratio=min_ratio)
        for s in range(total)
    ]
    rising = round(warmup * total)
    assert all(0 < factor <= 1 + 1e-12 for factor in factors)
    assert all(a < b for a, b in pairwise(factors[:rising]))
    assert all(a >= b - 1e-12 for a, b in pairwise(factors[rising:]))
    assert max(factors) == pytest.approx(1.0)


@pytest.mark.parametrize(("schedule", "total"), [("poly", 10), ("cosine", 0)])
def test_bad_arguments(schedule: str, total: int) -> None:
    with pytest.raises(ValueError, match=r"schedule|step"):
        lr_factor(0, total, warmup=0.0, schedule=schedule)
