"""Predicting files and folders, with the predictions written to a folder."""

from __future__ import annotations

import json
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TextIO

import numpy as np
from PIL import Image

from artifactnet.files import atomic_path
from artifactnet.inference import collect
from artifactnet.inference.base import OVERLAP, BasePredictor
from artifactnet.inference.inputs import Failure, ImageInput
from artifactnet.inference.stream import BackgroundWorker
from artifactnet.inference.xaigd_files import XaigdWriter, xaigd_writer
from artifactnet.types import ArtifactNetError, Float32Array, Prediction, UInt8Array


@dataclass(slots=True)
class Summary:
    """Counts of one call of `predict_to_folder`.

    Attributes:
        answers: the file with one JSON object per image.
        images: number of images predicted.
        fakes: number of them called fake.
        uncategorized: regions that ``instances.csv`` lacks, since they have no category.
        failures: the images that could not be predicted, and inputs without images.
    """

    answers: Path
    images: int = 0
    fakes: int = 0
    uncategorized: int = 0
    failures: list[Failure] = field(default_factory=list)


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
    batch_size: int | None = None,
    workers: int = 0,
    report: Callable[[Prediction], None] | None = None,
) -> Summary:
    """Predict files and write ``predictions.jsonl`` and ``heatmaps/<name>.png`` into ``out``.

    The pictures are 8-bit gray at the image's own size, 255 times the heatmap. Names keep folder
    and suffix, so that ``a.jpg``, ``a.png`` and ``b/a.png`` stay apart. An image that cannot be
    predicted is listed and stops nothing.

    Args:
        predictor: of a detector or of HEIE.
        inputs: files, folders (searched deeply), parquet shards of X-AIGD and glob patterns.
        out: folder to write to; files of the same names are replaced.
        heatmaps: False writes no pictures.
        save_masks: also write ``masks/`` and ``instances.csv`` as X-AIGD's scripts read them, see
            `artifactnet.inference.xaigd_files`; ``out`` must not hold masks yet.
        tiles, overlap, min_area, batch_size: see `BasePredictor.predict_stream`.
        workers: threads that decode images ahead of the model, and as many that write pictures
            behind it; 0 does both in between.
        report: called with every prediction as it comes.

    Raises:
        ArtifactNetError: ``out`` cannot be written (earlier predictions stay), masks or tiles
            without a segmentation head, or an option is out of range.
    """
    if save_masks:
        predictor.need_segmentation("masks")
    resolved = collect.resolve_inputs(inputs, skip=out)
    pending: deque[ImageInput | Failure] = deque()
    answers = predictor.predict_stream(
        _noted(collect.iterate_images(resolved), pending),
        batch_size,
        workers,
        heatmaps or save_masks,
        tiles=tiles,
        overlap=overlap,
        min_area=min_area,
    )
    writer = _Writer(Path(out), resolved, heatmaps, report, BackgroundWorker(workers, 2 * workers))
    try:
        writer.run(answers, pending, save_masks)
    except BrokenPipeError:
        raise  # whoever read the reports has left
    except OSError as error:
        raise ArtifactNetError(f"{out}: the answers cannot be written: {error}") from error
    return writer.summary


def _noted(
    sources: Iterator[ImageInput | Failure], pending: deque[ImageInput | Failure]
) -> Iterator[ImageInput | Failure]:
    """Pass sources on and note whose predictions come next, without their content."""
    for source in sources:
        if isinstance(source, ImageInput):
            pending.append(ImageInput(source.name, "", source.generator, source.uid))
        else:
            pending.append(source)
        yield source


class _Writer:
    """Writes answers and counts them."""

    def __init__(
        self,
        out: Path,
        inputs: collect.ResolvedInputs,
        heatmaps: bool,
        report: Callable[[Prediction], None] | None,
        behind: BackgroundWorker,
    ) -> None:
        self.summary = Summary(out / "predictions.jsonl", failures=list(inputs.failures))
        self._out, self._inputs = out, inputs
        self._heatmaps, self._report, self._behind = heatmaps, report, behind

    def run(
        self,
        answers: Iterator[Prediction | Failure],
        pending: deque[ImageInput | Failure],
        save_masks: bool,
    ) -> None:
        with (
            atomic_path(self.summary.answers) as temporary,
            open(temporary, "w", encoding="utf-8") as lines,
            xaigd_writer(self._out) if save_masks else nullcontext() as benchmark,
            self._behind,  # the last picture is on disk before the answers are
        ):
            for answer in answers:
                self._take(pending.popleft(), answer, lines, benchmark)
                del answer  # its maps, before the next one's are made

    def _take(
        self,
        source: ImageInput | Failure,
        answer: Prediction | Failure,
        lines: TextIO,
        benchmark: XaigdWriter | None,
    ) -> None:
        if isinstance(answer, Failure):
            self.summary.failures.append(answer)
            return
        assert isinstance(source, ImageInput)  # a failure is passed on as one
        if benchmark is not None:
            problem = benchmark.check(source)
            if problem is not None:
                self.summary.failures.append(Failure(source.name, problem))
                return
            benchmark.write(source, answer)
            self.summary.uncategorized = benchmark.uncategorized
        lines.write(json.dumps(self._entry(source, answer), allow_nan=False) + "\n")
        self.summary.images += 1
        self.summary.fakes += answer.is_fake
        if self._report is not None:
            self._report(answer)

    def _entry(self, source: ImageInput, answer: Prediction) -> dict[str, object]:
        """One line of the predictions; the heatmap is written in the background."""
        entry = answer.to_json() | {"generator": source.generator, "uid": source.uid}
        if answer.mask is None:
            entry["instances"] = None  # not computed, which differs from none found
        entry["heatmap"] = None
        if self._heatmaps and answer.heatmap is not None:
            entry["heatmap"] = f"heatmaps/{collect.answer_name(source.name, self._inputs)}.png"
            levels = _levels(answer.heatmap)  # what waits takes a quarter of the map's memory
            self._behind.do(partial(_save_levels, levels, self._out / str(entry["heatmap"])))
        return entry


def save_heatmap(heatmap: Float32Array, path: str | Path) -> None:
    """Write an (H, W) heatmap in [0, 1] as 8-bit gray PNG, 255 times its values, atomically."""
    _save_levels(_levels(heatmap), path)


def _levels(heatmap: Float32Array) -> UInt8Array:
    return np.round(np.clip(heatmap, 0.0, 1.0) * 255).astype(np.uint8)


def _save_levels(levels: UInt8Array, path: str | Path) -> None:
    with atomic_path(path) as temporary:
        # of smooth maps as small as with zlib's default strategy, in a third of the time
        Image.fromarray(levels).save(temporary, format="PNG", compress_type=zlib.Z_RLE)
