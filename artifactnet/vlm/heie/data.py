"""The data of a HEIE's training: examples with their texts, batches, loaders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from artifactnet.config import Config
from artifactnet.data.datamodule import (
    BatchLoader,
    build_loader,
    build_splits,
    drop_and_summarize,
    labels_of,
)
from artifactnet.data.dataset import SampleKey, SourceDataset, derive_seed
from artifactnet.data.sampler import EpochSampler
from artifactnet.data.sources.base import Source, Splits
from artifactnet.data.sources.demo import DemoSource
from artifactnet.data.sources.manifest import ManifestSource
from artifactnet.data.splits import Subset
from artifactnet.types import Annotation, ArtifactNetError, Record, Sample, UInt8Array
from artifactnet.vlm.heie.processing import HeieInputs, HeieProcessing
from artifactnet.vlm.processing import IGNORE_INDEX
from artifactnet.vlm.text.chain_of_thought import parse_cot
from artifactnet.vlm.text.template import (
    TEMPLATE,
    answer_shortly,
    describe_annotation,
    marked_categories,
)

# one is drawn for each image and epoch, so that the answer does not depend on the wording
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

SHORT_QUESTIONS = (  # for ``mllm.text=short``
    "Which kind of artifact is in this image, and where? Answer in two words or three.",
    "What is wrong with this image, and where? Be brief.",
    "Name the flaw of this image and its place.",
)


@dataclass(slots=True)
class TextExample:
    """One image with the answer that HEIE learns to give."""

    record: Record  # of the image
    image: UInt8Array  # (H, W, 3) sRGB at its own size
    question: str | None  # asked about it; None asks ``mllm.question``
    text: str  # the answer, with one ``[MAP]`` and one ``[SCORE]``
    # the text is to be learned; False for a fixed one that only carries the marks
    supervised: bool
    target: Tensor  # (H, W) float32 annotated heatmap in [0, 1]; zeros where nothing is annotated
    score: float  # plausibility in [0, 1]; NaN if nobody gave one
    mask: Tensor | None = None  # (H, W) uint8, see `marked_categories`
    padding: bool = False  # only keeps processes in step, see `InStepSampler`; not evaluated
    described: bool = True  # its description is to be learned, too


@dataclass(slots=True)
class TextBatch:
    """A collated batch; images keep their own sizes."""

    inputs: HeieInputs  # what the model takes
    target: list[Tensor]  # (H_k, W_k) float32 in [0, 1], one per image
    annotation: Tensor  # (B,) int64, values of Annotation
    score: Tensor  # (B,) float32 plausibility in [0, 1]; NaN if nobody gave one
    mask: list[Tensor | None]  # (H_k, W_k) uint8, see `marked_categories`; one per image
    record: list[Record]  # of each image
    tokens: int  # of the texts to learn
    window_tokens: int  # of all batches of its optimizer step in this process, see `WindowLoader`
    window_batches: int = 1  # how many these are
    padding: bool = False  # see `TextExample`

    def to(self, device: torch.device | str) -> TextBatch:
        """Copy with its tensors on ``device``."""
        return replace(
            self,
            inputs=self.inputs.to(device),
            target=[one.to(device) for one in self.target],
            mask=[None if one is None else one.to(device) for one in self.mask],
            annotation=self.annotation.to(device),
            score=self.score.to(device),
        )


def heatmap_target(sample: Sample) -> Tensor:
    """(H, W) float32 in [0, 1]: the annotated heatmap, or the mask of any artifact without one."""
    if sample.heatmap is not None and sample.heatmap.max() > 0:
        return torch.from_numpy(sample.heatmap).float()
    if sample.mask is not None:
        return torch.from_numpy(sample.mask > 0).float()
    return torch.zeros(sample.image.shape[:2])


def check_text(text: str, location: str, processing: HeieProcessing) -> str:
    """The text of an image; an error that names the image if the model cannot take it."""
    try:
        parse_cot(text)
    except ArtifactNetError as error:
        raise ArtifactNetError(f"{location}: its text: {error}") from error
    processing.check_text(text, f"{location}: its text")
    return text


def target_text(sample: Sample, mode: str, processing: HeieProcessing) -> tuple[str, bool]:
    """The chain of thought of a sample, and whether it is to be learned.

    By mode: ``written``: by whoever annotated it, else made from the annotation; ``template``:
    always made from the annotation; ``short``: no chain of thought, but a few words made from it;
    ``none``: a fixed text that carries the marks. An image without annotation and text gets the
    fixed text too, not to be learned: one made of nothing would call it clean. Errors: see
    `check_text`.
    """
    if mode == "written" and sample.text is not None:
        return check_text(sample.text, sample.record.location, processing), True
    if mode == "none" or sample.record.annotation is Annotation.NONE:
        return TEMPLATE, False
    return answer_shortly(sample) if mode == "short" else describe_annotation(sample), True


def collate(
    examples: Sequence[TextExample | None] | ArtifactNetError, processing: HeieProcessing
) -> TextBatch | ArtifactNetError | None:
    """Encode examples into a batch, leaving out those that are None.

    Returns:
        The batch; None without any example; the error that a worker met, or that of a text which
        the model cannot take, naming the image.
    """
    if isinstance(examples, ArtifactNetError):
        return examples
    kept = [example for example in examples if example is not None]
    if not kept:
        return None
    try:
        inputs = _encode(kept, processing)
    except ArtifactNetError as error:
        for example in kept:  # whose text is it?
            try:
                _encode([example], processing)
            except ArtifactNetError as own:
                return ArtifactNetError(f"{example.record.location}: {own}")
        return error
    assert inputs.labels is not None
    for row, example in enumerate(kept):
        if not example.supervised:
            inputs.labels[row] = IGNORE_INDEX
        elif not example.described:
            _ignore_description(inputs.labels[row], example.text, processing)
    tokens = int((inputs.labels[:, 1:] != IGNORE_INDEX).sum())
    return TextBatch(
        inputs=inputs,
        target=[example.target for example in kept],
        annotation=torch.tensor([int(example.record.annotation) for example in kept]),
        score=torch.tensor([example.score for example in kept], dtype=torch.float32),
        mask=[example.mask for example in kept],
        record=[example.record for example in kept],
        tokens=tokens,
        window_tokens=tokens,
        padding=any(example.padding for example in kept),
    )


def _ignore_description(labels: Tensor, text: str, processing: HeieProcessing) -> None:
    """Take the beginning of an answer out of its (L,) labels, up to the end of the description."""
    description = parse_cot(text).description
    end = text.index(description) + len(description)
    first = int((labels != IGNORE_INDEX).nonzero()[0])
    labels[first : first + len(processing.tokenize(text[:end]))] = IGNORE_INDEX


def _encode(examples: Sequence[TextExample], processing: HeieProcessing) -> HeieInputs:
    return processing.encode(
        [example.image for example in examples],
        [example.text for example in examples],
        [example.question for example in examples],
    )


def _list_examples(
    examples: Sequence[TextExample | None] | ArtifactNetError,
) -> list[TextExample] | ArtifactNetError | None:
    if isinstance(examples, ArtifactNetError):
        return examples
    return [example for example in examples if example is not None] or None


class TextDataset(SourceDataset[TextExample]):
    """Examples of one split.

    With ``train`` questions are drawn; otherwise every image comes once with the default question,
    or with ``mllm.text=short`` the first short one.
    """

    def __init__(
        self, source: Source, config: Config, train: bool, processing: HeieProcessing
    ) -> None:
        super().__init__(source, train, config.data.on_error)
        self._processing = processing
        self._mode, self._seed = config.mllm.text, config.seed
        self._descriptions = config.mllm.descriptions

    def make_example(self, index: int, key: SampleKey) -> TextExample:
        """With its text and question; see `SourceDataset`."""
        sample = self.source.load(index)
        text, supervised = target_text(sample, self._mode, self._processing)
        mask = marked_categories(sample)
        short = self._mode == "short"
        question, described = SHORT_QUESTIONS[0] if short else None, True
        if self.train:
            draw = derive_seed(self._seed, key.epoch, index, key.repeat)
            questions = SHORT_QUESTIONS if short else QUESTIONS
            question = questions[draw % len(questions)]
            described = short or draw // len(questions) % 1000 < 1000 * self._descriptions
        return TextExample(
            record=sample.record,
            image=sample.image,
            question=question,
            text=text,
            supervised=supervised,
            target=heatmap_target(sample),
            score=float("nan") if sample.score is None else sample.score,
            mask=None if mask is None else torch.from_numpy(mask),
            padding=not self.train and key.repeat > 0,
            described=described,
        )


class InStepSampler(EpochSampler):
    """Evaluation order that gives all processes the same number of batches, as FSDP needs.

    There every forward pass gathers weights from all processes: if one ran out of batches, the
    others would wait forever. It gets one more, of an image that is not evaluated
    (``SampleKey.repeat`` is 1); since shares differ by one image at most, it is a batch of its own.
    """

    def __len__(self) -> int:
        """Number of images, with the padding."""
        return super().__len__() + self._short()

    def __iter__(self) -> Iterator[SampleKey]:
        """Keys of this process."""
        yield from super().__iter__()
        if self._short():
            yield SampleKey(self.epoch, 0, 1)

    def _short(self) -> int:
        first = len(range(0, len(self.labels), self.world))  # no process has more images
        own = super().__len__()
        return -(-first // self.batch_size) - -(-own // self.batch_size)


class WindowLoader(BatchLoader):
    """Loader whose batches know the text tokens of their optimizer step.

    It reads the batches of a step ahead (``train.accumulate``, fewer at the end of an epoch), so
    that the text loss of the first can be divided by the tokens of all of them.
    """

    window: int = 1  # batches of an optimizer step

    def __iter__(self) -> Iterator[TextBatch]:  # type: ignore[override]
        """Batches of the sampler's current epoch; errors as in `BatchLoader`."""
        batches: Iterator[Any] = super().__iter__()
        while window := list(islice(batches, self.window)):
            tokens = sum(batch.tokens for batch in window)
            for batch in window:
                yield replace(batch, window_tokens=tokens, window_batches=len(window))


