"""The loader benchmark times what training gets, and compares equal images."""

import json

import numpy as np
import pytest
from perf import loader as module
from perf.loader import LOOP, benchmark_loader

from artifactnet.types import ArtifactNetError


def test_report(tiny):
    config = tiny("data.workers=3", "data.augment.vflip=0.5")
    report = benchmark_loader(config, workers=[0, 1], repeats=2)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    setting = report["setting"]
    assert setting["data"] == "demo"
    assert setting["image_size"] == [32, 32]
    assert setting["batch_size"] == 4
    assert setting["images"] == 16  # eight fakes, and as many photographs
    assert list(report["forms"]) == [LOOP, "0 workers", "1 worker"]
    assert report["forms"][LOOP]["times_faster"] == {"median": 1, "min": 1, "max": 1}
    for found in report["forms"].values():
        seconds, speed = found["seconds"], found["images_per_second"]
        assert 0 < seconds["min"] <= seconds["median"] <= seconds["max"]
        assert speed["max"] == pytest.approx(16 / seconds["min"])
    assert config.data.workers == 3  # the caller's config is left alone


def test_images_are_those_of_training(tiny):
    data = module._data(tiny("data.demo_photos=classic"))
    (marks,) = module._epoch(data.train_loader())
    expected = [image for batch in data.train_loader() for image in batch.image]
    assert np.array_equal(marks, module._marks(expected))
    assert len(set(marks.tolist())) == len(marks)
    assert np.array_equal(module._loop(data)[0], marks)


def test_other_images_are_not_compared(tiny, monkeypatch):
    monkeypatch.setattr(module, "_epoch", lambda loader: [np.zeros(16)])
    with pytest.raises(ArtifactNetError, match="'0 workers' and 'plain loop' do not give the same"):
        benchmark_loader(tiny(), [0], repeats=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": [0, -1]}, "workers must be 0 or more"),
        ({"workers": []}, "workers must be 0 or more"),
        ({"repeats": 0}, "repeats must be at least 1"),
    ],
)
def test_nonsense_is_refused(tiny, options, message):
    with pytest.raises(ArtifactNetError, match=message):
        benchmark_loader(tiny(), **options)
