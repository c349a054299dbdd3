"""Images with regions as questions and true answers (FakeXplainer; X-AIGD, App. C.3)."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from artifactnet.config import Config
from artifactnet.data.datamodule import build_splits, drop_and_summarize, labels_of
from artifactnet.data.regions import annotated_regions
from artifactnet.data.sources.base import Source
from artifactnet.types import ArtifactNetError, Region, Sample, UInt8Array
from artifactnet.vlm.coordinates import Size
from artifactnet.vlm.fakexplainer.grammar import MAX_REGIONS, Drop


class AnswerForm(Protocol):
    """How a model writes answers."""

    drop: Drop

    def check_text(self, text: str, what: str) -> None:
        """See `artifactnet.vlm.processing.ChatProcessing.check_text`."""
        ...

    def tokenize(self, text: str) -> list[int]:
        """See `artifactnet.vlm.processing.ChatProcessing.tokenize`."""
        ...

    def input_size(self, image_size: Size) -> Size:
        """See `artifactnet.vlm.image_chat.ImageChat.input_size`."""
        ...

    def answer(
        self, is_fake: bool, regions: Sequence[Region], tags: Sequence[str], image_size: Size
    ) -> str:
        """The answer that the model should give; regions are in pixels of the image.

        Raises:
            ArtifactNetError: no answer can describe them.
        """
        ...


@dataclass(frozen=True, slots=True)
class Row:
    """One image of a split with its true answer.

    Attributes:
        index: of the image in its source.
        location: of the image, for people.
        is_fake: whether it was generated.
        regions: in pixels of the image as shown; None: nobody annotated them.
        tags: of `taxonomy.TAGS`; None likewise.
        size: (width, height) of the image as shown.
        input_size: (width, height) of the model's coordinates for it.
        answer: what the model should write.
    """

    index: int
    location: str
    is_fake: bool
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

    def __init__(self, config: Config) -> None:
        splits = build_splits(config.data, config.seed)
        self.splits, self.summary = drop_and_summarize(splits, config.data)
        self._config = config

    def rows(self, split: str, processing: AnswerForm, *, clean_fakes: bool = False) -> list[Row]:
        """Rows of a split, in its order; every image is opened once for its size and regions.

        Fakes at which nobody looked, or about which there is nothing to say (neither region nor
        tag), are left out with a warning, unless only verdicts are learned; ``clean_fakes`` keeps
        those at which somebody looked.

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
            row = self._row(index, sample, processing)
            if row.is_fake and not (processing.drop == "label" or _is_described(row, clean_fakes)):
                nothing.append(record.location)
                continue
            rows.append(row)
            if len(row.regions or ()) > MAX_REGIONS:
                crowded.append(record.location)
        for reason, names in (
            ("fakes have no annotated region, or nothing to say about them: left out", nothing),
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

    def _row(self, index: int, sample: Sample, processing: AnswerForm) -> Row:
        record = sample.record
        height, width = sample.image.shape[:2]
        regions = annotated_regions(sample)
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
            where = f"{record.where}: {record.location}" if record.where else record.location
            raise ArtifactNetError(f"{where}: {error}") from None
        return Row(
            index,
            record.location,
            bool(record.label),
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
                f"be answered; {self._config.mllm.task} learns from real and annotated fake ones"
                + "".join(f"; {warning}" for warning in warnings)
            )


class RowExamples:
    """Rows of a split as examples of `artifactnet.vlm.sft.learn_answers`, and for GRPO.

    Args:
        data: opens the images.
        split: of the rows.
        rows: what is learned; may be empty.
        messages: the question as chat messages.
    """

    def __init__(
        self, data: TaskData, split: str, rows: Sequence[Row], messages: list[dict[str, Any]]
    ) -> None:
        self._data, self._split, self.rows, self._messages = data, split, rows, messages

    def __len__(self) -> int:
        return len(self.rows)

    def example(self, number: int) -> tuple[UInt8Array, list[dict[str, Any]], str]:
        """Pixels, chat messages and answer of a row."""
        row = self.rows[number]
        return self._data.image(self._split, row), self._messages, row.answer


def _is_described(row: Row, clean_fakes: bool) -> bool:
    return row.regions is not None and bool(clean_fakes or row.regions or row.tags)


def _largest(regions: Sequence[Region]) -> list[Region]:
    """The largest regions, at most as many as an answer may have, in their order."""

    def area(number: int) -> float:
        x1, y1, x2, y2 = regions[number].bbox
        return (x2 - x1) * (y2 - y1)

    kept = sorted(range(len(regions)), key=area, reverse=True)[:MAX_REGIONS]
    return [regions[number] for number in sorted(kept)]


def _balanced(rows: list[Row], seed: int) -> list[Row]:
    """The rows, and of the rarer class as many drawn again as it lacks."""
    classes = [[row for row in rows if row.is_fake is value] for value in (False, True)]
    few, many = sorted(classes, key=len)
    lacking = len(many) - len(few)
    draw = random.Random(f"{seed} balance")
    again = few * (lacking // len(few)) + draw.sample(few, lacking % len(few))
    return [*rows, *again]