class TextData:
    """The data of a run, without augmentation: `data.augment` is not used.

    Args:
        config: the run; no image is decoded unless ``data.check`` asks for it.
        processing: of the model.
        splits: None: those of the config.

    Attributes:
        splits: the sources, by split name.
        summary: what `artifactnet.data.checks.summarize_data` counted, its ``warnings``, and under
            ``texts`` for each split how many texts are ``written``, ``made`` from an annotation,
            or ``none``.

    Raises:
        ArtifactNetError: the data cannot be used; the message says why.
    """

    def __init__(
        self, config: Config, processing: HeieProcessing, splits: Splits | None = None
    ) -> None:
        self.config, self.processing = config, processing
        splits = build_splits(config.data, config.seed) if splits is None else splits
        written = _written(splits, config, processing)
        self.splits, self.summary = drop_and_summarize(splits, config.data)
        self.summary["texts"] = _count_texts(self.splits, written, config.mllm.text)
        if config.mllm.text == "written":
            self.summary["warnings"] += _missing_texts(self.summary["texts"])
        self._datasets: dict[str, TextDataset] = {}

    @property
    def skipped(self) -> dict[str, list[str]]:
        """Locations of the images skipped so far, by split (``data.on_error=skip``)."""
        return {
            split: [record.location for record in dataset.skipped]
            for split, dataset in self._datasets.items()
        }

    @property
    def eval_split(self) -> str:
        """``test``, or ``val`` if there is no test image."""
        return "test" if "test" in self.splits and self.splits["test"].records else "val"

    def train_loader(self, rank: int = 0, world: int = 1) -> DataLoader[TextBatch]:
        """Shuffled batches; call ``loader.sampler.set_epoch`` before each epoch.

        Raises:
            ArtifactNetError: there is no train split.
        """
        join = partial(collate, processing=self.processing)
        loader = self._loader("train", join, rank, world, WindowLoader)
        assert isinstance(loader, WindowLoader)
        loader.window = self.config.train.accumulate
        return loader

    def val_loader(self, rank: int = 0, world: int = 1) -> DataLoader[TextBatch]:
        """Validation batches in fixed order, see `EpochSampler` and `InStepSampler`."""
        return self._loader("val", partial(collate, processing=self.processing), rank, world)

    def example_loader(self, split: str) -> DataLoader[list[TextExample]]:
        """Lists of examples of a split in fixed order, every image once, not yet encoded.

        Raises:
            ArtifactNetError: there is no such split.
        """
        return self._loader(split, _list_examples, 0, 1)

    def _loader(
        self,
        split: str,
        collate_fn: Callable[[Any], Any],
        rank: int,
        world: int,
        loader: type[BatchLoader] = BatchLoader,
    ) -> BatchLoader:
        labels_of(self.splits, split, self.config.data.name)  # there must be images
        train = split == "train"
        if split not in self._datasets:
            source = self.splits[split]
            self._datasets[split] = TextDataset(source, self.config, train, self.processing)
        in_step = self.config.train.strategy == "fsdp" and not train
        return build_loader(
            self._datasets[split],
            self.splits,
            split,
            self.config.data,
            self.config.seed,
            collate_fn=collate_fn,
            rank=rank,
            world=world,
            sampler=InStepSampler if in_step else EpochSampler,
            loader=loader,
        )


