"""Every image is asked about once, whatever happens in between."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from artifactnet.data.image_folders import FolderImage
from artifactnet.data.sources.folder import FolderSource
from artifactnet.distillation import labelling
from artifactnet.distillation.cache import NO_STAMP, TeacherCache, image_key
from artifactnet.distillation.labelling import file_stamp, label_splits
from artifactnet.types import Annotation, ArtifactNetError, Record, TeacherAnswer


def prepared(record: Record, image: np.ndarray) -> np.ndarray:
    if image[0, 0, 0] == 66:
        raise ArtifactNetError(f"{record.location}: too small for this teacher")
    return image


class Grayness:
    """Answers with the image's mean over its channels, and takes notes of who asked."""

    def __init__(self, version="1", fail_after=None, error=KeyboardInterrupt):
        self.identity = {"kind": "test", "hash": version}
        self.about = {"name": f"gray {version}"}
        self.prepare = prepared
        self.labelled: list[bytes] = []
        self.batches: list[int] = []
        self._left, self._error = fail_after, error

    def check(self, splits):
        pass

    def label(self, images):
        self.batches.append(len(images))
        answers = []
        for image in images:
            if self._left is not None and len(self.labelled) >= self._left:
                raise self._error
            if image[0, 0, 0] == 99:
                raise ArtifactNetError("photo 99: the teacher's answer is not a number (NaN)")
            answers.append(expected(image))
        self.labelled += [image_key(image) for image in images]
        return answers


def expected(image) -> TeacherAnswer:
    heatmap = (image.mean(2) / 255).astype(np.float32)
    return TeacherAnswer(heatmap, heatmap + 1, float(heatmap.mean()), 3.0)


