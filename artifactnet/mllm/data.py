"""The data of a HEIE's training: splits, loaders, and who wrote the texts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from artifactnet.config import Config
from artifactnet.data.checks import summarize
from artifactnet.data.datamodule import BatchLoader, build_splits, labels_of
from artifactnet.data.dataset import Key, derive_seed
from artifactnet.data.duplicates import drop_duplicates
from artifactnet.data.manifest import ManifestSource
from artifactnet.data.sampler import EpochSampler
from artifactnet.data.source import Source, Splits
from artifactnet.mllm.examples import (
    QUESTIONS,
    Example,
    TextBatch,
    checked,
    collate,
    target_of,
    text_of,
)
from artifactnet.mllm.processing import Processing
from artifactnet.types import Annotation, ArtifactNetError, Record

logger = logging.getLogger(__name__)


class TextDataset(Dataset["Example | None"]):
    """Examples of one split.

    Args:
        source: the images of the split.
        config: the run.
        train: draw questions; an image that is to be skipped is replaced by the next one of its
            class. Otherwise every image comes once with the default question.
        processing: of the model.
    """

    def __init__(self, source: Source, config: Config, train: bool, processing: Processing) -> None:
        self.source = source
        self._processing = processing
        self._mode, self._seed = config.mllm.text, config.seed
        self._skip, self._train = config.data.on_error == "skip", train
        # in shared memory, since worker processes find them
        self._bad = torch.zeros(len(source.records), dtype=torch.bool).share_memory_()

    def __len__(self) -> int:
        """Number of images, usable or not."""
        return len(self.source.records)

    @property
    def skipped(self) -> list[str]:
        """Locations of the images found unusable so far."""
        return [self.source.records[k].location for k in self._bad.nonzero().flatten().tolist()]

    def __getitem__(self, key: Key | tuple[int, int]) -> Example | None:
        """Example of a key; None where an unusable image is left out.

        Raises:
            ArtifactNetError: the image or its text cannot be used, and ``data.on_error`` is
                ``raise``; or none of its class can.
        """
        key = Key(*key)
        records = self.source.records
        for step in range(len(records) if self._train else 1):
            index = (key.item + step) % len(records)
            if records[index].label != records[key.item].label:
                continue
            try:
                return self._example(index, key)
            except ArtifactNetError as error:
                if not self._skip:
                    raise
                if not self._bad[index]:
                    self._bad[index] = True
                    where = records[index].location
                    logger.warning("skipped %s (data.on_error=skip): %s", where, error)
        if not self._train:
            return None
        raise ArtifactNetError(
            f"not one usable image is left beside {records[key.item].location} "
            "(data.on_error=skip): run with data.on_error=raise to see what is wrong"
        )

    def __getitems__(self, keys: Sequence[Key]) -> list[Example | None] | ArtifactNetError:
        """Examples of a batch, or the error, which `BatchLoader` raises in the main process."""
        try:
            return [self[key] for key in keys]
        except ArtifactNetError as error:
            return ArtifactNetError(str(error))

    def _example(self, index: int, key: Key) -> Example:
        sample = self.source.load(index)
        text, told = text_of(sample, self._mode, self._processing)
        question = None
        if self._train:
            draw = derive_seed(self._seed, key.epoch, index, key.repeat)
            question = QUESTIONS[draw % len(QUESTIONS)]
        score = float("nan") if sample.score is None else sample.score
        return Example(
            *(sample.record, sample.image, question, text, told, target_of(sample), score),
            counts=self._train or not key.repeat,
        )


class InStep(EpochSampler):
    """Evaluation order that gives all processes equally many batches, as FSDP needs.

    There every forward pass gathers weights from all processes: one that is short of a batch
    would leave the others waiting for ever. It gets one more, of an image that does not count
    (``Key.repeat`` is 1); since shares differ by one image at most, it is a batch of its own.
    """

    def __len__(self) -> int:
        """Number of images, with the one that does not count."""
        return super().__len__() + self._short()

    def __iter__(self) -> Iterator[Key]:
        """Keys of this process."""
        yield from super().__iter__()
        if self._short():
            yield Key(self.epoch, 0, 1)

    def _short(self) -> int:
        first = len(range(0, len(self.labels), self.world))  # no process has more images
        own = super().__len__()
        return -(-first // self.batch_size) - -(-own // self.batch_size)


class TextData:
    """The data of a run, without augmentation: `data.augment` is not used.

    Args:
        config: the run; no image is decoded unless ``data.check`` asks for it.
        processing: of the model.

    Attributes:
        splits: the sources, by split name.
        summary: what `artifactnet.data.checks.summarize` counted, its ``warnings``, and under
            ``texts`` for each split how many texts are ``written``, ``made`` from an annotation,
            or ``none``.

    Raises:
        ArtifactNetError: the data cannot be used; the message says why.
    """

    def __init__(self, config: Config, processing: Processing) -> None:
        self.config, self.processing = config, processing
        self.splits = build_splits(config.data, config.seed)
        written = _written(self.splits, config, processing)
        dropped: list[str] = []
        if config.data.on_error == "skip" and config.data.check == "full":
            self.splits, dropped = drop_duplicates(self.splits)
        self.summary: dict[str, Any] = summarize(self.splits, config.data.check)
        if dropped:
            self.summary["warnings"].append(
                f"{len(dropped)} images left out because another split has them too, e.g. "
                f"{dropped[0]}"
            )
        counts = _count(self.splits, written, config.mllm.text)
        self.summary["texts"] = counts
        self.summary["warnings"] += _unwritten(counts, config.mllm.text)
        self._datasets: dict[str, TextDataset] = {}

    @property
    def skipped(self) -> dict[str, list[str]]:
        """Locations of the images skipped so far, by split (``data.on_error=skip``)."""
        return {split: dataset.skipped for split, dataset in self._datasets.items()}

    @property
    def judged(self) -> str:
        """``test``, or ``val`` where there is no test image."""
        return "test" if "test" in self.splits and self.splits["test"].records else "val"

    def train_loader(self, rank: int = 0, world: int = 1) -> DataLoader[TextBatch]:
        """Shuffled batches; call ``loader.sampler.set_epoch`` before each epoch.

        Args:
            rank: this process, from 0.
            world: number of processes.

        Raises:
            ArtifactNetError: there is no train split.
        """
        return self._loader("train", partial(collate, processing=self.processing), rank, world)

    def val_loader(self, rank: int = 0, world: int = 1) -> DataLoader[TextBatch]:
        """Validation batches in fixed order, every image once, see `EpochSampler` and `InStep`.

        Raises:
            ArtifactNetError: there is no val split.
        """
        return self._loader("val", partial(collate, processing=self.processing), rank, world)

    def example_loader(self, split: str) -> DataLoader[list[Example]]:
        """Lists of examples of a split in fixed order, every image once, not yet encoded.

        Raises:
            ArtifactNetError: there is no such split.
        """
        return self._loader(split, _listed, 0, 1)

    def _loader(
        self, split: str, join: Callable[[Any], Any], rank: int, world: int
    ) -> DataLoader[Any]:
        config, train = self.config.data, split == "train"
        labels = labels_of(self.splits, split, config.name)
        if split not in self._datasets:
            source = self.splits[split]
            self._datasets[split] = TextDataset(source, self.config, train, self.processing)
        size = config.batch_size if train else config.eval_batch_size or config.batch_size
        kind = InStep if self.config.train.strategy == "fsdp" and not train else EpochSampler
        sampler = kind(
            labels,
            batch_size=size,
            seed=self.config.seed,
            shuffle=train,
            balance=train and config.balance,
            groups=[r.uid for r in self.splits[split].records] if train and config.pairs else None,
            rank=rank,
            world=world,
        )
        return BatchLoader(
            self._datasets[split],
            batch_size=size,
            sampler=sampler,
            collate_fn=join,
            num_workers=config.workers,
            persistent_workers=config.workers > 0,
            generator=torch.Generator(),  # else each pass draws from the run's own random state
        )


def _listed(
    examples: Sequence[Example | None] | ArtifactNetError,
) -> list[Example] | ArtifactNetError | None:
    if isinstance(examples, ArtifactNetError):
        return examples
    return [example for example in examples if example is not None] or None


def _written(splits: Splits, config: Config, processing: Processing) -> set[Record]:
    """Images with a text that somebody wrote; most sources have none.

    Raises:
        ArtifactNetError: a text is of no use (see `checked`) and ``data.on_error`` is ``raise``:
            better now than in the middle of an epoch.
    """
    found: set[Record] = set()
    if config.mllm.text != "written":
        return found
    for source in splits.values():
        if not isinstance(source, ManifestSource):  # no other source has texts
            continue
        for record, text in zip(source.records, source.texts, strict=True):
            if text is not None:
                if config.data.on_error == "raise":
                    checked(text, record.location, processing)
                found.add(record)
    return found


def _count(splits: Splits, written: set[Record], mode: str) -> dict[str, dict[str, int]]:
    """How many texts of each split are ``written``, ``made`` of an annotation, or ``none``."""
    counts = {name: {"written": 0, "made": 0, "none": 0} for name in splits}
    for name, source in splits.items():
        for record in source.records:
            blank = mode == "none" or record.annotation is Annotation.NONE
            kind = "written" if record in written else "none" if blank else "made"
            counts[name][kind] += 1
    return counts


def _unwritten(counts: dict[str, dict[str, int]], mode: str) -> list[str]:
    """A warning, where texts that somebody wrote were asked for and are missing."""
    total = {k: sum(split[k] for split in counts.values()) for k in ("written", "made", "none")}
    without = total["made"] + total["none"]
    if mode != "written" or not without:
        return []
    return [
        f"{without} of {without + total['written']} images have no text that somebody wrote "
        f"(mllm.text=written): {total['made']} are described from their annotation, "
        f"{total['none']} are not annotated either and teach no text"
    ]
