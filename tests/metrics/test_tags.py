"""Accuracy with and without each tag, against a worked example and a loop."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifactnet.metrics.tags import TagAccuracy, tag_accuracies
from artifactnet.taxonomy import TAGS


def test_worked_example() -> None:
    tags = [["wrong texture"], ["wrong texture", "artistic style"], [], ["artistic style"]]
    rows = {row.tag: row for row in tag_accuracies(tags, [True, False, True, True])}
    assert tuple(rows) == TAGS
    for tag in ("wrong texture", "artistic style"):
        assert rows[tag] == TagAccuracy(tag, 0.5, 1.0, 0.5, 2)
    absent = "perspective errors"
    assert rows[absent] == TagAccuracy(absent, None, 0.75, 0.0, 0)


@given(st.lists(st.tuples(st.sets(st.sampled_from(TAGS)), st.booleans()), max_size=20))
def test_rows_are_those_of_a_loop(images: list[tuple[set[str], bool]]) -> None:
    rows = tag_accuracies([tags for tags, _ in images], [right for _, right in images])
    for tag, row in zip(TAGS, rows, strict=True):
        counts = {True: [0, 0], False: [0, 0]}
        for tags, right in images:
            counts[tag in tags][0] += 1
            counts[tag in tags][1] += right
        (held, held_right), (rest, rest_right) = counts[True], counts[False]
        assert row.images == held
        assert row.with_tag == (held_right / held if held else None)
        assert row.without_tag == (rest_right / rest if rest else None)
        assert row.share == (held / len(images) if images else None)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="tags of 1 images for 2 verdicts"):
        tag_accuracies([[]], [True, False])
    with pytest.raises(ValueError, match="unknown tag 'bad hands'; known: structure"):
        tag_accuracies([["bad hands"]], [True])
