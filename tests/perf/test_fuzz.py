"""The fuzz harness counts what is used, listed, raised, killed, hung and printed past Python."""

from fuzz_outcomes import sample
from perf.fuzz import fuzz, reason_of


def test_every_case_is_counted_once():
    counts = fuzz(sample, 12, limit=0.5, workers=2)
    assert (counts.cases, counts.answered) == (12, 2)
    assert sum(counts.listed.values()) == 4
    assert counts.listed["no images in this folder"] == 2
    assert (counts.tracebacks, counts.crashes, counts.noisy) == (2, 2, 2)
    assert counts.hangs == 2
    assert not counts.clean
    assert {fault["case"] % 6 for fault in counts.faults} == {2, 3, 4, 5}
    assert fuzz(sample, 1).clean


def test_reasons_do_not_depend_on_names_and_numbers():
    one, other = reason_of("it is 4x3 (of 'a.png')"), reason_of("it is 17x3 (of 'b.png')")
    assert one == other
    assert one != reason_of("it is gone")
