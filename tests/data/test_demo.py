"""The embedded data set: twins, masks, determinism, packaged photographs."""

import builtins
import csv
import io
import os
import pickle
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from annotated_files import load_manifest
from PIL import Image
from torch.utils.data import DataLoader

from artifactnet.config import DataConfig
from artifactnet.data.converters.demo import convert_demo_data
from artifactnet.data.regions import tags_of_edits
from artifactnet.data.sources import demo
from artifactnet.taxonomy import CATEGORIES, UNCATEGORIZED_BIT
from artifactnet.types import Annotation, ArtifactNetError


def small(**changes) -> DataConfig:
    keys = {"demo_train": 24, "demo_val": 8, "demo_test": 8, "demo_size": 96, **changes}
    return DataConfig(**keys)


@pytest.fixture(scope="module")
def splits():
    return demo.build_demo_splits(small(), 0)


def test_twins_share_uid_crop_and_file_history(splits):
    source = splits["train"]
    for index in range(0, len(source.records), 2):
        real, fake = source.load(index), source.load(index + 1)
        assert real.record.uid == fake.record.uid == f"demo-train-{index // 2:05d}"
        assert (real.record.label, fake.record.label) == (0, 1)
        assert real.record.generator == "real"
        assert fake.record.generator == ("migan" if index // 2 % 4 == 3 else "edit")
        assert real.record.annotation is Annotation.CLEAN
        assert fake.record.annotation is Annotation.MASK
        headers = []
        for which in (index, index + 1):
            with Image.open(io.BytesIO(source.encoded(which))) as opened:
                headers.append((opened.format, opened.size, opened.quantization))
        assert headers[0] == headers[1]
        assert real.image.shape == fake.image.shape == (96, 96, 3)
        if fake.record.generator == "migan":
            continue  # the photographs themselves were saved as JPEG after they were repainted
        # JPEG couples 16x16 blocks, so only pixels far from the edit must agree.
        difference = np.abs(real.image.astype(int) - fake.image.astype(int)).max(axis=2)
        far = np.ones((96, 96), bool)
        for y, x in zip(*np.nonzero(fake.mask), strict=True):
            far[max(0, y - 36) : y + 37, max(0, x - 36) : x + 37] = False
        assert difference[far].max(initial=0) == 0
        assert difference[fake.mask > 0].mean() > 8


def test_masks_match_their_records(splits):
    for source in splits.values():
        for index, record in enumerate(source.records):
            sample = source.load(index)
            assert sample.record is record
            if record.label == 0:
                assert (sample.mask, sample.heatmap, record.categories) == (None, None, 0)
                continue
            assert int(np.bitwise_or.reduce(sample.mask.ravel())) == record.categories
            assert (sample.mask.dtype, sample.heatmap.dtype) == (np.uint8, np.float32)
            assert 0 <= sample.heatmap.min() <= sample.heatmap.max() <= 1
            assert sample.heatmap[sample.mask > 0].mean() > 0.6
            assert sample.heatmap[sample.mask == 0].mean() < 0.15


def test_splits_share_no_photograph_and_use_all(splits):
    scenes = {}
    for name, source in splits.items():
        of_split = {f"{p.package}/{p.file}" for p in demo.photos_of_split(name)}
        scenes[name] = {record.location.split("#")[0] for record in source.records}
        assert scenes[name] <= of_split
        larger = demo.build_demo_splits(small(**{f"demo_{name}": 2000}), 0)[name]
        assert {record.location.split("#")[0] for record in larger.records} == of_split
    assert sum(map(len, scenes.values())) == len(set.union(*scenes.values()))
    homes = defaultdict(set)
    for photo in (*demo.CLASSIC, *demo.packaged_photos()):
        homes[photo.scene].add(photo.split)
    assert all(len(where) == 1 for where in homes.values()), homes
    assert len(homes) > 160


def test_location_names_the_photograph_that_was_cropped(monkeypatch):
    source = demo.build_demo_splits(small(), 0)["test"]
    opened = []
    read = demo._read
    monkeypatch.setattr(demo, "_read", lambda *what: opened.append(what[0]) or read(*what))
    for index in range(len(source.records)):
        source.load(index)
        photo = opened.pop()
        assert source.records[index].location.startswith(f"{photo.package}/{photo.file}#")


def test_repainted_twins_differ_inside_their_masks_alone():
    source = demo.build_demo_splits(small(generators=["migan"], demo_size=224), 0)["test"]
    assert {record.generator for record in source.records} == {"real", "migan"}
    for index in range(0, len(source.records), 2):
        real, fake = source.load(index), source.load(index + 1)
        marked = fake.mask > 0
        assert set(np.unique(fake.mask)) == {0, UNCATEGORIZED_BIT}
        assert fake.record.categories == UNCATEGORIZED_BIT
        assert 0.01 < marked.mean() < 0.6
        difference = np.abs(real.image.astype(int) - fake.image.astype(int)).mean(2)
        assert difference[marked].mean() > 4 * difference[~marked].mean()


def test_generators_choose_the_twins():
    def makers(**changes):
        records = demo.build_demo_splits(small(**changes), 0)["train"].records[1::2]
        return [record.generator for record in records]

    assert set(makers(generators=["edit"])) == {"edit"}
    assert set(makers(generators=["migan"])) == {"migan"}
    assert makers(demo_migan=0.5).count("migan") == 12
    assert makers(demo_migan=0.0) == makers(demo_photos="classic") == ["edit"] * 24


def test_classic_photographs_give_the_images_of_earlier_versions():
    source = demo.build_demo_splits(small(demo_photos="classic"), 0)["train"]
    places = [record.location.partition("#")[0] for record in source.records[:8:2]]
    assert places == [
        "sklearn/datasets/images/flower.jpg",
        "skimage/data/hubble_deep_field.jpg",
        "skimage/data/clock_motion.png",
        "skimage/data/coffee.png",
    ]
    # edits are random numbers alone, so a change of them shows in the first fakes' masks
    masks = [int((source.load(index).mask > 0).sum()) for index in (1, 3, 5, 7)]
    assert masks == [3457, 2090, 185, 3562]


def test_samples_depend_on_the_data_seed_and_nothing_else(splits):
    again = demo.build_demo_splits(small(demo_train=40), 12345)["train"]
    other = demo.build_demo_splits(small(demo_seed=1), 0)["train"]
    for index in [31, 4, 17, 4, 0]:
        assert again.encoded(index) == splits["train"].encoded(index)
        assert again.records[index] == splits["train"].records[index]
        assert other.encoded(index) != splits["train"].encoded(index)
    files = [source.encoded(i) for source in splits.values() for i in range(len(source.records))]
    assert len(files) == len(set(files)), "duplicate images"


def test_samples_are_made_once_and_the_cache_is_bounded(monkeypatch):
    source = demo.build_demo_splits(small(), 0)["train"]
    monkeypatch.setattr(demo, "_CACHE_BYTES", 12_000)
    files = [source.encoded(index) for index in range(20)]
    assert 0 < source._kept_bytes <= 12_000
    assert [source.encoded(index) for index in range(20)] == files
    first = source.load(1)
    first.image[:], first.mask[:] = 0, 0
    monkeypatch.setattr(demo, "_crop", None)  # making one again would fail
    again = source.load(1)
    assert again.image.any(), "a caller's change reached the cache"
    assert again.mask.any(), "a caller's change reached the cache"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_workers_make_the_same_images(splits):
    copied = pickle.loads(pickle.dumps(splits["val"]))
    assert copied.records == splits["val"].records
    assert copied.encoded(3) == splits["val"].encoded(3)

    class Images:
        def __len__(self):
            return 8

        def __getitem__(self, index):
            return splits["test"].load(index).image

    loader = DataLoader(Images(), batch_size=None, num_workers=2, multiprocessing_context="fork")
    for index, image in enumerate(loader):
        assert (np.asarray(image) == splits["test"].load(index).image).all()


def test_format_gives_nothing_away():
    """File size is the one thing left; alone it must not tell the classes apart."""
    source = demo.build_demo_splits(small(demo_train=120), 0)["train"]
    sizes = np.array([len(source.encoded(i)) for i in range(len(source.records))])
    real, fake = sizes[0::2], sizes[1::2]
    best = max((np.mean(real <= cut) + np.mean(fake > cut)) / 2 for cut in np.unique(sizes))
    assert best < 0.6


def test_categories_are_restricted():
    config = small(demo_categories=["low-level-color", "cognitive-level-physics"])
    for source in demo.build_demo_splits(config, 0).values():
        bits = {record.categories for record in source.records if record.label}
        assert bits <= {1 << 4, 1 << 7, 1 << 4 | 1 << 7}


def test_number_of_edits_is_restricted():
    for source in demo.build_demo_splits(small(demo_edits=1, demo_migan=0.0), 0).values():
        for index in range(1, len(source.records), 2):
            bits = source.records[index].categories
            assert bits.bit_count() == 1
            assert set(np.unique(source.load(index).mask)) == {0, bits}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"demo_edits": 0}, "demo_edits is 0; use 1 or more"),
        ({"demo_categories": ["texture"]}, "demo_categories: unknown 'texture'; known: low-level"),
        ({"demo_size": 16}, "demo_size is 16; use at least 32"),
        ({"demo_val": -1}, "demo_val is -1"),
        ({"demo_train": 0, "demo_val": 0, "demo_test": 0}, "demo data is empty"),
        ({"generators": ["sdxl"]}, "generators are edit, migan"),
        ({"generators": ["migan"], "demo_photos": "classic"}, "generators are edit;"),
    ],
)
def test_impossible_keys(changes, message):
    with pytest.raises(ArtifactNetError, match=message):
        demo.build_demo_splits(small(**changes), 0)


