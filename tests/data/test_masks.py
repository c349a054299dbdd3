"""Polygons to bit fields by the benchmark's rule, and back without loss."""

import io

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from artifactnet.data import notices
from artifactnet.data.mask_levels import parse_mapping
from artifactnet.data.masks import encode_polygons, rasterize, read_mask
from artifactnet.taxonomy import CATEGORIES
from artifactnet.types import ArtifactNetError

LABELS = [item.label for item in CATEGORIES]
coordinate = st.floats(-50, 80, allow_nan=False)
polygon = st.fixed_dictionaries(
    {
        "label": st.sampled_from(LABELS),
        "points": st.lists(st.tuples(coordinate, coordinate).map(list), min_size=3, max_size=8),
    }
)
bit_fields = hnp.arrays(
    np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=16), elements=st.integers(0, 255)
).map(lambda mask: mask & np.uint8(0xFE))


def canonical(mask):
    """The mask as it reads back from its own polygons."""
    return rasterize(encode_polygons(mask), *mask.shape, "canonical mask")


def benchmark_mask(labels, height, width, label):
    """The benchmark's rule for one category, taken from its description."""
    mask = np.zeros((height, width), dtype=np.uint8)
    for item in labels:
        if item["label"] != label:
            continue
        points = np.array(item["points"], dtype=np.int32)
        points[:, 0] = np.clip(points[:, 0], 0, width - 1)
        points[:, 1] = np.clip(points[:, 1], 0, height - 1)
        cv2.fillPoly(mask, [points], 255)
    return mask


@given(st.lists(polygon, max_size=6), st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=150, deadline=None)
def test_every_bit_equals_the_benchmark(labels, height, width):
    mask = rasterize(labels, height, width, "here")
    assert mask.dtype == np.uint8
    assert mask.shape == (height, width)
    assert not (mask & 1).any()
    for item in CATEGORIES:
        expected = benchmark_mask(labels, height, width, item.label) > 0
        np.testing.assert_array_equal(mask & item.bit > 0, expected)


def test_outline_is_inside_and_coordinates_are_truncated_and_clipped():
    points = [[1.9, 1.9], [3.99, 1.0], [3.0, 3.9], [1.0, 3.0]]
    mask = rasterize([{"label": LABELS[0], "points": points}], 6, 6, "here")
    expected = np.zeros((6, 6), dtype=bool)
    expected[1:4, 1:4] = True
    np.testing.assert_array_equal(mask > 0, expected)
    points = [[-1e30, -1e30], [1e30, -1e30], [1e30, 1e30], [-1e30, 1e30]]
    assert (rasterize([{"label": LABELS[0], "points": points}], 4, 5, "x") == 2).all()


def test_overlapping_polygons_of_one_category_do_not_cancel():
    square = [[0, 0], [4, 0], [4, 4], [0, 4]]
    mask = rasterize([{"label": LABELS[2], "points": square}] * 2, 5, 5, "here")
    assert (mask == CATEGORIES[2].bit).all()


@pytest.mark.parametrize(
    ("points", "message"),
    [
        *[(points, "at least 3") for points in ([], None, [[0, 0]], [[0, 0], [3, 3]])],
        ([[0, 0], [1, np.nan], [2, 2]], "pairs"),
        ([[0, 0], [np.inf, 1], [2, 2]], "pairs"),
        ([[0, 0], [1], [2, 2]], "pairs"),
        ([[0, 0, 0], [1, 1, 1], [2, 2, 2]], "pairs"),
        ([0, 1, 2], "pairs"),
        ([["a", "b"], [1, 1], [2, 2]], "pairs"),
    ],
)
def test_malformed_labels(points, message):
    with pytest.raises(ArtifactNetError, match=rf"SDXL/17.*low-level-color.*{message}"):
        rasterize([{"label": "low-level-color", "points": points}], 8, 8, "SDXL/17")
    label = {"label": "low-level-smell", "points": [[0, 0], [1, 1], [2, 0]]}
    with pytest.raises(ArtifactNetError, match=r"SDXL/17.*low-level-smell.*low-level-texture"):
        rasterize([label], 8, 8, "SDXL/17")


@given(bit_fields)
@settings(max_examples=200, deadline=None)
def test_encoding_is_lossless(mask):
    labels = encode_polygons(mask)
    assert all(len(item["points"]) >= 3 for item in labels)
    np.testing.assert_array_equal(rasterize(labels, *mask.shape, where="x"), mask)
    np.testing.assert_array_equal(canonical(canonical(mask)), canonical(mask))


