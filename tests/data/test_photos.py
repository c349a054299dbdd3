from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest

from artifactnet.data.sources import demo
from artifactnet.types import ArtifactNetError


def test_every_photograph_is_there_and_decodes():
    for photo in demo.PHOTOS:
        image = demo.read_photo(photo)
        assert image.dtype == np.uint8
        assert image.ndim == 3
        assert image.shape[2] == 3
        assert min(image.shape[:2]) >= 180, photo
        assert image.std() > 10, photo


def test_a_scene_is_in_one_split_only():
    splits = defaultdict(set)
    for photo in demo.PHOTOS:
        splits[photo.scene].add(photo.split)
    assert all(len(where) == 1 for where in splits.values()), splits
    motorcycles = [photo for photo in demo.PHOTOS if photo.scene == "motorcycle"]
    assert len(motorcycles) == 2


def test_no_file_is_listed_twice():
    files = [(photo.package, photo.file) for photo in demo.PHOTOS]
    assert len(files) == len(set(files))


@pytest.mark.parametrize(
    ("split", "least", "most"), [("train", 11, 14), ("val", 3, 3), ("test", 3, 5)]
)
def test_split_sizes(split, least, most):
    assert least <= len(demo.photos_of_split(split)) <= most


def test_test_photographs_are_coloured():
    for photo in demo.photos_of_split("test"):
        channels = demo.read_photo(photo).astype(int)
        assert np.abs(channels[..., 0] - channels[..., 2]).mean() > 5, photo


def test_gray_photographs_have_equal_channels():
    brick = next(photo for photo in demo.PHOTOS if photo.scene == "brick")
    image = demo.read_photo(brick)
    assert (image[..., 0] == image[..., 1]).all()
    assert (image[..., 0] == image[..., 2]).all()


def test_cached_pixels_cannot_be_written():
    image = demo.read_photo(demo.PHOTOS[0])
    with pytest.raises(ValueError, match="read-only"):
        image[0, 0] = 0
    assert demo.read_photo(demo.PHOTOS[0]) is image


def test_missing_package_names_the_pip_line(monkeypatch):
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    with pytest.raises(ArtifactNetError, match="pip install scikit-learn"):
        demo.locate_photo(next(p for p in demo.PHOTOS if p.package == "sklearn"))


def test_missing_file_names_the_package():
    gone = replace(demo.PHOTOS[0], file="data/no_such_photograph.png")
    with pytest.raises(ArtifactNetError, match=r"no_such_photograph\.png.*scikit-image"):
        demo.locate_photo(gone)


def test_the_packages_are_not_imported():
    code = (
        "import sys; from artifactnet.data.sources import demo; "
        "[demo.read_photo(p) for p in demo.PHOTOS]; "
        "print([m for m in ('skimage', 'sklearn', 'matplotlib', 'pooch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
