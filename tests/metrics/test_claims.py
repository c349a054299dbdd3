"""What texts claim against the truth: a worked example, and a loop over random ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifactnet.metrics.claims import ClaimMetric, Claims
from artifactnet.taxonomy import BY_LABEL, UNCATEGORIZED

TEXTURE, SHAPE, SYMBOL = list(BY_LABEL)[:3]
PLACES = ("upper left", "top", "center", "right")
CLEAN = Claims((), (), True)


def figures(*rows: tuple[Claims, Claims, tuple[str, ...], bool]) -> dict[str, object]:
    metric = ClaimMetric()
    for row in rows:
        metric.update(*([part] for part in row))
    return metric.compute()


def test_worked_example() -> None:
    truth = Claims((TEXTURE, SHAPE), ("top", "center"), False)
    repainted = Claims((UNCATEGORIZED,), ("right",), False)
    found = figures(
        (Claims((TEXTURE, SHAPE), ("top",), False), truth, ("top",), True),
        (Claims((SHAPE, TEXTURE), ("center", "top"), False), truth, ("top",), True),
        (Claims((TEXTURE, SYMBOL), ("right",), False), truth, ("top",), False),
        (CLEAN, truth, (), True),  # its region is spread over the image
        (Claims((UNCATEGORIZED,), ("right", "top"), False), repainted, ("right",), True),
        (Claims((SYMBOL,), (), False), repainted, ("right",), True),
        (CLEAN, CLEAN, (), True),
        (Claims((), (), False), CLEAN, (), False),
        (Claims((), ("top",), False), CLEAN, (), True),
        (Claims((SYMBOL,), (), False), CLEAN, (), True),
    )
    assert found == {
        "texts": 10,
        "edited": 6,
        "categorized": 4,
        "placed": 5,
        "repainted images": 2,
        "untouched": 4,
        "category": 2 / 4,
        "all categories": 2 / 4,
        "category precision": 5 / 6,
        "category recall": 5 / 8,
        "place": 2 / 5,
        "place precision": 4 / 6,
        "place recall": 4 / 8,
        "repainted": 1 / 2,
        "missed": 1 / 6,
        "nothing invented": 2 / 4,
        "called clean": 1 / 4,
        "strict form": 8 / 10,
    }


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_without_images_of_a_kind_there_is_no_share() -> None:
    found = figures((CLEAN, CLEAN, (), True))
    assert found["nothing invented"] == found["called clean"] == found["strict form"] == 1
    for name in ("category", "all categories", "place", "repainted", "missed"):
        assert found[name] is None
    assert all(value in (None, 0) for value in ClaimMetric().compute().values())


labels = st.lists(st.sampled_from([TEXTURE, SHAPE, UNCATEGORIZED]), unique=True).map(tuple)
places = st.lists(st.sampled_from(PLACES), unique=True).map(tuple)
claims = st.builds(Claims, labels, places, st.booleans())


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
@given(st.lists(st.tuples(claims, claims, st.booleans())))
def test_shares_are_those_of_a_loop(rows: list[tuple[Claims, Claims, bool]]) -> None:
    full = [(said, true, true.places[:1], strict) for said, true, strict in rows]
    found = figures(*full)

    def share(hits: list[bool]) -> float | None:
        return sum(hits) / len(hits) if hits else None

    edited = [row for row in full if row[1].categories]
    untouched = [row for row in full if not row[1].categories]
    named = [
        (
            [label for label in said.categories if label in BY_LABEL],
            [label for label in true.categories if label in BY_LABEL],
        )
        for said, true, _, _ in edited
        if set(true.categories) & set(BY_LABEL)
    ]
    placed = [(said.places, main) for said, _, main, _ in edited if main]
    assert found["category"] == share([bool(a) and a[0] == b[0] for a, b in named])
    assert found["place"] == share([bool(a) and a[0] in main for a, main in placed])
    assert found["missed"] == share([said.says_clean for said, *_ in edited])
    assert found["nothing invented"] == share(
        [not said.categories and not said.places for said, *_ in untouched]
    )
    assert found["strict form"] == share([strict for *_, strict in full])


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="zip"):
        ClaimMetric().update([CLEAN], [CLEAN], [()], [True, False])
