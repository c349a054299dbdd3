"""A worker: one model, which predicts unit after unit and writes the answers of each."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from artifactnet.cluster.job import Job
from artifactnet.cluster.parts import SCHEMA, Answers, PartCounts, write_failed
from artifactnet.cluster.reading import Item, read_unit
from artifactnet.cluster.storage import Storage
from artifactnet.cluster.units import Unit
from artifactnet.inference.base import BasePredictor
from artifactnet.inference.folder import encode_heatmap
from artifactnet.inference.inputs import Failure, ImageInput
from artifactnet.inference.lines import make_line
from artifactnet.types import ArtifactNetError, Prediction

DIED = "the process of a worker died on this image; it may need more memory than there is"
_FIRST = 3  # failures of a unit that are told at once; all are rows of its part


@dataclass(frozen=True, slots=True)
class Careful:
    """How to predict a unit on which the process of a worker died before.

    Attributes:
        skip: numbers of images that are not looked at any more, counted from 0.
        report: called with the number of each image before it is read.
    """

    skip: frozenset[int]
    report: Callable[[int], None]


@dataclass(slots=True)
class UnitResult:
    """What became of a unit.

    Attributes:
        unit: its id.
        counts: what its part holds.
        skipped: files that are no images, and have no row.
        failures: the first images without prediction, and why.
    """

    unit: str
    counts: PartCounts = field(default_factory=PartCounts)
    skipped: int = 0
    failures: list[Failure] = field(default_factory=list)


class Worker:
    """Predicts units.

    Args:
        job: what to do.
        predictor: the model, if it has been loaded already.

    Raises:
        ArtifactNetError: the model cannot be loaded, or it is not the one that the job began with.
    """

    def __init__(self, job: Job, predictor: BasePredictor | None = None) -> None:
        self._job = job
        self._storage = Storage(job.sources, job.folder)
        self._answers = Answers(job.out)
        self._settings = job.settings_id()
        self._predictor = job.model.load() if predictor is None else predictor
        if predictor is None and job.model.fingerprint(self._predictor) != job.fingerprint:
            raise ArtifactNetError(
                f"{job.model.source}: the model on this machine is not the one that the job began "
                "with; every machine needs the same file and version of artifactnet"
            )

    def run(self, unit: Unit, careful: Careful | None = None) -> UnitResult:
        """Predict a unit and write its part.

        Args:
            unit: the images.
            careful: one image at a time, each reported first; None: as fast as can be.

        Raises:
            ArtifactNetError: the part cannot be written.
        """
        result = UnitResult(unit.id)
        rows = self._rows(unit, careful, result)
        try:
            result.counts = self._answers.write_part(unit.id, self._settings, rows)
        except OSError as error:
            raise write_failed(self._answers, error) from error
        return result

    def _rows(
        self, unit: Unit, careful: Careful | None, result: UnitResult
    ) -> Iterator[dict[str, Any]]:
        options = self._job.options
        waiting: deque[Item] = deque()
        answers = self._predictor.predict_stream(
            _remembered(_items(unit, self._storage, careful, result), waiting),
            options.batch_size if careful is None else 1,
            options.workers if careful is None else 0,
            options.heatmaps,
            tiles=options.tiles,
            overlap=options.overlap,
            min_area=options.min_area,
            levels=options.levels,
            stability=options.stability,
        )
        for answer in answers:
            item = waiting.popleft()
            if isinstance(answer, Failure):
                if len(result.failures) < _FIRST:
                    result.failures.append(answer)
                yield _failed(answer, item)
            else:
                yield _predicted(answer, item)
            del answer  # its maps, before the next one's are made


def _items(
    unit: Unit, storage: Storage, careful: Careful | None, result: UnitResult
) -> Iterator[Item]:
    """Images of a unit; those to be skipped are failures."""
    items = read_unit(unit, storage, ahead=careful is None)
    for number in count():
        if careful is not None:
            careful.report(number)
        try:
            item = next(items)
        except StopIteration:
            return
        if item is None:
            result.skipped += 1
            continue
        if careful is not None and number in careful.skip:
            name = item.source.name if isinstance(item.source, ImageInput) else item.source.path
            item = replace(item, source=Failure(name, DIED))
        yield item


def _remembered(items: Iterator[Item], waiting: deque[Item]) -> Iterator[ImageInput | Failure]:
    """The images, which wait for their answers without their content."""
    for item in items:
        source = item.source
        bare = replace(source, image="") if isinstance(source, ImageInput) else source
        waiting.append(replace(item, source=bare))
        yield source


def _predicted(answer: Prediction, item: Item) -> dict[str, Any]:
    assert isinstance(item.source, ImageInput)  # a failure is passed on as one
    line = make_line(item.source, answer, item.version)
    if answer.heatmap is not None:
        line["heatmap"] = encode_heatmap(answer.heatmap)
    return line | {"error": None, "unread": False}


def _failed(answer: Failure, item: Item) -> dict[str, Any]:
    names: Mapping[str, str | None] = {}
    if isinstance(item.source, ImageInput):
        names = {"generator": item.source.generator, "uid": item.source.uid}
    return {
        **dict.fromkeys(SCHEMA.names),
        **names,
        "path": answer.path,
        "bytes": item.version.size,
        "modified": item.version.modified,
        "error": answer.reason,
        "unread": item.unread,
    }
