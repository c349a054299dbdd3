"""One JSON object per image: what a prediction says, and of which file."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from artifactnet.data.image_files import Skipped
from artifactnet.inference import collect
from artifactnet.inference.base import OVERLAP, BasePredictor
from artifactnet.inference.inputs import Failure, ImageInput
from artifactnet.types import Prediction


@dataclass(slots=True)
class Counts:
    """Counts of the images of one call.

    Attributes:
        images: number of images predicted, earlier ones included.
        fakes: number of ``images`` called fake.
        uncertain: number of ``images`` whose verdict is uncertain.
        unstable: number of ``images`` whose verdict flips between re-encodings, if these were
            predicted.
        failures: the images that could not be predicted, and inputs without images.
        skipped: files of the folders that are no images.
    """

    images: int = 0
    fakes: int = 0
    uncertain: int = 0
    unstable: int = 0
    failures: list[Failure] = field(default_factory=list)
    skipped: Skipped = field(default_factory=Skipped)

    def count(self, line: Mapping[str, Any]) -> None:
        """Count an image by its line."""
        self.images += 1
        self.fakes += line["verdict"] == "fake"
        self.uncertain += line["verdict"] == "uncertain"
        self.unstable += bool((line.get("stability") or {}).get("unstable"))


@dataclass(frozen=True, slots=True)
class Version:
    """Of an image: its bytes, and when its file was changed (seconds since 1970)."""

    size: int | None = None
    modified: float | None = None


def find_version(source: ImageInput | Failure) -> Version:
    """Of the file, or of a row's content and its shard; nothing where it cannot be looked at."""
    if isinstance(source, Failure):
        return Version()
    content = source.image if isinstance(source.image, bytes) else None
    file = source.name if content is None else source.name.rpartition("#")[0]
    try:
        status = os.stat(file)
    except OSError:
        return Version()  # predicting it says what is wrong
    return Version(status.st_size if content is None else len(content), status.st_mtime)


def make_line(source: ImageInput, answer: Prediction, version: Version) -> dict[str, Any]:
    """The line of an image, ready for JSON; its heatmap is written nowhere."""
    line = answer.to_json() | {"generator": source.generator, "uid": source.uid}
    if answer.mask is None:
        line["instances"] = None  # not computed, which differs from none found
    return line | {"heatmap": None, "bytes": version.size, "modified": version.modified}


def predict_lines(
    predictor: BasePredictor,
    inputs: Sequence[str | Path],
    report_line: Callable[[dict[str, Any]], None],
    *,
    tiles: bool = False,
    overlap: float = OVERLAP,
    min_area: int = 1,
    stability: bool = False,
    levels: int | None = None,
    batch_size: int | None = None,
    workers: int = 0,
    report: Callable[[Prediction], None] | None = None,
    expect: Callable[[int], None] | None = None,
    urls: collect.Urls = "none",
) -> Counts:
    """Predict files without writing anything.

    The lines are those that `artifactnet.inference.folder.predict_to_folder` would write without
    heatmaps. An image that cannot be predicted is listed and stops nothing.

    Args:
        predictor: of any kind.
        inputs: files, folders (searched deeply), parquet shards with images and glob patterns.
        report_line: called with the line of every image, in the order of the inputs, as it comes.
        tiles, overlap, min_area, stability, levels, batch_size, workers: see
            `BasePredictor.predict_stream`.
        report: called with every prediction as it comes.
        expect: called first with the number of images, for which folders are listed once more.
        urls: which URLs are inputs too, see `collect.resolve_inputs`.

    Raises:
        ArtifactNetError: tiles without a segmentation head, or an option is out of range.
    """
    resolved = collect.resolve_inputs(inputs, "", urls)
    if expect is not None:
        expect(collect.count_images(resolved))
    counts = Counts(failures=list(resolved.failures))
    waiting: deque[tuple[ImageInput | Failure, Version]] = deque()
    answers = predictor.predict_stream(
        _remembered(collect.iterate_images(resolved, counts.skipped), waiting),
        batch_size,
        workers,
        False,
        tiles=tiles,
        overlap=overlap,
        min_area=min_area,
        stability=stability,
        levels=levels,
    )
    for answer in answers:
        source, version = waiting.popleft()
        if isinstance(answer, Failure):
            counts.failures.append(answer)
            continue
        assert isinstance(source, ImageInput)  # a failure is passed on as one
        line = make_line(source, answer, version)
        counts.count(line)
        report_line(line)
        if report is not None:
            report(answer)
    return counts


def _remembered(
    sources: Iterable[ImageInput | Failure],
    waiting: deque[tuple[ImageInput | Failure, Version]],
) -> Iterator[ImageInput | Failure]:
    """The images, which wait for their answers without their content."""
    for source in sources:
        bare = replace(source, image="") if isinstance(source, ImageInput) else source
        waiting.append((bare, find_version(source)))
        yield source
