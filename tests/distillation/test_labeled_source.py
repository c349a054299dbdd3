"""Samples with a teacher's answer, and heatmaps made elsewhere."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from artifactnet.data.heatmaps import HeatmapFolder, read_heatmap, same_aspect
from artifactnet.distillation.cache import NO_STAMP, CacheWriter, TeacherCache, image_key
from artifactnet.distillation.labelling import TeacherLabeledSource
from artifactnet.types import Annotation, ArtifactNetError, Record, Sample, TeacherAnswer


class Photos:
    """Three images of different sizes; the last has the pixels of the first."""

    warnings = ("grainy",)

    def __init__(self) -> None:
        sizes = [(20, 30), (9, 7)]
        rng = np.random.default_rng(0)
        self.images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
        self.images.append(self.images[0].copy())
        self.records = [
            Record(f"u{n}", n % 2, "real", Annotation.NONE, f"photos/{n}.png") for n in range(3)
        ]

    def load(self, index: int) -> Sample:
        return Sample(self.records[index], self.images[index].copy(), score=0.5)

    def encoded(self, index: int) -> bytes:
        return self.images[index].tobytes()


def ramp(size) -> TeacherAnswer:
    """Linear along both axes, so that linear interpolation is known exactly away from borders."""
    rows, columns = np.meshgrid(*(np.linspace(0, 1, n) for n in size), indexing="ij")
    heatmap = ((rows + columns) / 2).astype(np.float32)
    return TeacherAnswer(heatmap, 0.25 + heatmap, 0.75, -2.0)


def interpolated(grid, size):
    """Half-pixel-centred bilinear interpolation in float64, with loops."""
    out = np.zeros(size)
    for i in range(size[0]):
        for j in range(size[1]):
            y = min(max((i + 0.5) * grid.shape[0] / size[0] - 0.5, 0), grid.shape[0] - 1)
            x = min(max((j + 0.5) * grid.shape[1] / size[1] - 0.5, 0), grid.shape[1] - 1)
            top, left = int(y), int(x)
            below, right = min(top + 1, grid.shape[0] - 1), min(left + 1, grid.shape[1] - 1)
            a, b = y - top, x - left
            upper = (1 - b) * grid[top, left] + b * grid[top, right]
            lower = (1 - b) * grid[below, left] + b * grid[below, right]
            out[i, j] = (1 - a) * upper + a * lower
    return out


def taught(tmp_path, indices=(0, 1)) -> TeacherLabeledSource:
    photos = Photos()
    cache = TeacherCache(tmp_path, {"kind": "test"}, {})
    with CacheWriter(cache, 10) as writer:
        for index in indices:
            image = photos.images[index]
            writer.add(image_key(image), NO_STAMP, ramp(image.shape[:2]))
    cache.refresh()
    return TeacherLabeledSource(photos, cache)


def test_maps_have_the_images_size_and_are_interpolated_linearly(tmp_path):
    source, photos = taught(tmp_path), Photos()
    sample = source.load(0)
    stored = source._cache.read(image_key(sample.image))
    assert stored.heatmap.shape == (7, 10)
    for name in ("heatmap", "sigma"):
        found = getattr(sample.teacher, name)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, interpolated(getattr(stored, name), (20, 30)), atol=1e-5)
    assert (sample.teacher.score, sample.teacher.logit) == (0.75, -2.0)
    # the rest of the sample and source is untouched
    np.testing.assert_array_equal(sample.image, photos.images[0])
    assert sample.score == 0.5
    assert (source.records, source.warnings) == (photos.records, ("grainy",))
    assert source.encoded(1) == photos.encoded(1)
    # the same picture under another name has the same answer; a small map was not shrunk
    np.testing.assert_array_equal(source.load(2).teacher.heatmap, sample.teacher.heatmap)
    whole = source.load(1).teacher.heatmap
    np.testing.assert_allclose(whole, ramp((9, 7)).heatmap, atol=2**-12)


def test_an_image_without_an_answer_is_named(tmp_path):
    with pytest.raises(ArtifactNetError, match=r"photos/1\.png: no answer.*start again"):
        taught(tmp_path, [0]).load(1)


# --- heatmaps made elsewhere ----------------------------------------------------------------


def record(path: str, generator="sd", uid="7") -> Record:
    return Record(uid, 1, generator, Annotation.NONE, path, path=path)


def put(root: Path, name: str, value=0.5, size=(4, 6)) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, np.full(size, value, np.float32))
    else:
        Image.fromarray(np.full(size, round(255 * value), np.uint8)).save(path)
    return path


def test_png_and_npy_are_read_in_the_unit_range(tmp_path):
    put(tmp_path, "a.png", 0.2)
    np.save(tmp_path / "b.npy", np.array([[0, 51], [255, 0]], np.uint8))
    np.save(tmp_path / "c.npy", np.array([[0.0, 0.25]], np.float64))
    folder = HeatmapFolder(tmp_path)
    assert len(folder) == 3
    np.testing.assert_allclose(folder.read(record("x/a.jpg"), (40, 60)), np.full((4, 6), 0.2))
    np.testing.assert_allclose(folder.read(record("x/b.jpg"), (9, 9)), [[0, 0.2], [1, 0]])
    found = folder.read(record("x/c.jpg"), (10, 20))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [[0, 0.25]])


def test_the_nearest_folder_wins_and_uids_will_do(tmp_path):
    for name, value in {"real/7.npy": 0.1, "fake/sd/7.npy": 0.2, "9.npy": 0.3}.items():
        put(tmp_path, name, value)
    put(tmp_path, "edit/demo-1.png", 0.4)
    folder = HeatmapFolder(tmp_path)
    for path, value in {"d/real/7.jpg": 0.1, "d/fake/sd/7.jpg": 0.2, "d/fake/9.webp": 0.3}.items():
        assert folder.read(record(path), (4, 6))[0, 0] == np.float32(value)
    shard = Record("demo-1", 1, "edit", Annotation.NONE, "shard.parquet#3")
    assert folder.read(shard, (4, 6))[0, 0] == pytest.approx(0.4, abs=0.002)
    by_uid = record("d/whatever.png", "edit", "demo-1")
    assert folder.read(by_uid, (4, 6))[0, 0] == pytest.approx(0.4, abs=0.002)


def test_heatmaps_and_images_must_be_paired(tmp_path):
    put(tmp_path / "two", "a/7.npy"), put(tmp_path / "two", "b/7.npy")
    with pytest.raises(ArtifactNetError, match=r"a.7\.npy and .*b.7\.npy fit it equally"):
        HeatmapFolder(tmp_path / "two").read(record("x/7.jpg"), (4, 6))
    put(tmp_path / "one", "7.png")
    records = [record("d/real/7.jpg", "real"), record("d/fake/7.jpg")]
    with pytest.raises(ArtifactNetError, match=r"7\.png: fits d/real/7\.jpg .*d/fake/7\.jpg .*lay"):
        HeatmapFolder(tmp_path / "one").check(records)
    HeatmapFolder(tmp_path / "one").check([records[0], records[0]])  # the same image is no matter


def test_missing_heatmaps_are_counted_and_the_first_named(tmp_path):
    put(tmp_path, "3.png")
    records = [record(f"d/{n}.jpg", uid=f"u{n}") for n in range(6)]
    with pytest.raises(ArtifactNetError, match=r"no heatmap for 5 images: d/0\.jpg; d/1") as told:
        HeatmapFolder(tmp_path).check(records)
    assert "d/5.jpg" not in str(told.value)
    with pytest.raises(ArtifactNetError, match=r"d/0\.jpg: no heatmap of this name"):
        HeatmapFolder(tmp_path).read(records[0], (4, 6))


@pytest.mark.parametrize("size", [(4, 6), (401, 600), (300, 300), (300, 200), (204, 300)])
def test_the_images_aspect_ratio_is_taken_and_no_other(tmp_path, size):
    put(tmp_path, "7.npy", size=size)
    folder, own = HeatmapFolder(tmp_path), record("d/7.jpg")
    if size in ((4, 6), (401, 600)):
        assert folder.read(own, (1000, 1500)).shape == size
        return
    with pytest.raises(ArtifactNetError, match=rf"7\.npy: .*{size[1]}x{size[0]}.*d/7\.jpg"):
        folder.read(own, (1000, 1500))


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 256))
def test_any_image_shrunk_to_a_side_keeps_its_aspect_ratio(height, width, side):
    scale = min(1.0, side / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    # a side below half a pixel cannot be kept in proportion by anybody
    assert same_aspect(size, (height, width)) or min(height, width) * scale < 0.5


def save_colour(path):
    Image.new("RGB", (6, 4)).save(path.with_suffix(".png"))


@pytest.mark.parametrize(
    ("name", "write", "why"),
    [
        ("7.png", save_colour, "mode RGB"),
        ("7.png", lambda p: p.write_bytes(b"no"), "not an image"),
        ("7.png", lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 9), "not an image"),
        ("7.npy", lambda p: p.write_bytes(b""), "cannot be read"),
        ("7.npy", lambda p: np.save(p, np.zeros((4, 6, 1))), r"shape \(4, 6, 1\)"),
        ("7.npy", lambda p: np.save(p, np.zeros((0, 6))), r"shape \(0, 6\)"),
        ("7.npy", lambda p: np.save(p, np.zeros((4, 6), np.int32)), "int32"),
        ("7.npy", lambda p: np.save(p, np.full((4, 6), 1.1)), "outside 0..1"),
        ("7.npy", lambda p: np.save(p, np.full((4, 6), np.nan)), "NaN"),
        ("7.npy", lambda p: np.save(p, np.array([[{}]]), allow_pickle=True), "cannot be read"),
    ],
)
def test_what_is_no_heatmap_is_refused(tmp_path, name, write, why):
    write(tmp_path / name)
    with pytest.raises(ArtifactNetError, match=why) as told:
        read_heatmap(tmp_path / name)
    assert name in str(told.value)
    assert "\n" not in str(told.value)


def test_no_folder_and_no_heatmap_are_told(tmp_path):
    with pytest.raises(ArtifactNetError, match="no such folder"):
        HeatmapFolder(tmp_path / "nowhere")
    with pytest.raises(ArtifactNetError, match="no heatmap in it"):
        HeatmapFolder(tmp_path)


def test_a_changed_heatmap_is_another_teacher(tmp_path):
    put(tmp_path, "a.npy"), put(tmp_path, "b.npy")
    before = HeatmapFolder(tmp_path).hash
    assert HeatmapFolder(tmp_path).hash == before
    put(tmp_path, "b.npy", size=(8, 12))
    assert HeatmapFolder(tmp_path).hash != before