def test_nested_rings_keep_their_holes():
    y, x = np.mgrid[:61, :61]
    distance = np.hypot(y - 30, x - 30)
    rings = ((distance.astype(int) // 6) % 2 == 0) & (distance < 29)
    mask = rings.astype(np.uint8) * np.uint8(CATEGORIES[4].bit)
    np.testing.assert_array_equal(canonical(mask), mask)


def test_empty_masks_and_uncategorised_pixels():
    assert encode_polygons(np.zeros((4, 4), dtype=np.uint8)) == []
    with pytest.raises(ValueError, match="uncategorised"):
        encode_polygons(np.ones((2, 2), dtype=np.uint8))


def save(path, array, mode=None):
    Image.fromarray(np.asarray(array, dtype=np.uint8), mode).save(path)
    return path


def bands(*levels, background=0, height=8, width=40):
    """Levels as rows of areas, and as many rows of background below."""
    rows = [*levels, *[background] * len(levels)]
    return np.repeat(np.array(rows)[:, None], height, axis=0).repeat(width, axis=1)


def blobs(seed=0, size=(160, 200), value=255):
    rng, mask = np.random.default_rng(seed), np.zeros(size, np.uint8)
    for _ in range(3):
        y, x = rng.integers(30, 130, 2).tolist()
        cv2.ellipse(mask, (x, y), tuple(rng.integers(8, 40, 2).tolist()), 30, 0, 360, value, -1)
    return mask


def test_read_mask(tmp_path):
    path = save(tmp_path / "m.png", [[0, 255, 127], [128, 0, 254]])
    mask = read_mask(path, (2, 3), "photo.jpg")
    np.testing.assert_array_equal(mask, [[0, 1, 0], [1, 0, 1]])
    assert mask.dtype == np.uint8
    bits = np.array([[True, False]])
    Image.fromarray(bits).save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "b.png", (1, 2), "x"), bits)
    path = save(tmp_path / "rgb.png", np.repeat(bits[..., None] * 255, 3, axis=2))
    np.testing.assert_array_equal(read_mask(path, (1, 2), "x"), bits)


@pytest.mark.parametrize("low", [0, 1, 7, 200])
@pytest.mark.parametrize("high", [1, 2, 60, 127, 128, 254, 255, 1000, 65535, 70000])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32])
def test_of_two_levels_the_higher_is_artifact(tmp_path, low, high, dtype):
    if high <= low or high > (np.iinfo(dtype).max if np.dtype(dtype).kind in "iu" else 1e9):
        return
    values = bands(high, background=low).astype(dtype)
    path = tmp_path / "m.tif"
    Image.fromarray(values).save(path)
    np.testing.assert_array_equal(read_mask(path, values.shape, "x"), bands(1))


@pytest.mark.parametrize("level", [0, 1, 60, 255])
def test_a_single_level_is_all_artifact_or_none(tmp_path, level):
    path = save(tmp_path / "m.png", np.full((4, 5), level))
    assert (read_mask(path, (4, 5), "x") == (level > 0)).all()


