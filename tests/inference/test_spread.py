"""Some of the images that a command line names, without holding the others."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifactnet.inference import collect as module
from artifactnet.inference.collect import ResolvedInputs, resolve_inputs, sample_evenly
from artifactnet.inference.inputs import Failure, ImageInput

FOUND = ResolvedInputs((), "", "", ())


@given(st.lists(st.booleans(), max_size=40), st.integers(1, 50))
def test_sources_are_spread_evenly_and_no_failure_is_lost(kinds, count):
    items = [
        ImageInput(f"{k}", f"{k}") if usable else Failure(f"{k}", "broken")
        for k, usable in enumerate(kinds)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "iterate_images", lambda _: iter(items))
        found = list(sample_evenly(FOUND, count))
    assert [x for x in found if isinstance(x, Failure)] == [
        x for x in items if isinstance(x, Failure)
    ]
    assert found == [x for x in items if x in found]  # in their order, none twice
    usable = [x for x in items if isinstance(x, ImageInput)]
    places = [usable.index(x) for x in found if isinstance(x, ImageInput)]
    assert len(places) == min(count, len(usable))
    gaps = [after - before for before, after in pairwise([*places, len(usable)])]
    assert not gaps or (places[0] == 0 and max(gaps) - min(gaps) <= 1)


def test_content_that_is_passed_over_is_let_go(monkeypatch):
    alive, most = 0, 0

    class Content(bytes):
        def __init__(self, *_):
            nonlocal alive, most
            alive += 1
            most = max(most, alive)

        def __del__(self):
            nonlocal alive
            alive -= 1

    monkeypatch.setattr(
        module, "iterate_images", lambda _: (ImageInput(str(k), Content(b"x")) for k in range(100))
    )
    assert [source.name for source in sample_evenly(FOUND, 4)] == ["0", "25", "50", "75"]
    # each of the four while the next is made, and one that is passed over
    assert most <= 6


def test_files_of_a_folder(tmp_path):
    for k in range(9):
        (tmp_path / f"{k}.png").write_bytes(b"")
    names = [item.name for item in sample_evenly(resolve_inputs([tmp_path], skip=""), 3)]
    assert names == [str(tmp_path / f"{k}.png") for k in (0, 3, 6)]
