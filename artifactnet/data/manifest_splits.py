"""Which split an image of a manifest belongs to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from artifactnet.data import splits as splitting
from artifactnet.data.content import identical
from artifactnet.data.layout import SPLITS
from artifactnet.data.manifest_lines import Line
from artifactnet.types import ArtifactNetError, Record


def record_of(line: Line) -> Record:
    """What is known of an image without decoding it."""
    return Record(
        line.uid,
        line.label,
        line.generator,
        line.annotation,
        line.image,
        line.categories,
        path=line.image,
    )


def named_splits(lines: Iterable[Line]) -> dict[str, tuple[str, Line]]:
    """Splits that lines name.

    Returns:
        uid -> its split, and the first line that says so; uids without a named split are absent.

    Raises:
        ArtifactNetError: a uid, or an image, is put into two splits.
    """
    named: dict[tuple[str, str], tuple[str, Line]] = {}
    for line in lines:
        if line.split is None:
            continue
        for key in (("uid", line.uid), ("image", line.place)):
            split, first = named.setdefault(key, (line.split, line))
            if split != line.split:
                raise ArtifactNetError(
                    f"{line.where or line.image}: {key[0]} {key[1]!r} is in {line.split} here and "
                    f"in {split} in {first.where or first.image}; a photograph and all fakes made "
                    "from it belong in one split"
                )
    return {what: found for (kind, what), found in named.items() if kind == "uid"}


def assign(
    lines: list[Line], every: list[Line], fraction: float, seed: int, *, skip: bool = False
) -> dict[str, str]:
    """Split of every uid, as `artifactnet.data.manifest.build` says.

    Args:
        lines: of the images that are used.
        every: of all manifests: a photograph stays where a fake of it is named, and beside what it
            is linked to, whatever generators are left out.
        fraction: share of the uids that a drawn split gets.
        seed: of the draws.
        skip: copies of one image that lines put into two splits stay where they are named, for
            `artifactnet.data.duplicates` to leave the earlier split's out; otherwise an error.

    Returns:
        uid of ``lines`` -> ``train``, ``val`` or ``test``.

    Raises:
        ArtifactNetError: lines put a uid, or an image, into two splits.
    """
    named = named_splits(every)
    leaders = _leaders(every)
    chosen: dict[str, tuple[str, Line]] = {}  # leader -> split of its group, and who says so
    for uid, (split, line) in named.items():
        other, first = chosen.setdefault(leaders[uid], (split, line))
        if other != split and not skip:
            raise ArtifactNetError(
                f"{line.where}: uid {uid!r} ({line.image}) is in {split} here, and {first.uid!r} "
                f"({first.image}), linked to it by a common image, in {other} in {first.where}; "
                "put both into one split, or leave copies out with data.on_error=skip"
            )
        if SPLITS.index(split) > SPLITS.index(other):
            chosen[leaders[uid]] = split, line
    home = {uid: chosen[leader][0] for uid, leader in leaders.items() if leader in chosen}
    home |= {uid: split for uid, (split, _) in named.items()}
    used = {line.uid for line in lines}
    home = {uid: split for uid, split in home.items() if uid in used}
    shares = {"train": 1 - 2 * fraction, "val": fraction, "test": fraction}
    home |= _draw([line for line in lines if line.uid not in home], leaders, shares, seed)
    if "train" in home.values() and "val" not in home.values():
        train = [line for line in lines if home[line.uid] == "train"]
        home |= _draw(train, leaders, {"train": 1 - fraction, "val": fraction}, seed)
    return home


def _leaders(lines: list[Line]) -> dict[str, str]:
    """uid -> smallest uid of its group; uids that share a file, or identical ones, are a group."""
    owners: dict[str, set[str]] = defaultdict(set)  # path -> uids
    for line in lines:
        owners[line.place].add(line.uid)
    paths = list(owners)
    copies = [set.union(*(owners[paths[k]] for k in same)) for same in identical(paths)]
    return splitting.joined((line.uid for line in lines), (*owners.values(), *copies))


def _draw(
    lines: list[Line], leaders: dict[str, str], shares: dict[str, float], seed: int
) -> dict[str, str]:
    """uid -> split, drawn; uids of one leader stay together."""
    records = [replace(record_of(line), uid=leaders[line.uid]) for line in lines]
    drawn = splitting.draw(records, shares, seed)
    return {line.uid: drawn[leaders[line.uid]] for line in lines}
