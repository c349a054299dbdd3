"""Cross-validation: every image is tested once (FakeXplainer, Sec. 5.1, in four folds).

The splits of the data are put together first; then fold k is the test split and the rest is for
training. The draw is a pure function of uid and seed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import sha256

from artifactnet.config import DataConfig
from artifactnet.data.duplicates import find_identical_files
from artifactnet.data.sources.base import Source, Splits
from artifactnet.data.splits import Subset, draw_splits, limit_uids, link_uids
from artifactnet.types import ArtifactNetError, Record, Sample

_SEVERAL = ""  # stratum of uids with fakes of several generators; no generator's name


def fold_order(uids: Iterable[str], seed: int) -> list[str]:
    """Distinct uids by the SHA-256 of ``SEED``, a line feed and the uid."""

    def key(uid: str) -> str:
        return sha256(f"{seed}\n{uid}".encode(errors="surrogatepass")).hexdigest()

    return sorted(set(uids), key=key)


def uid_folds(uids: Iterable[str], folds: int, seed: int) -> dict[str, int]:
    """Fold of each uid, from 0: its rank in `fold_order` modulo the number of folds."""
    return {uid: rank % folds for rank, uid in enumerate(fold_order(uids, seed))}


def assign_folds(records: Sequence[Record], folds: int, seed: int) -> list[int | None]:
    """Fold of each image; None for a real one that is left out. Images of a uid share a fold.

    Fakes: `uid_folds` of each generator by itself, so that every fold has its share of each; uids
    with fakes of several generators are ranked together. Real images: as many as fakes in every
    fold, as far as there are enough. Those with the uid of a fake go to its fold; the others, in
    `fold_order`, go to one fold after the other that still lacks some.
    """
    makers: dict[str, set[str]] = defaultdict(set)
    for record in records:
        if record.label == 1:
            makers[record.uid].add(record.generator)
    strata: dict[str, list[str]] = defaultdict(list)
    for uid, names in makers.items():
        strata[next(iter(names)) if len(names) == 1 else _SEVERAL].append(uid)
    home = {
        uid: fold for uids in strata.values() for uid, fold in uid_folds(uids, folds, seed).items()
    }
    result = [home[record.uid] if record.label == 1 else None for record in records]
    lacking = Counter(fold for fold in result if fold is not None)  # real images
    reals: dict[str, list[int]] = defaultdict(list)
    for index, record in enumerate(records):
        if record.label == 0:
            reals[record.uid].append(index)
    order = fold_order(reals, seed)
    turn = 0
    for uid in [*(uid for uid in order if uid in home), *(uid for uid in order if uid not in home)]:
        fold = home.get(uid)
        if fold is None:
            turns = ((turn + step) % folds for step in range(folds))
            fold = next((one for one in turns if lacking[one] > 0), None)
            if fold is None:
                break  # enough
            turn = fold + 1
        chosen = reals[uid][: lacking[fold]]
        lacking[fold] -= len(chosen)
        for index in chosen:
            result[index] = fold
    return result


def fold_splits(splits: Splits, config: DataConfig, seed: int) -> Splits:
    """Splits ``train``, ``val`` and ``test`` of fold ``config.fold`` of ``config.folds``.

    ``val`` is a share ``config.val_fraction`` of the training uids. Uids with byte-identical files
    are kept together like one uid.

    Args:
        splits: of the whole data.
        config: ``folds`` and ``fold`` are set.
        seed: of the draws.

    Raises:
        ArtifactNetError: there are fewer uids of fakes than folds.
    """
    if config.folds is None or config.fold is None:
        raise ValueError("folds and fold must be set")
    pool = _Pool(list(splits.values()))
    files = [record for record in pool.records if record.path is not None]
    same = find_identical_files([str(record.path) for record in files])
    groups = [{files[index].uid for index in indices} for indices in same]
    leaders = link_uids((record.uid for record in pool.records), groups)
    led = [replace(record, uid=leaders[record.uid]) for record in pool.records]
    assigned = assign_folds(led, config.folds, seed)
    fakes = Counter(
        fold
        for fold, record in zip(assigned, led, strict=True)
        if record.label and fold is not None
    )
    if len(fakes) < config.folds:
        raise ArtifactNetError(
            f"data.folds={config.folds}: the fakes fill only {len(fakes)} folds; use fewer folds"
        )
    used = sum(fold is not None for fold in assigned) - fakes.total()
    if used < fakes.total():
        pool.warnings += (
            f"data.folds: {used} real images for {fakes.total()} fakes, so the folds are not "
            "balanced; all real images that fit are used",
        )
    rest = [
        record
        for record, fold in zip(led, assigned, strict=True)
        if fold is not None and fold != config.fold
    ]
    shares = {"train": 1 - config.val_fraction, "val": config.val_fraction}
    drawn = draw_splits(rest, shares, seed)
    parts: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for index, (record, fold) in enumerate(zip(led, assigned, strict=True)):
        if fold is not None:
            parts["test" if fold == config.fold else drawn[record.uid]].append(index)
    result: dict[str, Source] = {}
    for name, indices in parts.items():
        kept = limit_uids([pool.records[index] for index in indices], config.limit, seed)
        if kept:
            result[name] = Subset(pool, [indices[k] for k in kept])
    return result


class _Pool:
    """All images of several sources; one that two of them have is there once."""

    def __init__(self, sources: Sequence[Source]) -> None:
        places: dict[tuple[str, str, str], tuple[Source, int]] = {}
        for source in sources:
            for index, record in enumerate(source.records):
                places.setdefault((record.location, record.uid, record.generator), (source, index))
        self._places = list(places.values())
        self.records: list[Record] = [source.records[index] for source, index in self._places]
        notes = [text for source in sources for text in getattr(source, "warnings", ())]
        self.warnings: tuple[str, ...] = tuple(dict.fromkeys(notes))

    def load(self, index: int) -> Sample:
        """See `Source.load`."""
        source, place = self._places[index]
        return source.load(place)

    def encoded(self, index: int) -> bytes | None:
        """Content of the image's file, or None where the underlying source offers none."""
        source, place = self._places[index]
        read = getattr(source, "encoded", None)
        return None if read is None else read(place)
