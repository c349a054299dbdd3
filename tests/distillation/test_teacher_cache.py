"""Pseudo-labels on disk: nothing lost, nothing mixed, nothing silently wrong."""

import json
import math
import os
import pickle
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from artifactnet.distillation import cache as teacher_cache
from artifactnet.distillation.cache import (
    NO_STAMP,
    TEACHER,
    CacheWriter,
    Shard,
    TeacherCache,
    fingerprint,
    image_key,
    shrink_maps,
)
from artifactnet.types import ArtifactNetError, TeacherAnswer

IDENTITY = {"kind": "model", "hash": "ab", "side": 16}


def answer(seed: int, size=(6, 9)) -> TeacherAnswer:
    rng = np.random.default_rng(seed)
    heatmap = rng.random(size, dtype=np.float32)
    sigma = np.exp(rng.uniform(-5, 1, size)).astype(np.float32)
    score, logit = float(rng.random()), float(rng.normal())
    feature = rng.normal(size=5).astype(np.float32)
    return TeacherAnswer(heatmap, sigma, score, logit, feature)


def key(number: int) -> bytes:
    return number.to_bytes(16, "little")  # with zero bytes at its end, which numpy strips


def open_cache(root, **changes) -> TeacherCache:
    return TeacherCache(root, IDENTITY | changes, {"name": "t"})


def fill(root, numbers, per_shard=4) -> TeacherCache:
    cache = open_cache(root)
    with CacheWriter(cache, 16, per_shard) as writer:
        for number in numbers:
            writer.add(key(number), key(number + 1000), answer(number))
    return cache


def shards(cache: TeacherCache):
    return sorted(cache.folder.glob("answers-*.safetensors"))


def same(found: TeacherAnswer | None, wanted: TeacherAnswer) -> None:
    assert found is not None
    assert found.heatmap.dtype == found.sigma.dtype == np.float32
    np.testing.assert_allclose(found.heatmap, wanted.heatmap, atol=2.0**-12)  # half a step below 1
    np.testing.assert_allclose(found.sigma, wanted.sigma, rtol=2.0**-11)
    np.testing.assert_allclose([found.score, found.logit], [wanted.score, wanted.logit], rtol=1e-6)
    np.testing.assert_allclose(found.feature, wanted.feature, rtol=2.0**-11, atol=2.0**-24)


def test_answers_come_back_from_several_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(teacher_cache, "_OPEN", 2)  # fewer than there are
    cache = fill(tmp_path, range(10))
    assert len(cache) == 0  # what is being written is seen after a refresh
    cache.refresh()
    assert len(shards(cache)) == 3
    for reopened in (cache, open_cache(tmp_path), pickle.loads(pickle.dumps(cache))):
        assert len(reopened) == 10
        for number in (7, 0, 9, 3):
            same(reopened.read(key(number)), answer(number))
            assert len(reopened._open) <= 2
    assert cache.read(key(10)) is None
    assert cache.read(b"\xff" * 16) is None
    keys, stamps = cache.known()
    assert keys == {key(number) for number in range(10)}
    assert stamps == {key(number + 1000) for number in range(10)}
    tensors = load_file(shards(cache)[0])
    assert tensors["heatmaps"].dtype == tensors["sigmas"].dtype == np.float16


def test_each_map_keeps_its_own_size(tmp_path):
    sizes = [(1, 1), (16, 3), (2, 16), (16, 16)]
    cache = open_cache(tmp_path)
    with CacheWriter(cache, 16) as writer:
        for number, size in enumerate(sizes):
            writer.add(key(number), NO_STAMP, answer(number, size))
    cache.refresh()
    for number, size in enumerate(sizes):
        same(cache.read(key(number)), answer(number, size))
    assert cache.known()[1] == set()


def stored(root, label: TeacherAnswer) -> TeacherAnswer:
    cache = open_cache(root)
    with CacheWriter(cache, 16) as writer:
        writer.add(key(1), NO_STAMP, label)
    cache.refresh()
    return cache.read(key(1))


def test_missing_score_logit_and_feature_stay_missing(tmp_path):
    label = stored(tmp_path, replace(answer(1), score=math.nan, logit=math.nan, feature=None))
    assert math.isnan(label.score)
    assert math.isnan(label.logit)
    assert label.feature is None


