from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from artifactnet.config import Config, ModelConfig
from artifactnet.data.datamodule import build_splits
from artifactnet.inference.preprocessing import preprocess_of
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.training.callbacks import choose, write_picture
from artifactnet.training.trainer import train_detector
from artifactnet.types import Annotation, Record


@given(
    kinds=st.lists(st.tuples(st.integers(0, 1), st.sampled_from(list(Annotation))), max_size=12),
    count=st.integers(1, 8),
)
def test_choice(kinds: list[tuple[int, Annotation]], count: int) -> None:
    records = [Record("u", label, "g", annotation, "x") for label, annotation in kinds]
    chosen = choose(records, count)
    labels = [records[index].label for index in chosen]
    assert len(set(chosen)) == len(chosen) <= count
    assert labels == sorted(labels, reverse=True)  # fakes first
    annotated = [i for i, r in enumerate(records) if r.label and r.annotation == Annotation.MASK]
    if annotated:
        assert {index for index in chosen if records[index].label} <= set(annotated)
    reals = sum(1 - r.label for r in records)
    if count >= 3 and reals:
        assert 0 in labels
    assert not records or chosen


def test_picture(tmp_path: Path, tiny: Callable[..., Config]) -> None:
    config: ModelConfig = tiny().model
    model = ArtifactNet(config).train()
    source = build_splits(tiny().data, 0)["val"]
    preprocess = preprocess_of(model)
    examples = [preprocess.sample(source.load(index)) for index in choose(source.records, 3)]
    write_picture(model, examples, tmp_path / "grid.png")
    assert model.training
    picture = np.asarray(Image.open(tmp_path / "grid.png"))
    side = 160
    assert picture.shape[1] == 4 * (side + 4) + 4
    assert picture.shape[0] > 3 * side
    first = picture[4 : 4 + side, 4 : 4 + side]
    pixels = examples[0].image.permute(1, 2, 0).numpy() * model.std + np.array(model.mean)
    expected = np.rint(pixels.clip(0, 1) * 255).astype(np.uint8)
    assert (first[::5, ::5] == expected).all()  # the image itself, enlarged five times
    assert (picture[4 : 4 + side, 8 + side : 8 + 2 * side] != first).any()  # outlines on it


def test_pictures_and_lines_come_when_due(
    tiny: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("train.epochs=5", "train.picture_every=2", "train.pictures=1", "train.eval_every=2")
    folder = train_detector(tiny(*options)).run_dir
    names = sorted(path.name for path in (folder / "pictures").iterdir())
    assert names == ["epoch_002.png", "epoch_004.png", "epoch_005.png"]
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    assert [line.split()[1] for line in lines] == ["1/5", "2/5", "3/5", "4/5", "5/5"]
    assert all("train loss" in line and "alignment" in line for line in lines)
    assert ["val loss" in line for line in lines] == [False, True, False, True, False]
    short = train_detector(tiny("name=short", "train.max_steps=1", "train.picture_every=5"))
    assert [p.name for p in (short.run_dir / "pictures").iterdir()] == ["epoch_001.png"]
