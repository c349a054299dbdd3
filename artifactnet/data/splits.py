"""Dividing uids into splits: a pure function of uid and seed, the same on every machine."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path

from artifactnet.data.sources.base import Source
from artifactnet.types import ArtifactNetError, Record, Sample


def uid_sort_key(uid: str, seed: int, purpose: str = "split") -> bytes:
    """Pseudo-random sort key of a uid; Python's own hash changes from process to process."""
    return blake2b(f"{purpose}\0{seed}\0{uid}".encode(), digest_size=16).digest()


def split_uids(
    uids: Iterable[str], fractions: Mapping[str, float], seed: int
) -> dict[str, list[str]]:
    """Divide uids at random: part -> sorted uids, disjoint and complete.

    Each part gets its share rounded to a whole number, but at least one uid if its share is not
    zero; the first part gets the rest, and goes first where there are too few. The result depends
    neither on the order of the uids nor on repeats.

    Raises:
        ValueError: a share is negative or the shares do not sum to 1.
    """
    if min(fractions.values()) < 0 or abs(sum(fractions.values()) - 1) > 1e-9:
        raise ValueError(f"shares must be in [0, 1] and sum to 1, got {dict(fractions)}")
    order = sorted(set(uids), key=lambda uid: (uid_sort_key(uid, seed), uid))
    first, *others = fractions
    result: dict[str, list[str]] = {}
    taken = 0
    for name in others:
        share = max(1, round(len(order) * fractions[name])) if fractions[name] > 0 else 0
        spare = len(order) - taken - (1 if fractions[first] > 0 else 0)
        count = max(0, min(share, spare))
        result[name] = sorted(order[taken : taken + count])
        taken += count
    return {first: sorted(order[taken:]), **result}


def link_uids(uids: Iterable[str], groups: Iterable[Iterable[str]]) -> dict[str, str]:
    """Smallest uid of everything that each uid is linked to, directly or through others.

    ``groups`` are uids that belong together; one may be in several.
    """
    leaders = {uid: uid for uid in uids}

    def leader(uid: str) -> str:
        while leaders[uid] != uid:
            uid = leaders[uid]
        return uid

    for group in groups:
        linked = {leader(uid) for uid in group}
        leaders.update(dict.fromkeys(linked, min(linked)))
    return {uid: leader(uid) for uid in leaders}


def draw_splits(
    records: Iterable[Record], shares: Mapping[str, float], seed: int
) -> dict[str, str]:
    """uid -> split, drawn within each stratum of `stratify_uids`; shares as of `split_uids`."""
    return {
        uid: split
        for stratum in stratify_uids(records)
        for split, uids in split_uids(stratum, shares, seed).items()
        for uid in uids
    }


def select_generators(records: Iterable[Record], generators: Sequence[str], root: Path) -> set[str]:
    """Generators to keep: the given ones, or all, and ``real``.

    Raises:
        ArtifactNetError: no fake is of a given generator.
    """
    existing = sorted({record.generator for record in records if record.label == 1})
    unknown = [name for name in generators if name not in existing]
    if unknown:
        raise ArtifactNetError(
            f"data.generators: {unknown[0]!r} is not in {root}; it has {', '.join(existing)}"
        )
    return {"real", *(generators or existing)}


def stratify_uids(records: Iterable[Record]) -> list[list[str]]:
    """Sorted uids grouped by what they hold (only real, only fake, both), empty groups left out.

    Drawing within each group leaves no split without a class.
    """
    labels: dict[str, set[int]] = defaultdict(set)
    for record in records:
        labels[record.uid].add(record.label)
    groups: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for uid in sorted(labels):
        groups[tuple(sorted(labels[uid]))].append(uid)
    return [groups[key] for key in sorted(groups)]


def limit_uids(records: Sequence[Record], count: int | None, seed: int) -> list[int]:
    """Ascending indices of the records that remain when ``count`` uids are kept (None: all).

    The draw is proportional within each group of `stratify_uids`, so a small sample of an unpaired
    data set still has both classes.
    """
    if count is None:
        return list(range(len(records)))
    position: list[tuple[float, str]] = []
    for group in stratify_uids(records):
        order = sorted(group, key=lambda uid: (uid_sort_key(uid, seed, "limit"), uid))
        position += [((k + 0.5) / len(order), uid) for k, uid in enumerate(order)]
    kept = {uid for _, uid in sorted(position)[:count]}
    return [index for index, record in enumerate(records) if record.uid in kept]


class Subset:
    """Some images of another source, in a given order."""

    def __init__(self, source: Source, indices: Sequence[int]) -> None:
        self._source = source
        self._indices = list(indices)
        self.records: list[Record] = [source.records[index] for index in self._indices]
        self.warnings: tuple[str, ...] = tuple(getattr(source, "warnings", ()))
        self.known_twins = bool(getattr(source, "known_twins", False))

    def unwrap(self) -> tuple[Source, list[int]]:
        """The source that is no subset of another, and which of its images these are."""
        if not isinstance(self._source, Subset):
            return self._source, self._indices
        source, indices = self._source.unwrap()
        return source, [indices[index] for index in self._indices]

    def load(self, index: int) -> Sample:
        """See `Source.load`."""
        return self._source.load(self._indices[index])

    def encoded(self, index: int) -> bytes | None:
        """Content of the image's file, or None where the underlying source offers none."""
        read = getattr(self._source, "encoded", None)
        return None if read is None else read(self._indices[index])
