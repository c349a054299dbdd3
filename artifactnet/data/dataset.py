"""From a source to batches: what is decoded, how it is augmented, what a bad image costs.

An example depends on its key (epoch, item, repeat) alone, so that any number
of workers, and a run that was killed and resumed, see the same pictures.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch.utils.data import Dataset

from artifactnet.data.alignment_masks import AlignmentMasks
from artifactnet.data.sources.base import Source
from artifactnet.data.transforms import Example, Preprocess, TrainTransform
from artifactnet.types import (
    Annotation,
    ArtifactNetError,
    Batch,
    Record,
    TeacherAnswer,
    TeacherBatch,
    UInt8Array,
)

logger = logging.getLogger(__name__)


class SampleKey(NamedTuple):
    """What a sampler asks a dataset for; a plain ``(epoch, item)`` will do."""

    epoch: int
    item: int  # position of the image in the source's records
    repeat: int = 0  # how often the image came before in this epoch


def derive_seed(*parts: int) -> int:
    """32-bit seed that depends on every part and on nothing else (no process, no Python hash)."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")


_Example = TypeVar("_Example")


class SourceDataset(Dataset["_Example | None"], Generic[_Example]):
    """Examples of the images of a source; subclasses make one of a decoded image.

    Args:
        source: the images of the split.
        train: an unusable image is replaced by the next usable one of its class; otherwise left
            out.
        on_error: ``raise``, or ``skip``: an unusable image is logged once and counted.

    Raises:
        ValueError: ``on_error`` is neither.
    """

    def __init__(self, source: Source, train: bool, on_error: str) -> None:
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error must be 'raise' or 'skip', got {on_error!r}")
        self.source = source
        self.train = train
        self.on_error = on_error
        # In shared memory: what one worker process found, the others need not log again.
        self._bad = torch.zeros(len(source.records), dtype=torch.bool).share_memory_()

    def make_example(self, index: int, key: SampleKey) -> _Example:
        """Example of the image ``index``, for its own key or that of an image it replaces.

        Raises:
            ArtifactNetError: the image cannot be used.
        """
        raise NotImplementedError

    def __len__(self) -> int:
        """Number of images, usable or not."""
        return len(self.source.records)

    @property
    def skipped(self) -> list[Record]:
        """Images found unusable so far, by any worker of this process."""
        return [self.source.records[index] for index in self._bad.nonzero().flatten().tolist()]

    def __getitem__(self, key: SampleKey | tuple[int, int]) -> _Example | None:
        """Example of a key; None if an unusable image is left out.

        Raises:
            ArtifactNetError: the image is unusable and ``on_error`` is ``raise``, or all of its
                class are.
        """
        key = SampleKey(*key)
        records = self.source.records
        for step in range(len(records) if self.train else 1):
            index = (key.item + step) % len(records)
            if records[index].label != records[key.item].label:
                continue
            try:
                return self.make_example(index, key)
            except ArtifactNetError as error:
                if self.on_error == "raise":
                    raise
                if not self._bad[index]:
                    self._bad[index] = True
                    location = records[index].location
                    logger.warning("skipped %s (data.on_error=skip): %s", location, error)
        if not self.train:
            return None
        name = "fake" if records[key.item].label else "real"
        raise ArtifactNetError(
            f"not one usable {name} image is left (data.on_error=skip); the first is "
            f"{records[key.item].location}: run with data.on_error=raise to see what is wrong"
        )

    def __getitems__(self, keys: Sequence[SampleKey]) -> list[_Example | None] | ArtifactNetError:
        """Examples of a batch, or the error (DataLoader calls this, in its workers).

        The error is returned because a DataLoader would bury its one line in the traceback of
        a worker process; `artifactnet.data.datamodule.BatchLoader` raises it.
        """
        try:
            return [self[key] for key in keys]
        except ArtifactNetError as error:
            return ArtifactNetError(str(error))


class DetectionDataset(SourceDataset["Example"]):
    """Samples of one split at model size.

    Args:
        source, seed, on_error: see `SourceDataset`; the seed is that of the run.
        preprocess: the model's own preprocessing, used if ``transform`` is None.
        transform: training augmentation, or None for evaluation.
        alike: images of one uid get the same augmentation, and a photograph the crop of its first
            annotated fake: then nothing but the artifact tells twins apart.
        masks: replaces the artifacts of an image, in training; it is augmented as before.
    """

    def __init__(
        self,
        source: Source,
        preprocess: Preprocess,
        transform: TrainTransform | None,
        seed: int,
        on_error: str,
        alike: bool = False,
        masks: AlignmentMasks | None = None,
    ) -> None:
        super().__init__(source, transform is not None, on_error)
        self._masks = masks
        self._preprocess = preprocess
        self._transform = transform
        self._seed = seed
        self._first: dict[str, int] = {}  # uid -> its first image
        self._marked: dict[str, int] = {}  # uid -> its first fake with a mask
        for index, record in enumerate(source.records if alike else ()):
            self._first.setdefault(record.uid, index)
            if record.annotation is Annotation.MASK:
                self._marked.setdefault(record.uid, index)

    def make_example(self, index: int, key: SampleKey) -> Example:
        """Preprocessed, in training also augmented; see `SourceDataset`."""
        sample = self.source.load(index)
        if self._transform is None:
            return self._preprocess.sample(sample)
        uid = self.source.records[key.item].uid
        seed = derive_seed(self._seed, key.epoch, self._first.get(uid, key.item), key.repeat)
        focus = self._twins_mask(index)
        if self._masks is not None and sample.mask is not None and sample.mask.any():
            focus = sample.mask if self._transform.uses_focus else None
            sample = self._masks.replace(sample)
        return self._transform(sample, seed, focus)

    def _twins_mask(self, index: int) -> UInt8Array | None:
        """Artifacts of an image's marked twin, where its crop is to be placed by them."""
        record = self.source.records[index]
        twin = self._marked.get(record.uid, index)
        if twin == index or record.annotation is Annotation.MASK:
            return None
        assert self._transform is not None
        return self.source.load(twin).mask if self._transform.uses_focus else None


def collate(examples: Iterable[Example | None]) -> Batch | None:
    """Stack the examples that are not None into a batch; None if there is none."""
    kept = [example for example in examples if example is not None]
    if not kept:
        return None
    records = [example.record for example in kept]
    return Batch(
        image=torch.stack([example.image for example in kept]),
        label=torch.tensor([record.label for record in records], dtype=torch.float32),
        annotation=torch.tensor([int(record.annotation) for record in records]),
        mask=torch.stack([example.mask for example in kept]),
        heatmap=torch.stack([example.heatmap for example in kept]),
        score=torch.tensor([example.score for example in kept], dtype=torch.float32),
        record=records,
        teacher=_collate_teacher([example.teacher for example in kept]),
    )


def _collate_teacher(answers: Sequence[TeacherAnswer | None]) -> TeacherBatch | None:
    """Stacked answers; all images of a source have one, or none has."""
    given = [answer for answer in answers if answer is not None]
    if not given:
        return None
    features = [answer.feature for answer in given if answer.feature is not None]
    return TeacherBatch(
        heatmap=torch.stack([torch.from_numpy(answer.heatmap) for answer in given]),
        sigma=torch.stack([torch.from_numpy(answer.sigma) for answer in given]),
        score=torch.tensor([answer.score for answer in given], dtype=torch.float32),
        logit=torch.tensor([answer.logit for answer in given], dtype=torch.float32),
        feature=torch.from_numpy(np.stack(features)) if len(features) == len(given) else None,
    )
