"""What FakeXplainer is asked about each image, and what it should answer."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from artifactnet.config import Config
from artifactnet.data.datamodule import build_splits, drop_and_summarize, labels_of
from artifactnet.data.sources.base import Source
from artifactnet.taxonomy import CATEGORIES
from artifactnet.types import ArtifactNetError, Region, Sample, UInt8Array
from artifactnet.vlm.fakexplainer.grammar import MAX_REGIONS
from artifactnet.vlm.fakexplainer.processing import FakexplainerProcessing

# captions of regions that are made of masks: a category of X-AIGD, or an artifact without one
CAPTIONS = {category.bit: f"{category.short} look wrong" for category in CATEGORIES}
UNNAMED = "area that looks wrong"


@dataclass(frozen=True, slots=True)
class Row:
    """One image of a split with its true answer.

    Attributes:
        index: of the image in its source.
        location: of the image, for people.
        is_fake: whether it was generated.
        generator: ``real`` for photographs.
        regions: in pixels of the image as shown; None: nobody annotated them.
        tags: of `taxonomy.TAGS`; None likewise.
        size: (width, height) of the image as shown.
        input_size: (width, height) of the model's coordinates for it.
        answer: what the model should write.
    """

    index: int
    location: str
    is_fake: bool
    generator: str
    regions: tuple[Region, ...] | None
    tags: tuple[str, ...] | None
    size: tuple[int, int]
    input_size: tuple[int, int]
    answer: str


class TaskData:
    """The splits of a run as rows.

    Attributes:
        splits: the sources, by split name.
        summary: what `artifactnet.data.checks.summarize_data` counted, and its ``warnings``.
    """

    def __init__(self, config: Config, processing: FakexplainerProcessing) -> None:
        splits = build_splits(config.data, config.seed)
        self.splits, self.summary = drop_and_summarize(splits, config.data)
        self._config, self._processing = config, processing

    def rows(self, split: str) -> list[Row]:
        """Rows of a split, in its order; every image is opened once for its size and regions.

        Fakes that no valid answer describes (neither region nor tag) are left out of training
        and validation with a warning, unless only verdicts are learned.

        Raises:
            ArtifactNetError: the split is missing or empty; a caption holds a control word of the
                language model, an answer is longer than ``mllm.max_new_tokens``; for ``train``
                also: it holds one class only.
        """
        source, config = self._source(split), self._config
        rows, nothing, failed, crowded = [], [], [], []
        for index, record in enumerate(source.records):
            try:
                sample = source.load(index)
            except ArtifactNetError:
                if config.data.on_error != "skip":
                    raise
                failed.append(record.location)
                continue
            row = self._row(index, sample)
            describes = row.regions or row.tags or self._processing.drop == "label"
            if split != "test" and row.is_fake and not describes:
                nothing.append(record.location)
                continue
            rows.append(row)
            if len(row.regions or ()) > MAX_REGIONS:
                crowded.append(record.location)
        for reason, names in (
            ("fakes have neither regions nor tags, so no answer describes them: left out", nothing),
            ("images cannot be used: left out", failed),
            (f"images have more than {MAX_REGIONS} regions: their largest are learned", crowded),
        ):
            if names:
                self.summary["warnings"].append(f"{split}: {len(names)} {reason}, e.g. {names[0]}")
        if split == "train":
            self._check_train(rows)
            if config.data.balance:
                rows = _balanced(rows, config.seed)
        return rows

    def image(self, split: str, row: Row) -> UInt8Array:
        """(H, W, 3) sRGB pixels of a row's image."""
        return self._source(split).load(row.index).image

    def _source(self, split: str) -> Source:
        labels_of(self.splits, split, self._config.data.name)
        return self.splits[split]

    def _row(self, index: int, sample: Sample) -> Row:
        record, processing = sample.record, self._processing
        height, width = sample.image.shape[:2]
        regions = sample.regions
        if regions is None and sample.mask is not None:
            regions = regions_of_mask(sample.mask)
        try:
            for region in regions or ():
                processing.check_text(region.caption, f"caption {region.caption!r:.60}")
            input_size = processing.input_size((width, height))
            learned = _largest(regions or ())
            tags = sample.tags or ()
            answer = processing.answer(bool(record.label), learned, tags, (width, height))
            limit, length = self._config.mllm.max_new_tokens, len(processing.tokenize(answer)) + 1
            if length > limit:
                raise ArtifactNetError(
                    f"its answer has {length} tokens, more than mllm.max_new_tokens={limit}: raise "
                    "that, or annotate fewer regions"
                )
        except ArtifactNetError as error:
            raise ArtifactNetError(f"{record.location}: {error}") from None
        return Row(
            index,
            record.location,
            bool(record.label),
            record.generator,
            regions,
            sample.tags,
            (width, height),
            input_size,
            answer,
        )

    def _check_train(self, rows: Sequence[Row]) -> None:
        classes = Counter(row.is_fake for row in rows)
        if len(classes) < 2:
            only = "no" if not classes else "only fake" if True in classes else "only real"
            warnings = [w for w in self.summary["warnings"] if w.startswith("train: ")]
            raise ArtifactNetError(
                f"data.name={self._config.data.name}: the train split has {only} images that can "
                "be answered; fakexplainer learns from real and annotated fake ones"
                + "".join(f"; {warning}" for warning in warnings)
            )


def _largest(regions: Sequence[Region]) -> list[Region]:
    """The largest regions, at most as many as an answer may have, in their order."""

    def area(number: int) -> float:
        x1, y1, x2, y2 = regions[number].bbox
        return (x2 - x1) * (y2 - y1)

    kept = sorted(range(len(regions)), key=area, reverse=True)[:MAX_REGIONS]
    return [regions[number] for number in sorted(kept)]


def regions_of_mask(mask: UInt8Array) -> tuple[Region, ...]:
    """Boxes of the 8-connected regions of a bit-field mask (H, W), category by category.

    Their captions are fixed phrases. An artifact without a category is used where no category is.
    """
    found = []
    for category in CATEGORIES:
        found += _boxes((mask & category.bit) > 0, CAPTIONS[category.bit])
    return tuple(found or _boxes(mask > 0, UNNAMED))


def _boxes(mask: npt.NDArray[np.bool_], caption: str) -> list[Region]:
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    boxes = [tuple(map(float, (x, y, x + w, y + h))) for x, y, w, h, _ in stats[1:]]
    return [Region((x1, y1, x2, y2), caption) for x1, y1, x2, y2 in sorted(boxes)]


def _balanced(rows: list[Row], seed: int) -> list[Row]:
    """The rows, and of the rarer class as many drawn again as it lacks."""
    classes = [[row for row in rows if row.is_fake is value] for value in (False, True)]
    few, many = sorted(classes, key=len)
    lacking = len(many) - len(few)
    draw = random.Random(f"{seed} balance")
    again = few * (lacking // len(few)) + draw.sample(few, lacking % len(few))
    return [*rows, *again]
