"""Markdown tables, mean and spread."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifactnet.evaluation.tables import markdown_table, mean_spread, mean_std


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_spread_is_mean_and_sample_deviation(values):
    mean, std = mean_std(values)
    assert mean == pytest.approx(np.mean(values), abs=1e-12)
    assert std == pytest.approx(np.std(values, ddof=1), abs=1e-12)
    assert mean_spread(values, 2) == f"{mean:.2f} ± {std:.2f}"


def test_one_value_has_no_spread_and_none_has_no_figure():
    assert mean_std([0.0]) == (0.0, None)
    assert mean_spread([0.0]) == "0.000"
    assert mean_spread([]) == ""


def test_table_has_a_line_per_row_below_header_and_rule():
    table = markdown_table(("a", "b"), [("1", "2"), ("3", "")])
    assert table == ["| a | b |", "| --- | --- |", "| 1 | 2 |", "| 3 |  |"]
