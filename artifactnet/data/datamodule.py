"""From a config to loaders: builds the splits, checks them, and serves batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from artifactnet.config import AlignmentConfig, DataConfig
from artifactnet.data.alignment_masks import AlignmentMasks
from artifactnet.data.checks import choose_jpeg_classes, summarize_data
from artifactnet.data.dataset import DetectionDataset, collate
from artifactnet.data.duplicates import drop_duplicates
from artifactnet.data.sampler import EpochSampler
from artifactnet.data.sources.base import Splits
from artifactnet.data.transforms import Preprocess, TrainTransform
from artifactnet.types import ArtifactNetError, Batch

_NAMED = 5  # examples in a warning
SOURCES = ("demo", "folder", "xaigd", "manifest")


class BatchLoader(DataLoader[Any]):
    """DataLoader of `Batch` that raises data errors as they are and skips empty batches.

    Where images are skipped in evaluation it may yield fewer batches than its length says.
    """

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        for batch in super().__iter__():
            if isinstance(batch, ArtifactNetError):
                raise batch
            if batch is not None:
                yield batch


class _ListLoader(BatchLoader):
    """BatchLoader whose workers make several batches of the images of one."""

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        for batches in super().__iter__():
            yield from batches  # type: ignore[misc]


def _collate(examples: Any) -> Batch | ArtifactNetError | None:
    """Collate, letting through the error that `DetectionDataset.__getitems__` may return."""
    return examples if isinstance(examples, ArtifactNetError) else collate(examples)


def _collate_by_size(examples: Any) -> list[Batch] | ArtifactNetError:
    """One batch of all examples of a size."""
    if isinstance(examples, ArtifactNetError):
        return examples
    sizes: dict[torch.Size, list[Any]] = {}
    for example in examples:
        if example is not None:
            sizes.setdefault(example.image.shape, []).append(example)
    return [batch for group in sizes.values() if (batch := collate(group)) is not None]


def _init_worker(_: int) -> None:
    """Keep OpenCV single-threaded: the worker processes are the parallelism."""
    cv2.setNumThreads(0)


def build_splits(config: DataConfig, seed: int, *, one_class: bool = False) -> Splits:
    """Splits of the source that ``config.name`` names, or those of a fold of it.

    ``one_class`` allows splits with images of one class only, for an evaluation.

    Raises:
        ArtifactNetError: unknown name, the source cannot be read, or it has too few fakes for
            ``config.folds``.
    """
    if config.folds is not None:
        from artifactnet.data.folds import fold_splits

        everything = replace(config, folds=None, fold=None, limit=None)
        splits = build_splits(everything, seed, one_class=one_class)
        return fold_splits(splits, config, seed)
    # Imported here: a run pays only for the format it reads.
    if config.name == "demo":
        from artifactnet.data.sources.demo import build_demo_splits as build
    elif config.name == "folder":
        from artifactnet.data.sources.folder import build_folder_splits

        return build_folder_splits(config, seed, one_class=one_class)
    elif config.name == "xaigd":
        from artifactnet.data.sources.xaigd import build_xaigd_splits as build
    elif config.name == "manifest":
        from artifactnet.data.sources.manifest import build_manifest_splits as build
    else:
        raise ArtifactNetError(f"data.name={config.name}: unknown; known: {', '.join(SOURCES)}")
    return build(config, seed)


def labels_of(splits: Splits, split: str, data: str) -> list[int]:
    """Labels of a split; ``data`` is ``data.name``, for the message.

    Raises:
        ArtifactNetError: there is no such split, or no image in it.
    """
    labels = [record.label for record in splits[split].records] if split in splits else []
    if not labels:
        held = ", ".join(name for name, source in splits.items() if source.records)
        raise ArtifactNetError(
            f"data.name={data} has no {split} images (it has: {held or 'nothing'})"
        )
    return labels


def drop_and_summarize(splits: Splits, config: DataConfig) -> tuple[Splits, dict[str, Any]]:
    """The splits, and what `artifactnet.data.checks.summarize_data` counts and raises.

    With ``on_error=skip`` and ``check=full``, images that a later split has too are left out.
    """
    dropped: list[str] = []
    if config.on_error == "skip" and config.check == "full":
        splits, dropped = drop_duplicates(splits)
    summary = summarize_data(splits, config.check)
    if dropped:
        summary["warnings"].append(
            f"{len(dropped)} images left out because another split has them too: "
            + "; ".join(dropped[:_NAMED])
            + ("; ..." if len(dropped) > _NAMED else "")
        )
    return splits, summary


def build_loader(
    dataset: Dataset[Any],
    splits: Splits,
    split: str,
    config: DataConfig,
    seed: int,
    *,
    collate_fn: Callable[[Any], Any],
    rank: int = 0,
    world: int = 1,
    sampler: type[EpochSampler] = EpochSampler,
    loader: type[BatchLoader] = BatchLoader,
) -> BatchLoader:
    """Loader of a split; that of ``train`` shuffles, all others keep the order.

    ``collate_fn`` makes a batch of what the dataset gives for its keys; ``rank`` is this process,
    from 0, of ``world``; ``seed`` that of the run.

    Raises:
        ArtifactNetError: there is no such split, or no image in it.
    """
    train = split == "train"
    size = config.batch_size if train else config.eval_batch_size or config.batch_size
    return loader(
        dataset,
        batch_size=size,
        sampler=sampler(
            labels_of(splits, split, config.name),
            batch_size=size,
            seed=seed,
            shuffle=train,
            balance=train and config.balance,
            groups=[r.uid for r in splits[split].records] if train and config.pairs else None,
            rank=rank,
            world=world,
        ),
        collate_fn=collate_fn,
        num_workers=config.workers,
        persistent_workers=config.workers > 0,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_init_worker,
        generator=torch.Generator(),  # else each pass draws from the run's own random state
    )


class DataModule:
    """The data of a run; no image is decoded to build it unless ``config.check`` asks.

    Args:
        config, preprocess: of the data, and of the model.
        seed: of the run.
        splits: the sources; None: those of the config.
        alignment: with what attention is aligned, where that is not the annotated artifacts.

    Attributes:
        splits: the sources, by split name.
        summary: what `artifactnet.data.checks.summarize_data` counted, and its ``warnings``.
        needs_both_classes: refuse a training split of one class; False where no verdict is learned,
            say from heatmaps of fakes alone.

    Raises:
        ArtifactNetError: the data cannot be used; the message says why.
    """

    def __init__(
        self,
        config: DataConfig,
        preprocess: Preprocess,
        seed: int,
        splits: Splits | None = None,
        alignment: AlignmentConfig | None = None,
    ) -> None:
        self.config = config
        splits = build_splits(config, seed) if splits is None else splits
        self.splits, self.summary = drop_and_summarize(splits, config)
        self.needs_both_classes = True
        self._preprocess = preprocess
        self._seed = seed
        self._datasets: dict[str, DetectionDataset] = {}
        self._masks = None
        if alignment is not None and alignment.mask != "artifact" and "train" in self.splits:
            self._masks = AlignmentMasks(alignment, seed, self.splits["train"].records)

    @property
    def skipped(self) -> dict[str, list[str]]:
        """Locations of the images skipped so far, by split (``data.on_error=skip``)."""
        return {
            split: [record.location for record in dataset.skipped]
            for split, dataset in self._datasets.items()
        }

    def train_loader(self, rank: int = 0, world: int = 1) -> DataLoader[Batch]:
        """Shuffled, augmented batches; call ``loader.sampler.set_epoch`` before each epoch.

        Raises:
            ArtifactNetError: the split is missing, or ``train`` holds one class only.
        """
        self.check_train()
        return self._loader("train", rank, world)

    def check_train(self) -> None:
        """Refuse an unusable training split; note how its images are compressed.

        Raises:
            ArtifactNetError: there is none, or it holds one class only.
        """
        labels = labels_of(self.splits, "train", self.config.name)
        if self.needs_both_classes and len(set(labels)) < 2:
            only = "fake" if labels[0] else "real"
            raise ArtifactNetError(
                f"the train split holds only {only} images ({len(labels)}); a detector needs "
                "real and fake ones: check data.root and data.generators"
            )
        if "jpeg_on" not in self.summary:
            files = self.summary["splits"].get("train", {}).get("files")
            self.summary["jpeg_on"], note = choose_jpeg_classes(self.config.augment, files)
            self.summary["warnings"] += [note] if note else []

    def val_loader(self, rank: int = 0, world: int = 1) -> DataLoader[Batch]:
        """Validation batches in fixed order, see `EpochSampler`; raises as `train_loader`."""
        return self._loader("val", rank, world)

    def test_loader(self, rank: int = 0, world: int = 1) -> DataLoader[Batch]:
        """Test batches in fixed order, see `EpochSampler`; raises as `train_loader`."""
        return self._loader("test", rank, world)

    def loader_by_size(self, split: str, preprocess: Preprocess) -> DataLoader[Batch]:
        """Batches in fixed order, every image once, for a model that takes many sizes.

        ``preprocess`` brings each image to a size of its own; images of one size that would be in
        one batch are in one batch.

        Raises:
            ArtifactNetError: there is no such split.
        """
        labels_of(self.splits, split, self.config.name)
        self._datasets[split] = DetectionDataset(
            self.splits[split], preprocess, None, self._seed, self.config.on_error
        )
        data = self._datasets[split], self.splits, split, self.config, self._seed
        return build_loader(*data, collate_fn=_collate_by_size, loader=_ListLoader)

    def _dataset(self, split: str) -> DetectionDataset:
        """Dataset of a split: one for all its loaders, so that it counts each bad image once."""
        if split not in self._datasets:
            transform = None
            if split == "train":
                augment = replace(self.config.augment, jpeg_on=self.summary["jpeg_on"])
                transform = TrainTransform(augment, self._preprocess)
            alike = split == "train" and self.config.pairs_alike
            data = self.splits[split], self._preprocess, transform, self._seed
            masks = self._masks if split == "train" else None
            self._datasets[split] = DetectionDataset(*data, self.config.on_error, alike, masks)
        return self._datasets[split]

    def _loader(self, split: str, rank: int, world: int) -> DataLoader[Batch]:
        labels_of(self.splits, split, self.config.name)  # before a dataset of nothing
        data = self._dataset(split), self.splits, split, self.config, self._seed
        return build_loader(*data, collate_fn=_collate, rank=rank, world=world)