@pytest.fixture
def folder(tmp_path):
    """Twenty small images, in a folder of their own."""
    root = tmp_path / "photos"
    root.mkdir()
    rng = np.random.default_rng(0)
    for number in range(20):
        pixels = rng.integers(0, 60, (6, 8 + number % 3, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{number:02d}.png")
    return root


class Counting(FolderSource):
    """Counts what it decodes."""

    loads = 0

    def load(self, index):
        self.loads += 1
        return super().load(index)


def source(root, numbers=range(20)) -> Counting:
    items = []
    for number in numbers:
        path = str(root / f"{number:02d}.png")
        record = Record(str(number), number % 2, "g", Annotation.NONE, path, path=path)
        items.append(FolderImage(record, None, None))
    return Counting(items)


def run(splits, teacher, root, side=16, batch_size=4, **options):
    lines: list[str] = []
    labelled = label_splits(
        splits, teacher, root / "cache", side, batch_size, report=lines.append, **options
    )
    return labelled, lines


def check(labelled, images) -> None:
    for index in range(len(images.records)):
        sample = labelled.load(index)
        wanted = expected(sample.image)
        np.testing.assert_allclose(sample.teacher.heatmap, wanted.heatmap, atol=2**-12)
        np.testing.assert_allclose(sample.teacher.sigma, wanted.sigma, rtol=2**-11)
        assert sample.teacher.score == pytest.approx(wanted.score, rel=1e-6)


@pytest.mark.parametrize("workers", [0, 2])
def test_all_splits_are_labelled_with_their_own_answers(folder, tmp_path, workers):
    splits = {"train": source(folder, range(13)), "val": source(folder, range(13, 20))}
    teacher = Grayness()
    state = torch.get_rng_state()
    labelled, lines = run(splits, teacher, tmp_path, workers=workers)
    assert torch.equal(torch.get_rng_state(), state)  # the run's random numbers are left alone
    assert list(labelled) == ["train", "val"]
    for name in splits:
        check(labelled[name], splits[name])
    assert teacher.batches == [4, 4, 4, 1, 4, 3]
    assert "20 images labelled" in lines[-1]


def test_nothing_is_asked_twice_nor_even_decoded(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(labelling, "_SECONDS", 0.0)
    _, lines = run({"train": source(folder)}, Grayness(), tmp_path)
    assert lines[9].startswith("labelling train: 10 of 20 images, ")
    assert "images/s" in lines[9]
    assert "min left" in lines[9]
    again, images = Grayness(), source(folder)
    labelled, lines = run({"train": images}, again, tmp_path)
    assert again.labelled == []
    assert images.loads == 0
    assert lines[9] == "labelling train: 10 of 20 images, all known"
    assert "0 images labelled, answers to 20" in lines[-1]
    check(labelled["train"], images)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, ArtifactNetError("no")])
def test_a_stopped_run_goes_on_where_it_was(folder, tmp_path, error):
    first = Grayness(fail_after=8, error=error)
    with pytest.raises(error if isinstance(error, type) else type(error)):
        run({"train": source(folder)}, first, tmp_path)
    second = Grayness()
    labelled, _ = run({"train": source(folder)}, second, tmp_path)
    assert len(first.labelled) == 8
    assert len(second.labelled) == 12
    assert not set(first.labelled) & set(second.labelled)
    check(labelled["train"], source(folder))


def test_a_killed_process_loses_only_its_last_shard(folder, tmp_path, monkeypatch):
    """Without the chance to close: what was complete is there, the rest is asked again."""
    monkeypatch.setattr(labelling, "CacheWriter", lambda cache, side: Unclosed(cache, side, 8))
    run({"train": source(folder)}, Grayness(), tmp_path, on_error="skip")
    monkeypatch.undo()
    second = Grayness()
    labelled, _ = run({"train": source(folder)}, second, tmp_path)
    assert len(second.labelled) == 4
    check(labelled["train"], source(folder))


class Unclosed(labelling.CacheWriter):
    def __exit__(self, *_):
        pass


def test_the_same_picture_is_asked_about_once_under_any_name(folder, tmp_path):
    (folder / "05.png").unlink()
    (folder / "07.png").rename(folder / "05.png")
    (folder / "07.png").write_bytes((folder / "03.png").read_bytes())
    teacher = Grayness()
    labelled, _ = run({"train": source(folder)}, teacher, tmp_path)
    assert len(teacher.labelled) == len(set(teacher.labelled)) == 19
    check(labelled["train"], source(folder))
    (folder / "00.png").rename(folder / "20.png")
    moved = Grayness()
    run({"train": source(folder, range(1, 21))}, moved, tmp_path)
    assert moved.labelled == []


def test_a_file_that_changed_is_asked_about_again(folder, tmp_path):
    labelled, _ = run({"train": source(folder)}, Grayness(), tmp_path)
    Image.fromarray(np.full((5, 5, 3), 10, np.uint8)).save(folder / "04.png")
    with pytest.raises(ArtifactNetError, match=r"04\.png: no answer of the teacher"):
        labelled["train"].load(4)
    second = Grayness()
    labelled, _ = run({"train": source(folder)}, second, tmp_path)
    assert len(second.labelled) == 1
    check(labelled["train"], source(folder))
    # another version of the teacher and another side start anew
    newer, finer = Grayness("2"), Grayness()
    run({"train": source(folder)}, newer, tmp_path)
    run({"train": source(folder)}, finer, tmp_path, side=32)
    assert len(newer.labelled) == len(finer.labelled) == 20
    assert len(list((tmp_path / "cache").iterdir())) == 3


def test_maps_are_stored_no_larger_than_asked(folder, tmp_path):
    run({"train": source(folder)}, Grayness(), tmp_path, side=4)
    [root] = (tmp_path / "cache").iterdir()
    identity = {**Grayness().identity, "side": 4, "format": labelling.FORMAT}
    cache = TeacherCache(tmp_path / "cache", identity, {})
    assert cache.folder == root
    sample = source(folder).load(0)
    stored = cache.read(image_key(sample.image)).heatmap
    assert stored.shape == (3, 4)
    blocks = expected(sample.image).heatmap.reshape(3, 2, 4, 2).mean((1, 3))
    np.testing.assert_allclose(stored, blocks, atol=2**-11)


def spoil(folder) -> None:
    (folder / "02.png").write_bytes(b"nothing")
    for number, value in ((6, 66), (9, 99)):
        Image.fromarray(np.full((5, 5, 3), value, np.uint8)).save(folder / f"{number:02d}.png")


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_images_are_left_out_and_told_where_that_is_asked(folder, tmp_path, caplog, workers):
    spoil(folder)
    teacher, images = Grayness(), source(folder)
    labelled, lines = run({"train": images}, teacher, tmp_path, on_error="skip", workers=workers)
    assert len(teacher.labelled) == 17  # the neighbours of 09 in its batch were asked one by one
    for name in ("02.png", "06.png", "photo 99"):
        assert caplog.text.count(name) == 1
    for index in (2, 6, 9):
        with pytest.raises(ArtifactNetError):
            labelled["train"].load(index)
    kept = [n for n in range(20) if n not in (2, 6, 9)]
    check(run({"x": source(folder, kept)}, Grayness(), tmp_path)[0]["x"], source(folder, kept))
    assert "17 images labelled" in lines[-1]


@pytest.mark.parametrize(("number", "asked"), [(2, 2), (6, 6)])
def test_a_bad_image_stops_the_run_and_keeps_what_was_answered(folder, tmp_path, number, asked):
    spoil(folder)
    images = source(folder, [n for n in range(20) if n not in ({2, 6} - {number})])
    with pytest.raises(ArtifactNetError, match=rf"{number:02d}\.png"):
        run({"train": images}, Grayness(), tmp_path, batch_size=1)
    good = source(folder, range(2))
    again = Grayness()
    run({"train": good}, again, tmp_path)
    assert again.labelled == []


def test_a_stamp_changes_with_the_file_and_is_none_where_there_is_none(folder, tmp_path):
    images = source(folder)
    stamp = file_stamp(images, 0)
    assert stamp == file_stamp(images, 0) != file_stamp(images, 1)
    os.utime(folder / "00.png", (1, 1))
    assert file_stamp(images, 0) != stamp
    (folder / "00.png").unlink()
    assert file_stamp(images, 0) == NO_STAMP
