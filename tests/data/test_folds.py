"""Cross-validation: a worked example, and properties of folds of folders."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from artifactnet.config import Config, DataConfig
from artifactnet.data.datamodule import build_splits, drop_and_summarize
from artifactnet.data.folds import assign_folds, uid_folds
from artifactnet.evaluation.selection import select_images
from artifactnet.rules import problems
from artifactnet.types import Annotation, ArtifactNetError, Record


def test_worked_example() -> None:
    uids = [f"img{k}" for k in range(8)]
    expected = dict(zip(uids, (1, 2, 3, 3, 1, 0, 2, 0), strict=True))
    assert uid_folds(uids, 4, seed=0) == expected
    assert uid_folds([*reversed(uids), "img3"], 4, seed=0) == expected
    assert uid_folds(uids, 4, seed=1) != expected


def fake(uid: str, generator: str = "sd") -> Record:
    return Record(uid, 1, generator, Annotation.NONE, f"{generator}/{uid}")


def real(uid: str, number: int = 0) -> Record:
    return Record(uid, 0, "real", Annotation.CLEAN, f"real/{uid}/{number}")


def test_every_generator_is_spread_alike_and_real_images_match() -> None:
    fakes = [fake(f"{maker}{k}", maker) for maker in ("sd", "flux", "gan") for k in range(9)]
    records = [*fakes, *(real(f"photo{k}") for k in range(40))]
    found = assign_folds(records, 4, seed=3)
    for maker in ("sd", "flux", "gan"):
        own = {
            record.uid: fold
            for record, fold in zip(records, found, strict=True)
            if record.generator == maker
        }
        order = sorted(own, key=lambda uid: hashlib.sha256(f"3\n{uid}".encode()).hexdigest())
        assert [own[uid] for uid in order] == [k % 4 for k in range(9)]
    # 9 = 3 + 2 + 2 + 2 of each generator, and as many real images
    counts = {0: 9, 1: 6, 2: 6, 3: 6}
    assert Counter(found[:27]) == counts
    assert Counter(found[27:]) == {**counts, None: 13}


def test_real_images_of_their_own_are_ranked_like_fakes() -> None:
    records = [*(fake(f"f{k}") for k in range(8)), *(real(f"img{k}") for k in range(8))]
    assert assign_folds(records, 4, seed=0)[8:] == [1, 2, 3, 3, 1, 0, 2, 0]


def test_uids_with_several_generators_are_ranked_together() -> None:
    records = [fake(f"img{k}", maker) for maker in ("sd", "flux") for k in range(8)]
    assert assign_folds(records, 4, seed=0) == [1, 2, 3, 3, 1, 0, 2, 0] * 2


IMAGES = st.lists(
    st.tuples(st.sampled_from("abcdefghij"), st.sampled_from(["real", "sd", "flux"])),
    max_size=30,
)


@settings(max_examples=150, deadline=None)
@given(IMAGES, st.integers(2, 5), st.integers(0, 9))
def test_properties(images: list[tuple[str, str]], folds: int, seed: int) -> None:
    records = [
        real(uid, k) if maker == "real" else fake(uid, maker)
        for k, (uid, maker) in enumerate(images)
    ]
    found = assign_folds(records, folds, seed)
    homes: dict[str, set[int]] = {}
    fakes, reals = Counter(), Counter()
    for record, fold in zip(records, found, strict=True):
        if fold is None:
            assert record.label == 0
            continue
        assert 0 <= fold < folds
        homes.setdefault(record.uid, set()).add(fold)
        (fakes if record.label else reals)[fold] += 1
    assert all(len(home) == 1 for home in homes.values())
    assert all(reals[fold] <= fakes[fold] for fold in range(folds))
    # one that is left out has no place: its own fold is full, or all are
    for record, fold in zip(records, found, strict=True):
        if fold is None:
            home = homes.get(record.uid, set(range(folds)))
            assert all(reals[fold] == fakes[fold] for fold in home)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """24 fakes of two generators, already split, and 30 photographs; some have twins."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)

    def save(*names: str) -> None:
        path = folder.joinpath(*names)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)

    for k in range(12):
        save("train", "fake", "sd", f"s{k}.png")
        save("test", "fake", "flux", f"x{k}.png")
    for k in range(4):
        save("train", "real", f"s{k}.png")
    for k in range(26):
        save("test", "real", f"p{k}.png")
    return folder


def config_of(root, fold: int, folds: int = 4, **more) -> DataConfig:
    return DataConfig(name="folder", root=str(root), folds=folds, fold=fold, **more)


