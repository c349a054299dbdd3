"""Splits by uid: exact, disjoint, and the same everywhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifactnet.data.splits import Subset, limit_uids, split_uids, stratify_uids
from artifactnet.types import Annotation, Record

SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}
uid_lists = st.lists(st.text(max_size=6), unique=True, max_size=60)


def record(uid: str, label: int) -> Record:
    return Record(uid, label, "real" if label == 0 else "g", Annotation.NONE, f"{uid}-{label}")


@given(uid_lists, st.integers(0, 5), st.randoms())
def test_disjoint_complete_and_order_free(uids, seed, random):
    parts = split_uids(uids, SHARES, seed)
    assert list(parts) == list(SHARES)
    together = [uid for part in parts.values() for uid in part]
    assert sorted(together) == sorted(uids)
    assert all(part == sorted(part) for part in parts.values())
    shuffled = uids + uids[:3]
    random.shuffle(shuffled)
    assert split_uids(shuffled, SHARES, seed) == parts


@given(uid_lists, st.integers(0, 5))
def test_sizes(uids, seed):
    parts = split_uids(uids, SHARES, seed)
    if len(uids) >= 3:
        assert all(parts.values())
        assert len(parts["val"]) == max(1, round(0.1 * len(uids)))
        assert len(parts["test"]) == max(1, round(0.2 * len(uids)))
    elif uids:
        assert parts["train"]


def test_zero_and_bad_shares():
    shares = {"train": 1.0, "val": 0.0}
    assert split_uids(["a", "b"], shares, 0) == {"train": ["a", "b"], "val": []}
    assert split_uids(["a", "b"], {"train": 0.0, "val": 1.0}, 0)["train"] == []
    for shares in ({"a": 0.5}, {"a": 1.5, "b": -0.5}):
        with pytest.raises(ValueError, match="sum to 1"):
            split_uids(["x"], shares, 0)


def test_the_draw_depends_on_the_seed_alone():
    parts = split_uids("abcdefghij", {"train": 0.6, "val": 0.4}, 3)
    assert parts == {"train": ["b", "c", "f", "g", "h", "j"], "val": ["a", "d", "e", "i"]}
    assert split_uids("abcdefghij", {"train": 0.6, "val": 0.4}, 4) != parts


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 1)), max_size=80), st.integers(0, 12))
def test_limit_keeps_whole_uids(pairs, count):
    records = [record(str(uid), label) for uid, label in pairs]
    kept = limit_uids(records, count, 0)
    uids = {records[k].uid for k in kept}
    assert len(uids) == min(count, len({item.uid for item in records}))
    assert kept == [k for k, item in enumerate(records) if item.uid in uids]


def test_limit_keeps_both_classes_of_unpaired_data():
    records = [record(f"r{k}", 0) for k in range(50)] + [record(f"f{k}", 1) for k in range(50)]
    for seed in range(20):
        labels = [records[k].label for k in limit_uids(records, 2, seed)]
        assert sorted(labels) == [0, 1]
    records = [record("a", 0), record("b", 1), record("a", 1), record("c", 0), record("d", 1)]
    assert sorted(stratify_uids(records)) == [["a"], ["b", "d"], ["c"]]


class Letters:
    records = tuple(record(letter, 0) for letter in "abc")
    warnings = ("careful",)

    def load(self, index):
        return self.records[index].uid


class EncodedLetters(Letters):
    def encoded(self, index):
        return self.records[index].uid.encode()


def test_subset():
    subset = Subset(EncodedLetters(), [2, 0])
    assert ([item.uid for item in subset.records], subset.load(0)) == (["c", "a"], "c")
    assert subset.encoded(1) == b"a"
    assert subset.warnings == ("careful",)
    source, indices = Subset(subset, [1]).unwrap()
    assert isinstance(source, EncodedLetters)
    assert indices == [0]
    assert Subset(Letters(), [1]).encoded(0) is None
