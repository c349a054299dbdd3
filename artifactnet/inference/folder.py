"""Predicting files and folders, with the predictions written to a folder."""

from __future__ import annotations

import io
import zlib
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from artifactnet.files import atomic_path, staging_folder
from artifactnet.inference import collect
from artifactnet.inference.answers import UNANSWERED, AnswerLines, partial_file
from artifactnet.inference.base import OVERLAP, BasePredictor
from artifactnet.inference.fingerprint import model_fingerprint
from artifactnet.inference.inputs import Failure, ImageInput
from artifactnet.inference.lines import Counts, Version, find_version, make_line
from artifactnet.inference.stream import BackgroundWorker
from artifactnet.inference.xaigd_files import INSTANCES, MaskWriter, mask_writer, write_instances
from artifactnet.types import ArtifactNetError, Float32Array, Prediction, UInt8Array

PREDICTIONS = "predictions.jsonl"
_STAGING = "predictions.partial"  # folder of temporary files
# of a line that may be kept
_KEYS = ("path", "verdict", "heatmap", "instances", "generator", "uid", "bytes", "modified")


@dataclass(slots=True, kw_only=True)
class Summary(Counts):
    """Counts of one call of `predict_to_folder`.

    Attributes:
        answers: the file with one JSON object per image.
        resumed: number of the images that an earlier run had predicted.
        uncategorized: regions that ``instances.csv`` lacks, since they have no category.
        warnings: what became of earlier predictions.
    """

    answers: Path
    resumed: int = 0
    uncategorized: int = 0
    warnings: list[str] = field(default_factory=list)