def _written(splits: Splits, config: Config, processing: HeieProcessing) -> set[Record]:
    """Images that come with a text; most sources have none.

    With ``data.on_error=raise``, texts of annotators are checked now rather than in the middle of
    an epoch.
    """
    written: set[Record] = set()
    if config.mllm.text != "written":
        return written
    for split in splits.values():
        source, indices = (
            split.unwrap() if isinstance(split, Subset) else (split, range(len(split.records)))
        )
        if isinstance(source, DemoSource) and source.texts:
            written.update(split.records)
        if not isinstance(source, ManifestSource):  # no other source has texts
            continue
        for record, index in zip(split.records, indices, strict=True):
            text = source.texts[index]
            if text is not None:
                if config.data.on_error == "raise":
                    check_text(text, record.location, processing)
                written.add(record)
    return written


def _count_texts(splits: Splits, written: set[Record], mode: str) -> dict[str, dict[str, int]]:
    """How many texts of each split are ``written``, ``made`` from an annotation, or ``none``."""
    counts = {name: {"written": 0, "made": 0, "none": 0} for name in splits}
    for name, source in splits.items():
        for record in source.records:
            blank = mode == "none" or record.annotation is Annotation.NONE
            kind = "written" if record in written else "none" if blank else "made"
            counts[name][kind] += 1
    return counts


def _missing_texts(counts: dict[str, dict[str, int]]) -> list[str]:
    """A warning if not all images have a written text, as the config asks for."""
    total = {k: sum(split[k] for split in counts.values()) for k in ("written", "made", "none")}
    missing = total["made"] + total["none"]
    if not missing:
        return []
    return [
        f"{missing} of {missing + total['written']} images have no written text "
        f"(mllm.text=written): {total['made']} are described from their annotation, "
        f"{total['none']} have no annotation either and no text to learn"
    ]
