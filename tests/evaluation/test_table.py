"""Spread over seeds and the table of an experiment."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifactnet.config import load
from artifactnet.evaluation.tables import markdown, spread
from artifactnet.experiments.run import PLANS


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_spread_is_mean_and_sample_deviation(values):
    found = spread([{"x": value} for value in values], ["x", "y"])
    assert found["x"]["mean"] == pytest.approx(np.mean(values), abs=1e-12)
    assert found["x"]["std"] == pytest.approx(np.std(values, ddof=1), abs=1e-12)
    assert found["y"] is None


def test_one_seed_has_no_spread_and_zero_is_a_figure():
    assert spread([{"x": 0.0}], ["x"]) == {"x": {"mean": 0.0, "std": None}}


def test_table_has_a_row_per_training_and_per_seed():
    values = {"0": {"BA": 0.5, "IoU": 0.0}, "2": {"BA": 0.7, "IoU": 0.2}}
    row = {
        "title": "multi-task",
        "method": "relevance",
        "seeds": values,
        "spread": spread(list(values.values()), ["BA", "IoU", "F1"]),
    }
    text = markdown(
        {
            "title": "T",
            "seeds": [0, 2],
            "overrides": ["train.epochs=1"],
            "columns": ["BA", "IoU", "F1"],
            "rows": [row],
        }
    )
    assert "| multi-task (relevance) | 0.600 ± 0.141 | 0.100 ± 0.141 |  |" in text
    assert "| multi-task (relevance) | 2 | 0.700 | 0.200 |  |" in text
    assert "train.epochs=1" in text


@pytest.mark.parametrize("plan", PLANS)
def test_plans_name_recipes_that_exist_and_starts_that_come_first(plan):
    done = set()
    for training in PLANS[plan]:
        assert load(training.recipe).seed == 0
        assert training.start is None or training.start in done
        done.add(training.key)
    assert len(done) == len(PLANS[plan])
