"""Pixel counts against loops, the weights' rule, and a cache that can be trusted."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifactnet.training.class_weights import CLASSES, ClassFrequencies, class_frequencies
from artifactnet.types import Annotation, ArtifactNetError, Record, Sample


class Masks:
    """A source of given masks: None is a photograph, a string an image that cannot be read."""

    def __init__(self, masks, annotation=Annotation.MASK):
        self.masks = masks
        self.loaded = []
        self.records = [
            Record(f"u{i}", 0, "real", Annotation.CLEAN, f"set/{i}.jpg")
            if mask is None
            else Record(f"u{i}", 1, "gan", annotation, f"set/{i}.png")
            for i, mask in enumerate(masks)
        ]

    def load(self, index):
        self.loaded.append(index)
        mask = self.masks[index]
        if isinstance(mask, str):
            raise ArtifactNetError(f"set/{index}.png: {mask}")
        return Sample(self.records[index], np.zeros((*mask.shape, 3), np.uint8), mask)


def masks_of(*values):
    return [None if v is None else np.array(v, np.uint8) for v in values]


def counts_by_loops(masks):
    counts = [0] * 9
    for mask in masks:
        for value in () if mask is None else mask.ravel().tolist():
            named = [c for c in range(1, 8) if value >> c & 1]
            for c in named or ([8] if value else [0]):
                counts[c] += 1
    return counts


@given(
    sizes=st.lists(st.tuples(st.integers(1, 7), st.integers(1, 7)), min_size=1, max_size=4),
    seed=st.integers(0, 10**6),
)
def test_counts_equal_loops(tmp_path_factory, sizes, seed):
    rng = np.random.default_rng(seed)
    masks = [rng.choice([0, 0, 0, 1, 2, 3, 6, 129, 255], size).astype(np.uint8) for size in sizes]
    found = class_frequencies(Masks([*masks, None]), tmp_path_factory.mktemp("cache"))
    assert found.pixels == counts_by_loops(masks)
    assert found.images == len(masks)
    assert set(found.categories) == {c for c in range(1, 8) if found.pixels[c]}


@given(
    st.lists(st.integers(0, 10**9), min_size=9, max_size=9).filter(any),
    st.sampled_from([0.0, 0.5, 1.0]),
)
def test_weights_are_inverse_to_a_power_of_the_frequency(pixels, power):
    weights = ClassFrequencies(pixels, 1).weights(power)
    shares = [count / sum(pixels) for count in pixels]
    assert sum(f * w for f, w in zip(shares, weights, strict=True)) == pytest.approx(1)
    scaled = [w * f**power for f, w in zip(shares, weights, strict=True) if f]
    assert scaled == pytest.approx([scaled[0]] * len(scaled))
    whole = ClassFrequencies(pixels, 1).weights()
    assert whole == ClassFrequencies(pixels, 1).weights(1.0)
    assert all(w == 1 for f, w in zip(shares, whole, strict=True) if not f)


def test_weights_by_hand(tmp_path):
    """6 background, 1 texture, 1 texture and symbol, 1 bare, of 9 memberships and 4 classes."""
    masks = masks_of([[0, 0, 0], [0, 0, 0]], [[2, 2 | 8, 1]])
    weights = class_frequencies(Masks(masks), tmp_path).weights()
    expected = [10 / (4 * 6), 10 / (4 * 2), 1, 10 / 4, 1, 1, 1, 1, 10 / 4]
    assert weights == pytest.approx(expected)
    assert class_frequencies(Masks(masks), tmp_path).categories == (1, 3)
    assert len(weights) == len(CLASSES)


def test_only_annotated_fakes_are_loaded(tmp_path):
    source = Masks(masks_of(None, [[2]], None, [[0]]))
    assert class_frequencies(source, tmp_path).images == 2
    assert source.loaded == [1, 3]
    unknown = Masks(masks_of(None, [[2]]), Annotation.NONE)
    nothing = class_frequencies(unknown, tmp_path)
    assert unknown.loaded == []
    assert (nothing.pixels, nothing.categories) == ([0] * 9, ())
    assert nothing.weights() == [1.0] * 9


def test_the_second_call_reads_the_cache(tmp_path):
    first, second = (Masks(masks_of([[2, 0]], None, [[0, 0]])) for _ in range(2))
    found = class_frequencies(first, tmp_path / "new" / "folder")
    assert class_frequencies(second, tmp_path / "new" / "folder") == found
    assert second.loaded == []
    assert len(list((tmp_path / "new" / "folder").iterdir())) == 1  # no temporary file is left


@pytest.mark.parametrize(
    "change",
    [
        {"uid": "other"},
        {"location": "elsewhere/0.png"},
        {"categories": 2},
        {"annotation": Annotation.NONE},
    ],
)
def test_other_records_are_counted_anew(tmp_path, change):
    class_frequencies(Masks(masks_of([[2]], [[4]])), tmp_path)
    other = Masks(masks_of([[16]], [[4]]))
    other.records[0] = replace(other.records[0], **change)
    found = class_frequencies(other, tmp_path)
    assert 1 in other.loaded
    assert found.pixels[1] == 0


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\xff\xfe\x00", b"[]", b"null"),
        b'{"pixels": [1, 2], "images": 1}',
        *(
            b'{"pixels": [%s1, %s], "images": 1}' % (b"1, " * 7, n)
            for n in (b"-1", b"1.5", b"true")
        ),
        b'{"pixels": 7, "images": 1}',
        b'{"pixels": [%s1], "images": 2}' % (b"1, " * 8),
        b'{"images": 1}',
    ],
)
def test_a_damaged_cache_is_told_and_counted_again(tmp_path, caplog, content):
    expected = class_frequencies(Masks(masks_of([[2, 0]])), tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(content)
    source = Masks(masks_of([[2, 0]]))
    with caplog.at_level(logging.WARNING):
        assert class_frequencies(source, tmp_path) == expected
    assert source.loaded == [0]
    (record,) = caplog.records
    assert str(path) in record.getMessage()
    assert "counting again" in record.getMessage()
    assert json.loads(path.read_text())["pixels"] == expected.pixels


def test_a_bad_image_is_raised_or_skipped_as_asked(tmp_path, caplog):
    masks = [*masks_of([[2, 0]]), "cannot be decoded", *masks_of([[4, 4]])]
    with pytest.raises(ArtifactNetError, match=r"^set/1\.png: cannot be decoded"):
        class_frequencies(Masks(masks), tmp_path)
    with caplog.at_level(logging.WARNING):
        found = class_frequencies(Masks(masks), tmp_path, "skip")
    assert (found.images, found.pixels[1], found.pixels[2]) == (2, 1, 2)
    assert "skipped set/1.png" in caplog.text
    # An incomplete count is no cache: with the image mended, or errors raised, all is counted.
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ArtifactNetError, match="cannot be decoded"):
        class_frequencies(Masks(masks), tmp_path)


def test_what_cannot_be_counted_is_named(tmp_path):
    with pytest.raises(ArtifactNetError, match=r"not one of 2 artifact masks.*set/0\.png"):
        class_frequencies(Masks(["broken", "broken"]), tmp_path, "skip")
    with pytest.raises(ValueError, match="'raise' or 'skip'"):
        class_frequencies(Masks([]), tmp_path, "ignore")
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ArtifactNetError, match="file.*cannot be written"):
        class_frequencies(Masks(masks_of([[2]])), tmp_path / "file")
    source = Masks(masks_of([[2]]))
    source.load = lambda index: Sample(source.records[index], np.zeros((1, 1, 3), np.uint8))
    with pytest.raises(ArtifactNetError, match=r"^set/0\.png: .* no mask"):
        class_frequencies(source, tmp_path)
