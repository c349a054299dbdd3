"""A finished run opened again with its data."""

import numpy as np
import pytest
from PIL import Image

from artifactnet.config import ConfigError
from artifactnet.evaluation.samples import open_samples
from artifactnet.training.trainer import train_detector
from artifactnet.types import ArtifactNetError, Sample


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_config):
    config = tiny_config(tmp_path_factory.mktemp("run"), "train.epochs=1", "data.demo_test=3")
    return train_detector(config).run_dir


def test_the_test_images_come_with_the_model_and_its_thresholds(run):
    data = open_samples(run, ["model.threshold=0.7", "data.demo_test=2"])
    assert data.split == "test"
    assert data.folder == run
    assert data.model.config.threshold == 0.7
    assert len(data.records) == 4  # two crops and their twins
    found = list(data.each())
    assert [name for name, _ in found] == [record.location for record in data.records]
    assert all(isinstance(sample, Sample) for _, sample in found)


def test_an_image_that_cannot_be_used_is_an_answer_too(run, tmp_path):
    for kind in ("real", "fake"):
        folder = tmp_path / "test" / kind
        folder.mkdir(parents=True)
        Image.fromarray(np.full((40, 40, 3), len(kind), np.uint8)).save(folder / "good.png")
    content = (tmp_path / "test" / "fake" / "good.png").read_bytes()
    (tmp_path / "test" / "fake" / "bad.png").write_bytes(content[:50])
    data = open_samples(
        run, ["data.name=folder", f"data.root={tmp_path}", "data.check=off", "data.on_error=skip"]
    )
    found = dict(data.each())
    assert [isinstance(sample, Sample) for sample in found.values()].count(True) == 2
    ((name, error),) = [(n, e) for n, e in found.items() if not isinstance(e, Sample)]
    assert isinstance(error, ArtifactNetError)
    assert "bad.png" in name
    assert "bad.png" in str(error)


def test_only_data_and_thresholds_can_be_changed(run):
    with pytest.raises(ConfigError, match=r"optim.lr cannot be changed"):
        open_samples(run, ["optim.lr=1"])