def predict_to_folder(
    predictor: BasePredictor,
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    heatmaps: bool = True,
    save_masks: bool = False,
    tiles: bool = False,
    overlap: float = OVERLAP,
    min_area: int = 1,
    stability: bool = False,
    levels: int | None = None,
    batch_size: int | None = None,
    workers: int = 0,
    resume: bool = False,
    report: Callable[[Prediction], None] | None = None,
    report_line: Callable[[dict[str, Any]], None] | None = None,
    expect: Callable[[int], None] | None = None,
    urls: collect.Urls = "none",
) -> Summary:
    """Predict files and write ``predictions.jsonl`` and ``heatmaps/<name>.png`` into ``out``.

    The pictures are 8-bit gray at the image's own size, 255 times the heatmap. Names keep folder
    and suffix, so that ``a.jpg``, ``a.png`` and ``b/a.png`` stay apart; see `artifactnet.names` for
    those that a file system would not take. An image that cannot be predicted is listed and stops
    nothing.

    Every prediction is appended to ``predictions.partial.jsonl`` at once, which becomes
    ``predictions.jsonl`` at the end. ``predictions.settings.json`` says what model and options made
    them.

    Args:
        predictor: of a detector or of HEIE.
        inputs: files, folders (searched deeply), parquet shards with images and glob patterns.
        out: folder to write to; files of the same names are replaced.
        heatmaps: False writes no pictures.
        save_masks: also write ``masks/`` and ``instances.csv`` as X-AIGD's scripts read them, see
            `artifactnet.inference.xaigd_files`; unless resumed, ``out`` must not hold masks yet.
        tiles, overlap, min_area, stability, levels, batch_size: see `BasePredictor.predict_stream`.
        workers: threads that decode images ahead of the model, and as many that write pictures
            behind it; 0 does both in between.
        resume: keep the predictions of an interrupted run into ``out``, or else of a finished one.
            An image is predicted again if its file has another size or time of change, or its
            heatmap is missing. The files are the same in the end as those of a run without
            interruption: in the order of the inputs, and of no other images. (The last digit of a
            number may depend on the other images of its batch.)
        report: called with every new prediction as it comes.
        report_line: called with every new line of ``predictions.jsonl`` as it comes.
        expect: called first with the number of images, for which folders are listed once more.
        urls: which URLs are inputs too, see `collect.resolve_inputs`.

    Raises:
        ArtifactNetError: ``out`` cannot be written (earlier predictions stay), masks or tiles
            without a segmentation head, an option is out of range, another process writes to
            ``out``, or the predictions to resume were made with another model or other options.
        KeyboardInterrupt: its message says how many predictions are kept, and where.
    """
    if save_masks:
        predictor.need_segmentation("masks")
    resolved = collect.resolve_inputs(inputs, out, urls)
    if expect is not None:
        expect(collect.count_images(resolved))
    pending: deque[_Waiting] = deque()
    writer = _Writer(Path(out), resolved, pending, heatmaps, report, report_line)
    answers = predictor.predict_stream(
        writer.unanswered(collect.iterate_images(resolved, writer.summary.skipped)),
        batch_size,
        workers,
        heatmaps or save_masks,
        tiles=tiles,
        overlap=overlap,
        min_area=min_area,
        stability=stability,
        levels=levels,
    )
    settings: dict[str, Any] = {
        "heatmaps": heatmaps,
        "save_masks": save_masks,
        "tiles": tiles,
        "overlap": overlap if tiles else None,
        "min_area": min_area,
        "stability": stability,
        "levels": levels,
    }  # `cluster.job.Job.settings` has the same keys
    try:
        settings["model"] = model_fingerprint(predictor)
        writer.run(answers, settings, save_masks, resume, workers)
    except BrokenPipeError:
        raise  # whoever read the reports has left
    except KeyboardInterrupt as stop:
        if writer.kept:
            partial_answers = partial_file(writer.summary.answers)
            stop.args = (f"{writer.kept} predictions are in {partial_answers}; --resume continues",)
        raise
    except OSError as error:
        raise ArtifactNetError(f"{out}: the answers cannot be written: {error}") from error
    return writer.summary


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An image whose prediction comes, without its content, or why none comes."""

    position: int  # among all images
    source: ImageInput | Failure
    version: Version


class _Writer:
    """Writes answers and counts them.

    Attributes:
        kept: answers in the partial file.
    """

    def __init__(
        self,
        out: Path,
        inputs: collect.ResolvedInputs,
        pending: deque[_Waiting],
        heatmaps: bool,
        report: Callable[[Prediction], None] | None,
        report_line: Callable[[dict[str, Any]], None] | None,
    ) -> None:
        self.summary = Summary(answers=out / PREDICTIONS, failures=list(inputs.failures))
        self.kept = 0
        self._out, self._inputs, self._pending = out, inputs, pending
        self._heatmaps, self._report, self._report_line = heatmaps, report, report_line
        self._order = array("q")  # offset of each image's line
        self._resume = False
        self._again = 0  # earlier answers that do not hold any more
        self._masks: MaskWriter | None = None

    def unanswered(self, sources: Iterable[ImageInput | Failure]) -> Iterator[ImageInput | Failure]:
        """The images that have no answer yet; those that have are counted."""
        for source in sources:
            version = find_version(source)
            offset = self._find(source, version) if isinstance(source, ImageInput) else UNANSWERED
            position = len(self._order)
            self._order.append(offset)
            if offset == UNANSWERED:
                bare = replace(source, image="") if isinstance(source, ImageInput) else source
                self._pending.append(_Waiting(position, bare, version))
                yield source

    def run(
        self,
        answers: Iterator[Prediction | Failure],
        settings: dict[str, Any],
        save_masks: bool,
        resume: bool,
        workers: int,
    ) -> None:
        with staging_folder(self._out / _STAGING) as self._staging, ExitStack() as stack:
            if save_masks:
                self._masks = stack.enter_context(mask_writer(self._out, resume))
            if not resume and partial_file(self.summary.answers).exists():
                self.summary.warnings.append(
                    f"{partial_file(self.summary.answers)} of an interrupted run was replaced; "
                    "--resume would have continued it"
                )
            self._lines = stack.enter_context(
                AnswerLines(self.summary.answers, self._staging, settings, resume, _KEYS)
            )
            # masks that are missing are answers, so without any folder of them nothing is known
            self._resume = self._masks is None or self._masks.resumed
            with BackgroundWorker(workers, 2 * workers) as self._behind:
                for answer in answers:
                    self._take(self._pending.popleft(), answer)
                    del answer  # its maps, before the next one's are made
            # the last picture is on disk now
            self._warn()
            if self._masks is not None:
                if self._masks.resumed:
                    self._masks.keep_only_taken(self._lines.all_earlier())
                self.summary.uncategorized = write_instances(
                    self._out / INSTANCES, self._lines.entries(self._order), self._staging
                )
            self._lines.finish(self._order)

    def _find(self, source: ImageInput, version: Version) -> int:
        """Offset of the earlier answer about an image, if it still holds."""
        found = self._lines.find(source.name)
        if found is None:
            return UNANSWERED
        offset, entry = found
        if not self._holds(entry, source, version):
            self._again += 1
            return UNANSWERED
        if self._masks is not None:
            self._masks.take(source)
        self.summary.count(entry)
        self.summary.resumed += 1
        return offset

    def _holds(self, entry: Mapping[str, Any], source: ImageInput, version: Version) -> bool:
        """Whether an earlier answer is of this very image, and its pictures are there."""
        if not self._resume or (self._masks is not None and self._masks.check(source)):
            return False
        if version.size is None:  # of what has no file nothing is known
            return False
        if (entry.get("bytes"), entry.get("modified")) != (version.size, version.modified):
            return False
        heatmap = entry.get("heatmap")
        return heatmap is None or (
            heatmap == self._heatmap(source) and (self._out / heatmap).is_file()
        )

    def _take(self, waiting: _Waiting, answer: Prediction | Failure) -> None:
        source = waiting.source
        if isinstance(answer, Failure):
            self.summary.failures.append(answer)
            return
        assert isinstance(source, ImageInput)  # a failure is passed on as one
        if self._masks is not None:
            problem = self._masks.check(source)
            if problem is not None:
                self.summary.failures.append(Failure(source.name, problem))
                return
            self._masks.write(source, answer)
        entry = self._entry(source, answer, waiting.version)
        self._order[waiting.position] = self._lines.append(entry)
        self.kept = self._lines.earlier + self._lines.appended
        self.summary.count(entry)
        if self._report is not None:
            self._report(answer)
        if self._report_line is not None:
            self._report_line(entry)

    def _entry(self, source: ImageInput, answer: Prediction, version: Version) -> dict[str, Any]:
        """One line of the predictions; the heatmap is written in the background."""
        entry = make_line(source, answer, version)
        if self._heatmaps and answer.heatmap is not None:
            entry["heatmap"] = self._heatmap(source)
            levels = _levels(answer.heatmap)  # what waits takes a quarter of the map's memory
            path = self._out / entry["heatmap"]
            self._behind.do(partial(_save_levels, levels, path, self._staging))
        return entry

    def _heatmap(self, source: ImageInput) -> str:
        return f"heatmaps/{collect.answer_name(source.name, self._inputs)}.png"

    def _warn(self) -> None:
        """About earlier answers that are not among the finished ones."""
        absent = self._lines.images - self.summary.resumed - self._again
        counts = {
            "earlier predictions were not kept: their images have changed, or pictures are gone": (
                self._again
            ),
            "earlier predictions were left out: their images are not among the inputs": absent,
            "damaged lines of earlier predictions were left out": self._lines.broken,
        }
        self.summary.warnings += [f"{count} {what}" for what, count in counts.items() if count]


def save_heatmap(heatmap: Float32Array, path: str | Path, staging: Path | None = None) -> None:
    """Write an (H, W) heatmap in [0, 1] as 8-bit gray PNG, 255 times its values, atomically.

    See `artifactnet.files.atomic_path` for ``staging``.
    """
    _save_levels(_levels(heatmap), path, staging)


def encode_heatmap(heatmap: Float32Array) -> bytes:
    """An (H, W) heatmap in [0, 1] as the content of the PNG file that `save_heatmap` writes."""
    buffer = io.BytesIO()
    _write_png(_levels(heatmap), buffer)
    return buffer.getvalue()


def _levels(heatmap: Float32Array) -> UInt8Array:
    return np.round(np.clip(heatmap, 0.0, 1.0) * 255).astype(np.uint8)


def _save_levels(levels: UInt8Array, path: str | Path, staging: Path | None = None) -> None:
    with atomic_path(path, staging) as temporary:
        _write_png(levels, temporary)


def _write_png(levels: UInt8Array, file: Path | io.BytesIO) -> None:
    # of smooth maps as small as with zlib's default strategy, in a third of the time
    Image.fromarray(levels).save(file, format="PNG", compress_type=zlib.Z_RLE)
