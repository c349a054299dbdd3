"""The files of an annotation, and what must not be overwritten."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from artifactnet.files import write_text
from artifactnet.types import ArtifactNetError

SUFFIX = ".jsonl"


class OutputFiles:
    """What lies beside the output.

    Args:
        out: the output.

    Attributes:
        out: as given.
        raw: every answer.
        rejected: images that were set aside.
        heatmaps: folder of the heatmaps of bit fields.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.raw = out.with_suffix(f".raw{SUFFIX}")
        self.rejected = out.with_suffix(f".rejected{SUFFIX}")
        self.heatmaps = out.with_name(f"{out.stem}_heatmaps")

    def check(self, inputs: tuple[Path, ...], pictures: Path | None, bit_fields: bool) -> None:
        """Refuse to write over somebody's file, or pictures among those that are read.

        Args:
            inputs: folders that are searched.
            pictures: folder of pictures that are kept, or None.
            bit_fields: whether heatmaps are written.

        Raises:
            ArtifactNetError: something is in the way.
        """
        if self.out.suffix != SUFFIX:
            raise ArtifactNetError(f"--out {self.out}: must end in {SUFFIX}")
        if self.out.exists() and not self.raw.exists():
            raise ArtifactNetError(
                f"{self.out}: already there, and not made by annotate ({self.raw.name} is not "
                "beside it); give another --out"
            )
        for place in [*([self.heatmaps] if bit_fields else []), *([pictures] if pictures else [])]:
            for folder in inputs:
                if place.resolve().is_relative_to(folder.resolve()):
                    raise ArtifactNetError(
                        f"{place}: lies inside {folder}, where its pictures would be taken for "
                        "input; give a folder outside of it"
                    )


def count_rows(path: Path) -> int:
    """Lines of a file that `write_rows` has made; 0 where there is none."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Atomically write JSON lines.

    Args:
        path: of the file.
        rows: its lines.
    """
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