KINDS = {
    "far apart": bands(60, 100, 255),
    "close together and far": bands(1, 2, 3, 200),
    "classes": bands(1, 2, 3, 4, 5, 6, 7),
    "two classes and pixels to ignore": bands(1, 255),
    "numbers of instances": np.kron(np.arange(1, 41).reshape(5, 8), np.pad(np.ones((9, 9)), 3)),
    "lines": np.pad(np.kron(np.array([[60], [0], [100], [0], [255]]), np.ones((1, 30))), 3),
    "with soft edges": cv2.GaussianBlur(
        np.kron(bands(60, 120, 255), np.ones((4, 4))).astype(np.uint8), (0, 0), 1
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_levels_that_mean_something_are_an_error_that_lists_them(tmp_path, name):
    values = KINDS[name].astype(np.uint8)
    path = save(tmp_path / "m.png", values)
    with pytest.raises(ArtifactNetError, match=r"m\.png: \d+ levels \(.*data\.mask_levels") as info:
        read_mask(path, values.shape, "x")
    listed = str(info.value).partition("(")[2].partition(")")[0].split(", ")
    assert {int(level) for level in listed if level != "..."} <= set(np.unique(values).tolist())
    assert len(listed) == min(len(np.unique(values)), 12) + ("..." in listed)


def encoded(values, kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, kind, **options)
    return buffer.getvalue()


def resaved(values, quality):
    return np.asarray(Image.open(io.BytesIO(encoded(values, "JPEG", quality=quality))))


SOFT = {
    **{f"JPEG {q}": lambda m, q=q: encoded(m, "JPEG", quality=q) for q in (20, 60, 90, 100)},
    **{f"WebP {q}": lambda m, q=q: encoded(m, "WEBP", quality=q) for q in (20, 90)},
    **{f"once JPEG {q}": lambda m, q=q: encoded(resaved(m, q), "PNG") for q in (50, 95, 100)},
    **{
        f"blurred by {s}": lambda m, s=s: encoded(cv2.GaussianBlur(m, (0, 0), s), "PNG")
        for s in (0.7, 2, 6)
    },
    **{
        f"resized by {f}": lambda m, f=f: encoded(
            cv2.resize(cv2.resize(m, None, fx=f, fy=f), m.shape[::-1]), "PNG"
        )
        for f in (0.5, 0.77, 2)
    },
}


@pytest.mark.parametrize("form", SOFT)
@pytest.mark.parametrize(("seed", "value"), [(0, 255), (1, 255), (2, 120)])
def test_soft_masks_count_from_half_of_their_maximum(tmp_path, form, seed, value):
    mask = blobs(seed, value=value)
    path = tmp_path / "m"
    path.write_bytes(SOFT[form](mask))
    read = read_mask(path, mask.shape, "x")
    assert set(np.unique(read)) == {0, 1}
    assert (read != (mask > 0)).mean() < 0.03  # edges move by a pixel


def test_a_scale_of_grays_is_soft_and_half_is_said(tmp_path, caplog):
    notices._counts.clear()
    scale = np.tile(np.arange(256), (30, 1))
    for name in "abcde":
        read = read_mask(save(tmp_path / f"{name}.png", scale), scale.shape, "x")
        np.testing.assert_array_equal(read, scale >= 127.5)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 3
    assert "a.png" in told[0]
    assert "127.5" in told[0]


def test_a_mapping_gives_levels_their_meaning(tmp_path):
    values = bands(60, 100, 255)
    path = save(tmp_path / "m.png", values)
    mapping = parse_mapping({"60": "artifact", "100": CATEGORIES[3].label, "255": "none"})
    read = read_mask(path, values.shape, "x", mapping)
    np.testing.assert_array_equal(read, bands(1, CATEGORIES[3].bit, 0))
    assert parse_mapping({}) is None
    with pytest.raises(ArtifactNetError, match=r"m\.png: its levels 100, 255 are not in data"):
        read_mask(path, values.shape, "x", {60: 1})
    for bad, message in (({"60": "artefact"}, "'artefact'"), ({"-1": "artifact"}, "-1")):
        with pytest.raises(ValueError, match=message):
            parse_mapping(bad)


PALETTES = {
    "grays": ([0, 0, 0, 90, 90, 90], 1),
    "bright background": ([255, 255, 255, 0, 0, 0], 0),
    "colours of classes": ([0, 0, 0, 128, 0, 0], 1),
}


@pytest.mark.parametrize("name", PALETTES)
def test_palettes_stand_for_grays_or_for_classes(tmp_path, name):
    palette, artifact = PALETTES[name]
    image = Image.fromarray(bands(1).astype(np.uint8))
    image.putpalette(palette)
    image.save(tmp_path / "m.png")
    read = read_mask(tmp_path / "m.png", (16, 40), "x")
    np.testing.assert_array_equal(read, bands(1) == artifact)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "PA"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_opaque_alpha_is_ignored_and_other_alpha_refused(tmp_path, mode, kind):
    if (kind != "PNG" and mode in ("P", "PA")) or (kind, mode) == ("WEBP", "LA"):
        return
    gray = Image.fromarray(bands(255).astype(np.uint8))
    options = {"lossless": True} if kind == "WEBP" else {}
    if mode == "P":
        options["transparency"] = bytes([255] * 256)
    path = tmp_path / "m"
    gray.convert("LA" if mode == "PA" else mode).save(path, kind, **options)
    np.testing.assert_array_equal(read_mask(path, (16, 40), "x"), bands(1))
    clear = gray.convert("RGBA")
    clear.putpixel((0, 0), (255, 255, 255, 254))
    clear.save(path, kind, **({"lossless": True} if kind == "WEBP" else {}))
    with pytest.raises(ArtifactNetError, match=r"m: .*transparen"):
        read_mask(path, (16, 40), "x")


def test_opaque_alpha_of_16_bits(tmp_path):
    values = np.dstack([bands(1)] * 3 + [np.full((16, 40), 65535)]).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "m.png"), values)  # gray 0 and 1 of 65535, alpha full
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", (16, 40), "x"), bands(1))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((4, 6)), r"photo\.jpg.*m\.png is 6x4, the image 2x1"),
        ([[[255, 0, 0], [0, 0, 0]]], r"m\.png.*gray"),
        ([[[255, 255, 255, 0]] * 2], r"m\.png.*transparen"),
        (None, r"m\.png: no such file"),
    ],
)
def test_unusable_masks(tmp_path, values, message):
    if values is not None:
        save(tmp_path / "m.png", values)
    with pytest.raises(ArtifactNetError, match=message):
        read_mask(tmp_path / "m.png", (1, 2), "photo.jpg")