def test_values_beyond_half_precision_are_kept_finite(tmp_path):
    extreme = TeacherAnswer(np.zeros((1, 2), np.float32), np.array([[1e-12, 1e9]], np.float32))
    extreme.feature = np.array([1e9, -1e9], np.float32)
    label = stored(tmp_path, extreme)
    assert label.feature.tolist() == [65504, -65504]
    assert (label.sigma > 0).all()
    assert np.isfinite(label.sigma).all()


@pytest.mark.parametrize("feature", [None, np.zeros(4, np.float32)])
def test_a_teacher_whose_features_vary_in_length_is_refused(tmp_path, feature):
    writer = CacheWriter(open_cache(tmp_path), 16)
    writer.add(key(1), key(8), answer(1))
    writer.add(key(2), key(9), replace(answer(2), feature=feature))
    with pytest.raises(ArtifactNetError, match="equally many numbers for every image"):
        writer.flush()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_process_opens_its_own_files(tmp_path):
    cache = fill(tmp_path, range(3))
    cache.refresh()
    cache.read(key(1))
    child = os.fork()
    if child == 0:
        fine = bool(cache._open) and cache.read(key(1)) is not None and cache._pid == os.getpid()
        os._exit(0 if fine else 1)
    assert os.waitpid(child, 0)[1] == 0


# --- several writers, killed writers --------------------------------------------------------


def test_writers_side_by_side_lose_nothing(tmp_path):
    one, other = open_cache(tmp_path), open_cache(tmp_path)
    with CacheWriter(one, 16, 2) as first, CacheWriter(other, 16, 2) as second:
        for number in range(5):
            first.add(key(number), NO_STAMP, answer(number))
            second.add(key(number + 3), NO_STAMP, answer(number + 3))  # 3 and 4 by both
    one.refresh()
    assert len(one) == 8
    for number in range(8):
        same(one.read(key(number)), answer(number))


