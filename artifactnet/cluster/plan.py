"""Which units a job has, which of them are done, and the manifest when all are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from uuid import uuid4

from artifactnet.cluster.job import Job
from artifactnet.cluster.parts import (
    PARTS,
    SETTINGS,
    TEMPORARY,
    Answers,
    PartCounts,
    write_failed,
    write_manifest,
)
from artifactnet.cluster.sources import list_units
from artifactnet.cluster.storage import Storage, is_remote, split_lines, split_url
from artifactnet.cluster.units import Unit, digest
from artifactnet.cluster.worker import UnitResult
from artifactnet.data.image_files import Skipped
from artifactnet.inference.answers import check_settings
from artifactnet.inference.inputs import Failure
from artifactnet.inference.stream import prefetch
from artifactnet.types import ArtifactNetError

_COUNTERS = 16  # threads that look into earlier parts
_TOLD = 20  # failures that are told by name


@dataclass(slots=True)
class Summary:
    """What became of a job.

    Attributes:
        out: folder of the answers.
        counts: of all parts.
        resumed: predictions of an earlier run's parts.
        parts: how many parts there are.
        failures: the first images without prediction of this run, and why.
        lost: units without part, by the name of their source: their workers died again and again.
        skipped: files of folders that are no images, as far as the listing knew.
        others: such files that only a worker could tell.
        warnings: what became of earlier parts.
    """

    out: str
    counts: PartCounts = field(default_factory=PartCounts)
    resumed: int = 0
    parts: int = 0
    failures: list[Failure] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    skipped: Skipped = field(default_factory=Skipped)
    others: int = 0
    warnings: list[str] = field(default_factory=list)


class Plan:
    """The units of a job, listed once.

    What is to do is written to a file, since a billion names fit into no memory; of each unit its
    id, its source and its counts are kept.

    Args:
        job: what to do.
        resume: keep the parts of an earlier run. A unit is done again if one of its files has
            another size or time of change, or could not be read; one of a manifest if its lines
            have changed.

    Attributes:
        todo: how many units are to be done.
        images: how many images these hold, as far as known.
        file: name of the temporary file that lists them.
        summary: what has become of them.

    Raises:
        ArtifactNetError: an input stands for nothing; the folder holds answers and ``resume`` was
            not asked for, or they were made with other settings or of other inputs; or it cannot be
            written.
    """

    def __init__(self, job: Job, resume: bool) -> None:
        self._job, self._answers = job, Answers(job.out)
        self._settings = job.settings_id()
        self._inputs = [split_url(s)[1] if is_remote(s) else s for s in job.sources]
        self._same_inputs = False  # as those of the earlier run
        self._order: dict[str, str] = {}  # id -> source of each unit, in the order of the inputs
        self._counts: dict[str, PartCounts] = {}
        self.summary = Summary(self._answers.name)
        self.todo = self.images = 0
        self.file = f"plan-{uuid4().hex}.jsonl"
        try:
            earlier = self._answers.list_parts()
            self._check(earlier, resume)
            self._answers.make_folders()
            done = self._usable(earlier)
            self._answers.write_lines(f"{TEMPORARY}/{self.file}", self._list(done))
            if earlier and not self._same_inputs and not earlier & self._order.keys():
                raise ArtifactNetError(
                    f"{self._answers.name}: none of its {len(earlier)} parts is about these "
                    "inputs; name another folder"
                )
            about = {"answers": PARTS, "inputs": self._inputs, **job.settings()}
            self._answers.write_json(SETTINGS, about)
            self._drop(earlier - self._order.keys())
        except OSError as error:
            raise write_failed(self._answers, error) from error

    def units(self) -> Iterator[Unit]:
        """The units that are to be done."""
        return map(Unit.from_json, read_plan(self._job.out, self.file))

    def take(self, result: UnitResult) -> None:
        """A unit is done."""
        summary = self.summary
        self._counts[result.unit] = result.counts
        summary.counts.add(result.counts)
        summary.parts += 1
        summary.others += result.skipped
        summary.failures += result.failures[: _TOLD - len(summary.failures)]

    def finish(self) -> Summary:
        """Write the manifest and remove the temporary files.

        Raises:
            ArtifactNetError: they cannot be written.
        """
        summary = self.summary
        summary.lost = [source for unit, source in self._order.items() if unit not in self._counts]
        about = {
            "settings": self._settings,
            **asdict(summary.counts),
            "lost": len(summary.lost),
        }
        try:
            write_manifest(self._answers, about, self._order.items(), self._counts)
            self._answers.clear_temporary()
        except OSError as error:
            raise write_failed(self._answers, error) from error
        return summary

    def _check(self, earlier: set[str], resume: bool) -> None:
        """Refuse answers of another job."""
        name = self._answers.name
        if not earlier:
            return
        if not resume:
            raise ArtifactNetError(
                f"{name}: holds {len(earlier)} parts of an earlier run; --resume continues it, or "
                "name another folder"
            )
        saved = self._answers.read_json(SETTINGS)
        advice = "write to another folder"
        check_settings(name, SETTINGS, saved, self._job.settings(), advice)
        self._same_inputs = saved.get("inputs") == self._inputs

    def _usable(self, earlier: set[str]) -> dict[str, PartCounts]:
        """The earlier parts that can stay: whole, of these settings, and all of it was read."""

        def count(unit: str) -> PartCounts | None:
            return self._answers.count(unit, self._settings)

        units = sorted(earlier)
        counts = prefetch(count, units, _COUNTERS if units else 0, 4 * _COUNTERS)
        return {
            unit: found
            for unit, found in zip(units, counts, strict=True)
            if found is not None and not found.unread
        }

    def _list(self, done: dict[str, PartCounts]) -> Iterator[str]:
        """Lines of the units that are to be done; the others are counted."""
        job, summary = self._job, self.summary
        storage = Storage(job.sources, job.folder)
        for unit in list_units(job.sources, storage, job.out, job.together, summary.skipped):
            line = unit.to_json()
            name = digest(line)  # `unit.id`
            if name in self._order:
                continue  # the same file, named twice
            self._order[name] = unit.source
            if name in done:
                self._counts[name] = done[name]
                summary.counts.add(done[name])
                summary.parts += 1
                summary.resumed += done[name].rows - done[name].errors
                continue
            self.todo += 1
            self.images += unit.images or 0
            yield line.decode() + "\n"

    def _drop(self, stale: set[str]) -> None:
        """Remove earlier parts that are of no unit any more."""
        self._answers.remove_parts(stale)
        if stale:
            self.summary.warnings.append(
                f"{len(stale)} earlier parts were removed: their files have changed, or are not "
                "among the inputs"
            )


def read_plan(out: str, file: str) -> Iterator[bytes]:
    """The units of a plan, as `Unit.to_json` writes them, on any machine.

    Args:
        out: of the job.
        file: of the plan.

    Raises:
        OSError: it cannot be read.
    """
    with Answers(out).open_temporary(file) as stream:
        yield from split_lines(stream)