def test_every_image_is_tested_once_and_splits_are_disjoint(root) -> None:
    tested: list[str] = []
    for fold in range(4):
        splits = build_splits(config_of(root, fold, val_fraction=0.2), 0)
        uids = {name: {record.uid for record in part.records} for name, part in splits.items()}
        assert not uids["train"] & uids["test"]
        assert not uids["train"] & uids["val"]
        assert not uids["val"] & uids["test"]
        assert sum(len(part.records) for part in splits.values()) == 48
        labels = [record.label for record in splits["test"].records]
        assert labels.count(1) == labels.count(0) == 6
        makers = Counter(record.generator for record in splits["test"].records)
        assert (makers["sd"], makers["flux"]) == (3, 3)
        assert {record.label for record in splits["val"].records} == {0, 1}
        tested += [record.location for record in splits["test"].records]
        sample = splits["test"].load(0)
        assert sample.record == splits["test"].records[0]
    assert len(tested) == len(set(tested)) == 48


def test_too_few_real_images_are_all_used_with_a_warning(root, tmp_path) -> None:
    for place in ("fake", "real"):
        (tmp_path / place).mkdir()
    for k in range(12):
        (tmp_path / "fake" / f"f{k}.png").write_bytes(
            (root / "train" / "fake" / "sd" / f"s{k}.png").read_bytes()
        )
    for k in range(5):
        (tmp_path / "real" / f"r{k}.png").write_bytes(
            (root / "test" / "real" / f"p{k}.png").read_bytes()
        )
    splits = build_splits(config_of(tmp_path, 1), 0)
    records = [record for part in splits.values() for record in part.records]
    assert Counter(record.label for record in records) == {1: 12, 0: 5}
    warnings = drop_and_summarize(splits, DataConfig())[1]["warnings"]
    assert sum("data.folds: 5 real images for 12 fakes" in text for text in warnings) == 1
    with pytest.raises(ArtifactNetError, match="data.folds=13: the fakes fill only 12 folds"):
        build_splits(config_of(tmp_path, 1, folds=13), 0)


def test_copies_of_an_image_share_a_fold(root, tmp_path) -> None:
    for place in ("fake", "real"):
        (tmp_path / place).mkdir()
    data = [(root / "train" / "fake" / "sd" / f"s{k}.png").read_bytes() for k in range(6)]
    for k in range(12):  # each twice
        (tmp_path / "fake" / f"f{k}.png").write_bytes(data[k // 2])
        photo = root / "test" / "real" / f"p{k}.png"
        (tmp_path / "real" / f"r{k}.png").write_bytes(photo.read_bytes())
    for fold in range(3):
        test = build_splits(config_of(tmp_path, fold, folds=3), 0)["test"]
        numbers = sorted(int(record.uid[1:]) for record in test.records if record.label)
        assert numbers
        assert all((k ^ 1) in numbers for k in numbers)


def test_limit_counts_uids_of_a_split(root) -> None:
    splits = build_splits(config_of(root, 0, limit=4), 0)
    assert [len({r.uid for r in part.records}) for part in splits.values()] == [4, 4, 4]


def test_evaluation_keeps_the_fold_on_its_own_data_alone(root, tmp_path) -> None:
    own = Config(data=config_of(root, 2), seed=5)
    places = [r.location for r in build_splits(own.data, 5)["test"].records]
    same = select_images(Config(data=config_of(root, 2), seed=5), own)
    assert [record.location for record in same.splits["test"].records] == places
    other = Config(data=config_of(root, 1), seed=5)
    with pytest.raises(ArtifactNetError, match="was trained on all of these images"):
        select_images(other, own, ["data.fold=1"])
    (tmp_path / "real").mkdir()
    (tmp_path / "fake").mkdir()
    for k in range(2):
        photo = (root / "test" / "real" / f"p{k}.png").read_bytes()
        (tmp_path / "real" / f"a{k}.png").write_bytes(photo)
        (tmp_path / "fake" / f"b{k}.png").write_bytes(photo + b" ")
    moved = Config(data=replace(own.data, root=str(tmp_path)), seed=5)
    assert len(select_images(moved, own).splits["test"].records) == 4  # all of them


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"folds": 4}, "data.fold must be set"),
        ({"fold": 1}, "data.folds must be set"),
        ({"folds": 4, "fold": 4}, "data.fold must be below data.folds=4"),
        ({"folds": 1, "fold": 0}, "data.folds must be at least 2"),
        ({"folds": 4, "fold": 0, "name": "demo"}, "data.folds is not for data.name=demo"),
    ],
)
def test_keys_that_do_not_fit(keys, message: str) -> None:
    config = Config(data=DataConfig(**{"name": "folder", "root": "x", **keys}))
    assert next(f"{key} {problem}" for key, problem in problems(config)).startswith(message)