def test_missing_packages_and_files_are_named(monkeypatch):
    gone = replace(demo.CLASSIC[0], file="data/no_such_photograph.png")
    with pytest.raises(ArtifactNetError, match=r"no_such_photograph\.png.*scikit-image"):
        demo.locate_photo(gone)
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    with pytest.raises(ArtifactNetError, match="pip install scikit-learn"):
        demo.locate_photo(next(p for p in demo.CLASSIC if p.package == "sklearn"))
    with pytest.raises(ArtifactNetError, match="pip install"):  # when splits are built
        demo.build_demo_splits(small(), 0)


@pytest.mark.parametrize("splits", [(), ("train", "val")])
def test_a_package_without_the_photographs_says_so(splits, tmp_path, monkeypatch):
    for split in splits:
        (tmp_path / split / "real").mkdir(parents=True)
        (tmp_path / split / "real" / "7.jpg").touch()
    monkeypatch.setattr(demo, "PHOTOGRAPHS", tmp_path)
    demo.packaged_photos.cache_clear()
    with pytest.raises(ArtifactNetError, match="lacks the photographs.*demo_photos=classic"):
        demo.build_demo_splits(small(), 0)
    demo.packaged_photos.cache_clear()
    demo.build_demo_splits(small(demo_photos="classic"), 0)


