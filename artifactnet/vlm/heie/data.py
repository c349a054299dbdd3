"""The data of a HEIE's training: splits, loaders, and who wrote the texts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from artifactnet.config import Config
from artifactnet.data.checks import summarize
from artifactnet.data.datamodule import BatchLoader, build_splits, labels_of
from artifactnet.data.dataset import Key, derive_seed
from artifactnet.data.duplicates import drop_duplicates
from artifactnet.data.sampler import EpochSampler
from artifactnet.data.sources.base import Source, Splits
from artifactnet.data.sources.manifest import ManifestSource
from artifactnet.types import Annotation, ArtifactNetError, Record, Sample, UInt8Array
from artifactnet.vlm.processing import IGNORED, ProcessedInputs, Processing
from artifactnet.vlm.text.chain_of_thought import parse
from artifactnet.vlm.text.template import TEMPLATE, describe

# one is drawn for each image and epoch, so that the answer does not hang on the wording
QUESTIONS = (
    "Identify and describe every problematic region in this AIGC image.",
    "Find every region of this AIGC image that looks wrong and explain why.",
    "Which parts of this AI-generated image are implausible? Describe each of them.",
    "Point out all flaws of this AIGC image, with a reason for each.",
    "Examine this AIGC image and report all artifacts that you see.",
    "Where does this generated image go wrong? Explain each problem.",
    "List the defects of this AIGC image and say what is the matter with them.",
    "Look for implausible content in this AI-generated image and describe it.",
    "Mark the problematic areas of this AIGC image and give an analysis of each.",
    "Assess how plausible this AIGC image is: where are its errors, and what are they?",
    "Detect anything unnatural in this AIGC image and explain it.",
    "Describe this AIGC image, locate its problems, and explain them.",
)


@dataclass(slots=True)
class TextExample:
    """One image with what HEIE shall say of it.

    Attributes:
        record: of the image.
        image: (H, W, 3) sRGB at its own size.
        question: asked about it; None asks ``mllm.question``.
        text: a chain of thought with one ``[MAP]`` and one ``[SCORE]``.
        told: the text is worth learning; False for a stand-in that only carries the marks.
        target: (H, W) float32 annotated heatmap in [0, 1]; zeros where nothing is annotated.
        score: plausibility in [0, 1]; NaN where nobody gave one.
        counts: False for one that only keeps processes in step, see `data.InStep`.
    """

    record: Record
    image: UInt8Array
    question: str | None
    text: str
    told: bool
    target: Tensor
    score: float
    counts: bool = True


@dataclass(slots=True)
class TextBatch:
    """A collated batch; images keep their own sizes."""

    inputs: ProcessedInputs
    target: list[Tensor]  # (H_k, W_k) float32 in [0, 1], one per image
    annotation: Tensor  # (B,) int64, values of Annotation
    score: Tensor  # (B,) float32 plausibility in [0, 1]; NaN where nobody gave one
    record: list[Record]
    counts: bool = True  # False: only keeps processes in step

    def to(self, device: torch.device | str) -> TextBatch:
        """Copy with its tensors on ``device``."""
        return replace(
            self,
            inputs=self.inputs.to(device),
            target=[one.to(device) for one in self.target],
            annotation=self.annotation.to(device),
            score=self.score.to(device),
        )


def target_of(sample: Sample) -> Tensor:
    """(H, W) float32 in [0, 1]: the annotated heatmap, or the mask of any artifact without one."""
    if sample.heatmap is not None and sample.heatmap.max() > 0:
        return torch.from_numpy(sample.heatmap).float()
    if sample.mask is not None:
        return torch.from_numpy(sample.mask > 0).float()
    return torch.zeros(sample.image.shape[:2])


def checked(text: str, location: str, processing: Processing) -> str:
    """The text of an image, if it is a chain of thought that the model can take.

    Raises:
        ArtifactNetError: it is none, or holds a control word; the message names the image.
    """
    try:
        parse(text)
    except ArtifactNetError as error:
        raise ArtifactNetError(f"{location}: its text: {error}") from error
    processing.check(text, f"{location}: its text")
    return text


def text_of(sample: Sample, mode: str, processing: Processing) -> tuple[str, bool]:
    """The chain of thought of a sample, and whether it is worth learning.

    Args:
        sample: decoded.
        mode: ``written``: by whoever annotated it, else made from the annotation; ``template``:
            always made from the annotation; ``none``: a fixed text that carries the marks.
        processing: of the model.

    Returns:
        An image that nobody annotated or wrote about gets the fixed text too, not to be learned:
        one made of nothing would call it clean.

    Raises:
        ArtifactNetError: see `checked`.
    """
    if mode == "written" and sample.text is not None:
        return checked(sample.text, sample.record.location, processing), True
    if mode == "none" or sample.record.annotation is Annotation.NONE:
        return TEMPLATE, False
    return describe(sample), True


def collate(
    examples: Sequence[TextExample | None] | ArtifactNetError, processing: Processing
) -> TextBatch | ArtifactNetError | None:
    """Encode examples into a batch, leaving out those that are None.

    Args:
        examples: of a batch, or the error that a worker met.
        processing: of the model.

    Returns:
        The batch; None if no example is left; the error, also that of a text which the model
        cannot take, naming the image.
    """
    if isinstance(examples, ArtifactNetError):
        return examples
    kept = [example for example in examples if example is not None]
    if not kept:
        return None
    try:
        inputs = _encode(kept, processing)
    except ArtifactNetError as error:
        return _blamed(kept, processing, error)
    assert inputs.labels is not None
    for row, example in enumerate(kept):
        if not example.told:
            inputs.labels[row] = IGNORED
    return TextBatch(
        inputs=inputs,
        target=[example.target for example in kept],
        annotation=torch.tensor([int(example.record.annotation) for example in kept]),
        score=torch.tensor([example.score for example in kept], dtype=torch.float32),
        record=[example.record for example in kept],
        counts=all(example.counts for example in kept),
    )


def _encode(examples: Sequence[TextExample], processing: Processing) -> ProcessedInputs:
    return processing.encode(
        [example.image for example in examples],
        [example.text for example in examples],
        [example.question for example in examples],
    )


def _blamed(
    examples: Sequence[TextExample], processing: Processing, error: ArtifactNetError
) -> ArtifactNetError:
    """The error of a batch, with the place of the example that causes it."""
    for example in examples:
        try:
            _encode([example], processing)
        except ArtifactNetError as own:
            return ArtifactNetError(f"{example.record.location}: {own}")
    return error


logger = logging.getLogger(__name__)


class TextDataset(Dataset["TextExample | None"]):
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

    def __getitem__(self, key: Key | tuple[int, int]) -> TextExample | None:
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

    def __getitems__(self, keys: Sequence[Key]) -> list[TextExample | None] | ArtifactNetError:
        """Examples of a batch, or the error, which `BatchLoader` raises in the main process."""
        try:
            return [self[key] for key in keys]
        except ArtifactNetError as error:
            return ArtifactNetError(str(error))

    def _example(self, index: int, key: Key) -> TextExample:
        sample = self.source.load(index)
        text, told = text_of(sample, self._mode, self._processing)
        question = None
        if self._train:
            draw = derive_seed(self._seed, key.epoch, index, key.repeat)
            question = QUESTIONS[draw % len(QUESTIONS)]
        score = float("nan") if sample.score is None else sample.score
        return TextExample(
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

    def example_loader(self, split: str) -> DataLoader[list[TextExample]]:
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
    examples: Sequence[TextExample | None] | ArtifactNetError,
) -> list[TextExample] | ArtifactNetError | None:
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