def test_an_error_on_the_way_keeps_what_was_answered(tmp_path):
    cache = open_cache(tmp_path)

    def stopped() -> None:
        with CacheWriter(cache, 16) as writer:
            writer.add(key(1), NO_STAMP, answer(1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    cache.refresh()
    same(cache.read(key(1)), answer(1))


def test_a_slow_teachers_answers_do_not_wait_for_a_full_shard(tmp_path, monkeypatch):
    monkeypatch.setattr(teacher_cache, "PATIENCE", -1.0)
    cache = open_cache(tmp_path)
    CacheWriter(cache, 16).add(key(1), NO_STAMP, answer(1))
    cache.refresh()
    assert len(cache) == 1


def test_leftovers_of_killed_writers_go_and_fresh_ones_stay(tmp_path):
    cache = fill(tmp_path, [1])
    old, fresh = (cache.folder / f".answers-{n}-00000.safetensors.1.tmp" for n in ("a", "b"))
    for path in (old, fresh):
        path.write_bytes(b"half")
    past = time.time() - 7200
    os.utime(old, (past, past))
    assert len(open_cache(tmp_path)) == 1
    assert not old.exists()
    assert fresh.exists()


def test_a_full_disk_is_told_and_nothing_half_is_left(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    cache = fill(tmp_path, [1])
    writer = CacheWriter(cache, 16)
    writer.add(key(2), NO_STAMP, answer(2))
    monkeypatch.setattr("artifactnet.files.os.fsync", refuse)
    with pytest.raises(ArtifactNetError, match=r"answers-.*No space left.*start again"):
        writer.flush()
    monkeypatch.undo()
    assert len(list(cache.folder.iterdir())) == 2  # teacher.json and the shard of before
    writer.flush()
    cache.refresh()
    assert len(cache) == 2


# --- what does not belong --------------------------------------------------------------------


def test_another_version_of_the_teacher_has_a_folder_of_its_own(tmp_path):
    first = fill(tmp_path, range(3))
    found = json.loads((first.folder / TEACHER).read_text())
    assert found == {"identity": IDENTITY, "about": {"name": "t"}}
    assert first.folder.name == fingerprint(dict(reversed(IDENTITY.items())))  # in any order
    other = open_cache(tmp_path, hash="cd")
    assert other.folder != first.folder
    assert len(other) == len(open_cache(tmp_path, side=8)) == 0
    assert len(open_cache(tmp_path)) == 3
    shards(first)[0].rename(other.folder / "answers-x-00000.safetensors")
    with pytest.raises(ArtifactNetError, match=r"answers-x-00000\.\w+: answers of another teacher"):
        other.refresh()
    with pytest.raises(ArtifactNetError, match="name the folder above it"):
        open_cache(first.folder)
    first.folder.rename(tmp_path / fingerprint(IDENTITY | {"hash": "ef"}))
    with pytest.raises(ArtifactNetError, match=r"teacher\.json: .*another teacher.*distill\.cache"):
        open_cache(tmp_path, hash="ef")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"about": {}}'])
def test_a_damaged_description_is_refused(tmp_path, text):
    cache = fill(tmp_path, [1])
    (cache.folder / TEACHER).write_text(text)
    with pytest.raises(ArtifactNetError, match=r"teacher\.json: cannot be read"):
        open_cache(tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_a_truncated_shard_is_refused_with_the_remedy(tmp_path, keep):
    cache = fill(tmp_path, range(8))
    broken, whole = shards(cache)
    broken.write_bytes(broken.read_bytes()[:keep])
    with pytest.raises(ArtifactNetError, match=rf"{broken.name}: broken.*delete this file") as told:
        open_cache(tmp_path)
    assert "\n" not in str(told.value)
    broken.unlink()
    assert len(open_cache(tmp_path)) == 4
    assert whole.exists()


def rewritten(path, change) -> None:
    tensors = load_file(path)
    with safe_open(path, framework="np") as file:
        metadata = file.metadata()
    change(tensors)
    save_file(tensors, path, metadata=metadata)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.pop("logits"),
        lambda t: t.update(heatmaps=t["heatmaps"][:-1].copy()),
        lambda t: t.update(keys=t["keys"][:-1].copy()),
        lambda t: t.update(sizes=t["sizes"] * 0),
        lambda t: t.update(sizes=t["sizes"].ravel().copy()),
        lambda t: t.update(features=t["features"][:-1].copy()),
        lambda t: t.update(features=t["features"][:, 0].copy()),
    ],
    ids=["missing", "short map", "short keys", "empty", "flat sizes", "few features", "flat"],
)
def test_tensors_that_do_not_go_together_are_refused(tmp_path, change):
    cache = fill(tmp_path, range(3))
    rewritten(shards(cache)[0], change)
    with pytest.raises(ArtifactNetError, match="broken file of answers"):
        cache.refresh()


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t["heatmaps"].fill(np.nan),
        lambda t: t["heatmaps"].fill(1.5),
        lambda t: t["sigmas"].fill(0),
        lambda t: t["sigmas"].fill(np.nan),
        lambda t: t["features"].fill(np.nan),
    ],
)
def test_impossible_values_are_refused(tmp_path, change):
    cache = fill(tmp_path, range(3))
    rewritten(shards(cache)[0], change)
    cache.refresh()
    with pytest.raises(ArtifactNetError, match=r"row 1 holds"):
        cache.read(key(1))


def test_another_safetensors_file_and_a_missing_one_are_refused(tmp_path):
    save_file({"x": np.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ArtifactNetError, match="broken file of answers"):
        Shard(tmp_path / "x.safetensors", "t")
    with pytest.raises(ArtifactNetError, match="vanished"):
        Shard(tmp_path / "y.safetensors", "t")


# --- keys and sizes ------------------------------------------------------------------------


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_a_key_is_of_pixels_and_shape_alone(height, width, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    same_key = image_key(pixels)
    assert len(same_key) == 16
    assert image_key(pixels[:, ::-1][:, ::-1]) == same_key  # memory layout does not matter
    if height != width:
        assert image_key(pixels.reshape(width, height, 3)) != same_key
    changed = pixels.copy()
    changed[-1, -1, -1] ^= 1
    assert image_key(changed) != same_key


@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 64))
@settings(max_examples=60, deadline=None)
def test_shrinking_bounds_the_side_and_keeps_shape_and_mean(height, width, side):
    before = answer(height * 200 + width, (height, width))
    after = shrink_maps(before, side)
    longest = max(height, width)
    if longest <= side:
        np.testing.assert_array_equal(after.heatmap, before.heatmap)
        return
    assert max(after.heatmap.shape) == side
    for now, was in zip(after.heatmap.shape, (height, width), strict=True):
        assert abs(now - max(1.0, was * side / longest)) <= 0.5
    assert after.sigma.shape == after.heatmap.shape
    assert before.heatmap.min() <= after.heatmap.min() <= after.heatmap.max() <= 1
    assert abs(after.heatmap.mean() - before.heatmap.mean()) < 0.02  # areas are averaged
    assert (after.score, after.logit) == (before.score, before.logit)
