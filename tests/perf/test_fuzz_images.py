"""A part of the fuzz of images: mutated files are used or refused in one line, in time."""

import pytest
from perf.fuzz_images import decode_case, make_case

from artifactnet.types import ArtifactNetError


def test_a_case_depends_on_its_seed_and_number():
    assert make_case(0, 7) == make_case(0, 7)
    assert len({make_case(seed, number) for seed in (0, 1) for number in range(20)}) > 35


@pytest.mark.slow
def test_200_mutated_images_are_used_or_refused():
    reasons = []
    for number in range(200):
        try:
            reasons.append(decode_case(1, number))
        except ArtifactNetError as error:
            pytest.fail(f"case {number}: {error}")
    used = reasons.count(None)
    assert 40 < used < 160  # or the mutations would test little
