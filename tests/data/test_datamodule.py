"""Datasets, batches and loaders over small in-memory sources."""

import itertools
import logging
import shutil

import numpy as np
import pytest
import torch
from annotated_files import picture

from artifactnet.config import AugmentConfig, DataConfig
from artifactnet.data import datamodule
from artifactnet.data.checks import choose_jpeg_classes
from artifactnet.data.datamodule import DataModule
from artifactnet.data.dataset import DetectionDataset, collate
from artifactnet.data.transforms import Preprocess, TrainTransform
from artifactnet.types import Annotation, ArtifactNetError, Record, Sample

PREPROCESS = Preprocess((32, 28), "stretch", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


class MemorySource:
    """Images whose colour is their index; those in ``broken`` cannot be loaded."""

    def __init__(self, labels, broken=(), prefix="train"):
        self.broken = set(broken)
        kinds = (("real", Annotation.CLEAN), ("gan", Annotation.MASK))
        self.records = [
            Record(f"{prefix}{index}", label, *kinds[label], f"{prefix}/{index}.png")
            for index, label in enumerate(labels)
        ]

    def load(self, index):
        record = self.records[index]
        if index in self.broken:
            raise ArtifactNetError(f"{record.location}: the file is truncated")
        mask = None
        if record.annotation is Annotation.MASK:
            mask = np.zeros((40, 36), np.uint8)
            mask[:20] = 0b10
        image = np.full((40, 36, 3), index, np.uint8)
        image[:, :18] += 100  # so that a flip is seen
        return Sample(record, image, mask)


def dataset(labels, broken=(), train=True, on_error="skip", seed=0):
    augment = AugmentConfig(jpeg_quality=[], crop=True, scale=[0.8, 1.5])
    transform = TrainTransform(augment, PREPROCESS) if train else None
    return DetectionDataset(MemorySource(labels, broken), PREPROCESS, transform, seed, on_error)


def module(monkeypatch, splits, **options):
    monkeypatch.setattr(datamodule, "build_splits", lambda config, seed: splits)
    config = DataConfig(**{"batch_size": 3, "check": "counts", **options})
    return DataModule(config, PREPROCESS, seed=4)


def test_augmentation_depends_on_seed_epoch_item_and_repeat_alone():
    first, second = dataset([0, 1] * 4), dataset([0, 1] * 4)
    expected = {key: first[key] for key in ((0, 3), (1, 3), (0, 5), (0, 3, 1))}
    for key in reversed(expected):
        assert second[key].image.equal(expected[key].image)
        assert second[key].mask.equal(expected[key].mask)
    others = expected[1, 3], expected[0, 3, 1], dataset([0, 1] * 4, seed=1)[0, 3]
    assert not any(expected[0, 3].image.equal(other.image) for other in others)
    plain = dataset([0, 1], train=False)  # an evaluation does not augment
    for epoch in (0, 7):
        assert plain[epoch, 1].image.equal(PREPROCESS.sample(plain.source.load(1)).image)


def test_a_bad_image_is_an_error_unless_the_user_says_skip():
    with pytest.raises(ArtifactNetError, match=r"^train/1\.png: the file is truncated$"):
        dataset([0, 1], broken=[1], on_error="raise")[0, 1]
    with pytest.raises(ValueError, match="'ignore'"):
        dataset([0, 1], on_error="ignore")
    found = dataset([0, 1])
    found.source.load = lambda index: 1 / 0  # no error of the data
    with pytest.raises(ZeroDivisionError):
        found[0, 0]


def test_training_replaces_a_bad_image_by_the_next_of_its_class(caplog):
    data = dataset([0, 1, 0, 1, 0, 1, 1], broken=[3, 5])
    with caplog.at_level(logging.WARNING):
        for epoch, item in itertools.product((0, 1), (3, 5)):
            assert data[epoch, item].record.location == "train/6.png"
    bad = ["train/3.png", "train/5.png"]  # listed once each, counted, and named
    assert [record.args[0] for record in caplog.records] == bad
    assert "truncated" in caplog.text
    assert [record.location for record in data.skipped] == bad
    assert dataset([1, 0, 1], broken=[2])[0, 2].record.location == "train/0.png"
    with pytest.raises(ArtifactNetError, match=r"not one usable fake image.*train/2\.png"):
        dataset([1, 0, 1], broken=[0, 2])[0, 2]


def test_collate_keeps_order_states_and_types():
    data = dataset([0, 1, 1], train=False)
    batch = collate([data[0, 2], None, data[0, 0]])
    assert (batch.image.shape, batch.image.dtype) == ((2, 3, 32, 28), torch.float32)
    assert batch.label.tolist() == [1.0, 0.0]
    assert batch.annotation.tolist() == [Annotation.MASK, Annotation.CLEAN]
    assert (batch.annotation.dtype, batch.mask.dtype) == (torch.int64, torch.uint8)
    assert (batch.mask[0, :16] == 2).all()
    assert not batch.mask[0, 16:].any()
    assert not batch.mask[1].any()
    assert batch.heatmap.shape == (2, 32, 28)
    assert [record.location for record in batch.record] == ["train/2.png", "train/0.png"]
    assert collate([None, None]) is collate([]) is None


def seen(loader):
    return [[record.location for record in batch.record] for batch in loader]


def test_loaders_serve_the_splits(monkeypatch):
    splits = {
        "train": MemorySource([0, 1] * 5),
        "val": MemorySource([1, 0, 1, 1], prefix="val"),
        "test": MemorySource([1, 1], prefix="test"),
    }
    data = module(monkeypatch, splits, eval_batch_size=2)
    assert data.splits is splits
    assert data.summary["splits"]["train"]["class"] == {"real": 5, "fake": 5}
    train = data.train_loader()
    assert len(train) == 3
    state = torch.get_rng_state()
    epochs = []
    for epoch in (0, 1):
        train.sampler.set_epoch(epoch)
        epochs.append(seen(train))
        assert [len(batch) for batch in epochs[-1]] == [3, 3, 3]
    assert torch.get_rng_state().equal(state)  # the run's own
    assert epochs[0] != epochs[1]
    assert seen(data.val_loader()) == [["val/0.png", "val/1.png"], ["val/2.png", "val/3.png"]]
    assert seen(data.test_loader()) == [["test/0.png", "test/1.png"]]  # one class is enough


def test_two_processes_join_to_one(monkeypatch):
    splits = {"train": MemorySource([0, 1, 1] * 4)}
    data = module(monkeypatch, splits, batch_size=2)
    ranks = [list(data.train_loader(rank=rank, world=2)) for rank in (0, 1)]
    single = list(module(monkeypatch, splits, batch_size=4).train_loader())
    assert len(single) == 3
    for joint, left, right in zip(single, *ranks, strict=True):
        for name in ("image", "label", "mask"):
            both = torch.stack([getattr(left, name), getattr(right, name)], dim=1).flatten(0, 1)
            assert both.equal(getattr(joint, name))


def test_workers_see_what_the_main_process_sees(monkeypatch):
    splits = {"train": MemorySource([0, 1, 1, 1] * 4, broken=[2])}
    images = []
    for workers in (0, 2):
        data = module(monkeypatch, splits, workers=workers, on_error="skip", balance=True)
        loader = data.train_loader()
        for epoch in (0, 3):
            loader.sampler.set_epoch(epoch)
            images.append(torch.cat([batch.image for batch in loader]))
        # The flags are shared: what a worker skipped is known here.
        assert data.skipped == {"train": ["train/2.png"]}
    assert images[0].equal(images[2])
    assert images[1].equal(images[3])
    assert not images[0].equal(images[1])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_image_is_one_line_even_from_a_worker(monkeypatch, workers):
    data = module(monkeypatch, {"val": MemorySource([0, 1], broken=[1])}, workers=workers)
    with pytest.raises(ArtifactNetError) as caught:
        list(data.val_loader())
    assert str(caught.value) == "train/1.png: the file is truncated"


def test_evaluation_drops_bad_images_and_empty_batches(monkeypatch, caplog):
    source = MemorySource([0, 1, 1, 0, 1], broken=[1, 2, 3])
    data = module(monkeypatch, {"test": source}, batch_size=2, on_error="skip")
    loader = data.test_loader()
    assert (len(loader), seen(loader)) == (3, [["train/0.png"], ["train/4.png"]])
    assert seen(data.test_loader()) == [["train/0.png"], ["train/4.png"]]
    assert data.skipped["test"] == ["train/1.png", "train/2.png", "train/3.png"]
    assert len(caplog.records) == 3  # said once, whatever the number of passes and loaders


def test_missing_splits_and_classes_are_errors_only_when_they_are_used(monkeypatch):
    splits = {"train": MemorySource([0, 1]), "val": MemorySource([])}
    data = module(monkeypatch, splits, name="folder")
    assert len(data.train_loader()) == 1
    for loader, split in ((data.val_loader, "val"), (data.test_loader, "test")):
        with pytest.raises(ArtifactNetError, match=rf"folder has no {split} images.*has: train\)"):
            loader()
    data = module(monkeypatch, {"train": MemorySource([1, 1])})
    with pytest.raises(ArtifactNetError, match=r"only fake images \(2\)"):
        data.train_loader()


LOSSLESS, JPEG, MIXED = {"PNG": 9, "BMP": 1}, {"JPEG": 10}, {"PNG": 5, "JPEG": 5}


@pytest.mark.parametrize(
    ("jpeg_on", "real", "fake", "chosen", "warned"),
    [
        ("auto", JPEG, LOSSLESS, "fake", "auto"),
        ("auto", {"JPEG": 19, "PNG": 1}, LOSSLESS, "fake", "auto"),
        ("auto", JPEG, JPEG, "both", None),
        ("auto", LOSSLESS, LOSSLESS, "both", None),
        ("auto", LOSSLESS, JPEG, "both", None),
        ("auto", JPEG, MIXED, "both", None),
        ("auto", JPEG, {"WEBP": 10}, "both", None),  # may be lossy
        ("auto", None, None, "both", None),
        ("fake", JPEG, LOSSLESS, "fake", None),
        ("fake", JPEG, JPEG, "both", "both"),
        ("fake", LOSSLESS, LOSSLESS, "both", "both"),
        ("fake", MIXED, LOSSLESS, "both", "both"),
        ("fake", None, None, "fake", "not checked"),
        ("both", JPEG, LOSSLESS, "both", None),
        ("none", JPEG, LOSSLESS, "none", None),
    ],
)
def test_one_class_alone_is_compressed_only_where_files_call_for_it(
    monkeypatch, jpeg_on, real, fake, chosen, warned
):
    files = {
        label: {"probed": sum(formats.values()), "format": formats}
        for label, formats in (("real", real), ("fake", fake))
        if formats is not None
    }
    split = {"files": files} if files else {}
    summary = {"check": "full", "splits": {"train": split}, "warnings": []}
    monkeypatch.setattr(datamodule, "summarize_data", lambda splits, check: summary)
    source = MemorySource([0, 1])
    augment = AugmentConfig(jpeg_on=jpeg_on, jpeg_quality=[5, 6], hflip=0.0)
    data = module(monkeypatch, {"train": source}, augment=augment, batch_size=2)
    assert data.summary["warnings"] == []  # an evaluation does not augment
    (batch,) = data.train_loader()
    assert data.summary["jpeg_on"] == chosen
    assert [warned in text for text in data.summary["warnings"]] == [True] * (warned is not None)
    plain = [PREPROCESS.sample(source.load(k)).image for k in range(2)]
    changed = {
        record.label: not image.equal(plain[record.label])
        for image, record in zip(batch.image, batch.record, strict=True)
    }
    assert changed == {0: chosen == "both", 1: chosen in ("fake", "both")}


def test_compression_that_is_aligned_or_off():
    files = {"real": {"probed": 10, "format": JPEG}, "fake": {"probed": 10, "format": LOSSLESS}}
    aligned = AugmentConfig(align_compression=True)  # fakes get their photographs' history
    assert choose_jpeg_classes(aligned, files) == ("both", None)
    assert choose_jpeg_classes(AugmentConfig(jpeg_quality=[]), files) == ("none", None)


def test_unknown_sources_are_named():
    with pytest.raises(ArtifactNetError, match=r"data\.name=foldr.*demo, folder, xaigd"):
        datamodule.build_splits(DataConfig(name="foldr"), 0)


def test_dropped_duplicates_are_reported_and_never_served(tmp_path):
    for split, kind in itertools.product(("train", "val", "test"), ("real", "fake")):
        for number in range(4):
            picture(tmp_path / split / kind / f"{split}{number}.png", (40, 40))
    twin, original = tmp_path / "train/real/train0.png", tmp_path / "test/real/test0.png"
    shutil.copy(original, twin)
    config = DataConfig(
        name="folder", root=str(tmp_path), batch_size=3, check="full", on_error="skip"
    )
    data = DataModule(config, PREPROCESS, 0)
    (text,) = [text for text in data.summary["warnings"] if "another split has them too" in text]
    assert text.startswith("1 images left out")
    assert f"{twin} (train): same image as {original}" in text
    assert data.summary["splits"]["train"]["class"] == {"real": 3, "fake": 4}
    loader = data.train_loader()
    served = set()
    for epoch in range(8):  # an epoch drops what does not fill its last batch
        loader.sampler.set_epoch(epoch)
        served |= {name for batch in seen(loader) for name in batch}
    assert served == {record.path for record in data.splits["train"].records}
    assert str(twin) not in served
    assert data.skipped["train"] == []  # left out before, not skipped on loading


class TwinSource:
    """A photograph of noise and its fake, in which one square is inverted."""

    def __init__(self, pairs):
        kinds = (("real", Annotation.CLEAN), ("gan", Annotation.MASK))
        keys = itertools.product(range(pairs), (1, 0))
        self.records = [Record(f"uid{k}", i, *kinds[i], f"{k}/{i}") for k, i in keys]

    def load(self, index):
        record = self.records[index]
        rng = np.random.default_rng(int(record.uid[3:]))
        image = rng.integers(0, 256, (60, 70, 3), dtype=np.uint8)
        mask = np.zeros((60, 70), np.uint8)
        top, left = rng.integers(0, 50), rng.integers(0, 60)
        mask[top : top + 6, left : left + 6] = 0b10
        if record.label == 0:
            return Sample(record, image)
        image[mask > 0] = 255 - image[mask > 0]
        return Sample(record, image, mask)


@pytest.mark.parametrize("crop", [True, False])
def test_twins_alike_differ_by_the_artifact_alone(crop):
    crops = {"crop": True, "crop_size": [24, 20], "crop_artifact": True} if crop else {}
    flips = {"hflip": 0.5, "vflip": 0.5, "rotate": 0.75}
    augment = AugmentConfig(jpeg_on="none", max_category_ratio=1.0, **flips, **crops)
    # without resizing, so that the artifact's borders stay sharp
    frame = ((60, 60), "stretch") if crop else ((70, 70), "pad")
    preprocess = Preprocess(*frame, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    source, transform = TwinSource(12), TrainTransform(augment, preprocess)
    alike, other = (
        DetectionDataset(source, preprocess, transform, 3, "raise", alike) for alike in (1, 0)
    )
    same = 0
    for item in range(0, 24, 2):
        fake, real = (alike[(1, index)] for index in (item, item + 1))
        differs = (fake.image != real.image).any(0)
        assert differs.any()
        assert not differs[fake.mask == 0].any()
        assert not real.mask.any()
        fake, real = other[(1, item)], other[(1, item + 1)]
        same += not bool((fake.image != real.image).any(0)[fake.mask == 0].any())
    assert same < 12  # without the key twins go different ways
