"""Parts of both scoring commands: a parallel map, and score tables as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from artifactnet.files import write_text
from artifactnet.taxonomy import BY_LABEL, Category
from artifactnet.types import ArtifactNetError

Counts = npt.NDArray[np.int64]
ALL = "all"  # row of all generators, or of all categories, together

# the benchmark's order of rows, which differs from that of its class indices
ROW_ORDER: tuple[Category, ...] = tuple(
    BY_LABEL[label]
    for label in (
        "low-level-edge_shape",
        "low-level-texture",
        "low-level-color",
        "low-level-symbol",
        "high-level-semantics",
        "cognitive-level-commonsense",
        "cognitive-level-physics",
    )
)
_CHUNKS = 8  # per process: small enough to even out images of different sizes
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """Scores of a benchmark."""

    overall: list[dict[str, Any]]  # rows of all generators together
    per_generator: list[dict[str, Any]]  # the same rows for each generator, sorted by name
    images: int  # number of images scored
    warnings: tuple[str, ...] = ()  # about the predictions

    def write(self, out: str | Path, out_per_generator: str | Path | None = None) -> None:
        """Write the CSV files, each atomically.

        Raises:
            OSError: a file cannot be written; an older one then stays.
        """
        if out_per_generator is not None:
            write_text(out_per_generator, _csv(self.per_generator))
        write_text(out, _csv(self.overall))


def check_outputs(out: str | Path, out_per_generator: str | Path | None = None) -> None:
    """Refuse output paths that cannot be written, before the long work.

    Raises:
        ArtifactNetError: a path is a folder or lies below a file, or both paths are the same.
    """
    paths = [Path(path) for path in (out, out_per_generator) if path is not None]
    for path in paths:
        if path.is_dir():
            raise ArtifactNetError(f"{path}: is a folder; name a CSV file to write")
        above = next(parent for parent in path.absolute().parents if parent.exists())
        if not above.is_dir():
            raise ArtifactNetError(f"{path}: {above} is not a folder")
    if len({path.resolve() for path in paths}) < len(paths):
        raise ArtifactNetError(f"{out}: the two tables need two files; name another one")


def make_table(
    generators: Sequence[str],
    counts: Sequence[Counts],
    lines: Callable[[str, Counts], list[dict[str, Any]]],
    warnings: tuple[str, ...],
) -> ScoreTable:
    """Add up counts over all images and over those of each generator, and score the sums.

    Args:
        generators: one name per image.
        counts: one array per image, all of one shape.
        lines: gives the rows of a generator (or of `ALL`) from its sums.
        warnings: see `ScoreTable`.
    """
    stacked = np.stack(counts)
    names, index = np.unique(np.asarray(generators), return_inverse=True)
    sums = np.zeros((len(names), *stacked.shape[1:]), dtype=np.int64)
    np.add.at(sums, index, stacked)
    return ScoreTable(
        overall=lines(ALL, stacked.sum(axis=0)),
        per_generator=[
            line for k, name in enumerate(names.tolist()) for line in lines(name, sums[k])
        ],
        images=len(counts),
        warnings=warnings,
    )


def parallel_map(
    function: Callable[[_Item], _Result], items: Sequence[_Item], workers: int, min_items: int
) -> list[_Result]:
    """Results of a function in the order of the items, from several processes if that pays off.

    Processes are spawned, so running threads do no harm; scripts that call this need the usual
    ``if __name__ == "__main__":``. The error of the first failing item is raised, whatever the
    number of processes.

    Args:
        function: must be picklable.
        items: must be picklable.
        workers: maximum number of processes; 1 stays in this one.
        min_items: number of items per process from which starting it pays off.

    Raises:
        ArtifactNetError: a process died.
        ValueError: ``workers`` is below 1.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    workers = min(workers, len(items) // min_items)
    if workers <= 1:
        return [function(item) for item in items]
    chunk = max(1, len(items) // (workers * _CHUNKS))
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_one_thread) as pool:
        try:
            return list(pool.map(function, items, chunksize=chunk))
        except BrokenProcessPool as error:
            raise ArtifactNetError(
                "a process died, perhaps for lack of memory; use fewer: --workers 1"
            ) from error


def _one_thread() -> None:
    cv2.setNumThreads(1)  # the processes share the cores already


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