@pytest.mark.parametrize("part", ["file", "repainted", "mask"])
def test_one_missing_file_of_a_packaged_photograph_is_named(part):
    gone = replace(demo.packaged_photos()[0], **{part: "photographs/train/gone.jpg"})
    with pytest.raises(ArtifactNetError, match=r"gone\.jpg.*pip install .*artifactnet"):
        demo.locate_photo(gone)


def test_every_packaged_photograph_has_its_licence_named():
    rows = csv.DictReader((demo.PHOTOGRAPHS / "LICENCES.csv").open(encoding="utf-8"))
    named = {row["name"]: row["licence"] for row in rows}
    stems = {photo.scene for photo in demo.packaged_photos()}
    assert len(stems) == 145
    assert all(named[stem] for stem in stems)


def test_the_packages_are_not_imported(monkeypatch):
    real_import = builtins.__import__

    def guarded(name, *args, **options):
        assert name.split(".")[0] not in ("skimage", "sklearn", "matplotlib", "pooch")
        return real_import(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", guarded)
    demo._read.cache_clear()
    for photo in (*demo.CLASSIC, *demo.packaged_photos()):
        image = demo.read_photo(photo)
        assert min(image.shape[:2]) >= 180
        assert demo.read_photo(photo) is image
        assert not image.flags.writeable


@pytest.mark.parametrize(
    ("labels", "tags"),
    [
        (["low-level-texture"], ("wrong texture",)),
        (["low-level-edge_shape"], ("structure/attribute error",)),
        (["low-level-symbol"], ()),
        (["low-level-color"], ("structure/attribute error",)),
        (["high-level-semantics"], ("structure/attribute error",)),
        (["cognitive-level-commonsense"], ("other anomalies",)),
        (["cognitive-level-physics"], ()),
    ],
)
def test_each_edit_has_its_tag(labels, tags):
    source = demo.build_demo_splits(small(demo_categories=labels, demo_train=2), 0)["train"]
    assert [source.load(k).tags for k in range(4)] == [(), tags, (), tags]


def test_tags_of_several_edits_and_of_unknown_ones():
    bits = sum(category.bit for category in CATEGORIES)
    assert tags_of_edits(bits) == ("structure/attribute error", "wrong texture", "other anomalies")
    assert tags_of_edits(UNCATEGORIZED_BIT) is None
    source = demo.build_demo_splits(small(demo_train=2, generators=["migan"]), 0)["train"]
    assert [source.load(k).tags for k in range(4)] == [(), None, (), None]


def test_files_hold_what_the_source_gives(tmp_path):
    config = DataConfig(demo_train=2, demo_val=1, demo_test=1, demo_size=64)
    counts = convert_demo_data(config, tmp_path).counts
    assert counts["images"] == counts["with a score"] == 8
    ours, theirs = demo.build_demo_splits(config, 0), load_manifest(tmp_path)
    assert set(ours) == set(theirs) == {"train", "val", "test"}
    for split, source in ours.items():
        assert len(source.records) == len(theirs[split].records)
        for index, record in enumerate(source.records):
            one, other = source.load(index), theirs[split].load(index)
            for key in ("uid", "label", "annotation", "categories"):
                assert getattr(other.record, key) == getattr(record, key)
            assert (record.categories > 0) == (record.label == 1)
            np.testing.assert_array_equal(one.image, other.image)
            assert one.score == other.score
            assert one.tags == other.tags
            assert (0 < one.score < 1) == record.label
            if record.label:
                np.testing.assert_array_equal(one.mask, other.mask)
                np.testing.assert_allclose(one.heatmap, other.heatmap, atol=0.51 / 255)
