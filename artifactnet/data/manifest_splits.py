"""Which split an image of a manifest belongs to."""

from __future__ import annotations

from dataclasses import replace

from artifactnet.data import splits as splitting
from artifactnet.data.content import identical
from artifactnet.data.manifest_lines import Line
from artifactnet.types import ArtifactNetError, Record


def record_of(line: Line) -> Record:
    """What is known of an image without decoding it."""
    return Record(
        line.uid, line.label, line.generator, line.annotation, line.image, path=line.image
    )


def assign(lines: list[Line], fraction: float, seed: int) -> dict[str, str]:
    """Split of every uid, as `artifactnet.data.manifest.build` says.

    Args:
        lines: of all manifests.
        fraction: share of the uids that a drawn split gets.
        seed: of the draws.

    Returns:
        uid -> ``train``, ``val`` or ``test``.

    Raises:
        ArtifactNetError: lines put a uid into two splits.
    """
    home: dict[str, str] = {}
    named: dict[str, Line] = {}
    for line in lines:
        if line.split is not None:
            first = named.setdefault(line.uid, line)
            if first.split != line.split:
                raise ArtifactNetError(
                    f"{line.where}: uid {line.uid!r} is in {line.split} here and in {first.split} "
                    f"in {first.where}; a photograph and all fakes made from it belong in one split"
                )
            home[line.uid] = line.split
    shares = {"train": 1 - 2 * fraction, "val": fraction, "test": fraction}
    home |= _draw([line for line in lines if line.uid not in home], shares, seed)
    if "train" in home.values() and "val" not in home.values():
        train = [line for line in lines if home[line.uid] == "train"]
        home |= _draw(train, {"train": 1 - fraction, "val": fraction}, seed)
    return home


def _draw(lines: list[Line], shares: dict[str, float], seed: int) -> dict[str, str]:
    """uid -> split, drawn; uids that share a byte-identical file stay together."""
    leaders = {line.uid: line.uid for line in lines}

    def leader(uid: str) -> str:
        while leaders[uid] != uid:
            uid = leaders[uid]
        return uid

    for same in identical([line.image for line in lines]):
        group = {leader(lines[index].uid) for index in same}
        leaders.update(dict.fromkeys(group, min(group)))
    records = [replace(record_of(line), uid=leader(line.uid)) for line in lines]
    drawn = {
        uid: split
        for stratum in splitting.strata(records)
        for split, uids in splitting.split_uids(stratum, shares, seed).items()
        for uid in uids
    }
    return {line.uid: drawn[leader(line.uid)] for line in lines}
