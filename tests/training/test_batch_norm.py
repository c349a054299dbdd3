"""Batches of one image, which batch norm may not be able to normalise."""

from pathlib import Path

import pytest
import torch
from tiny_models import tiny as tiny_model

from artifactnet.training.batch_norm import check_single_images
from artifactnet.training.trainer import train_detector
from artifactnet.types import ArtifactNetError

OPTIONS = (
    *("model.backbone=resnet10t", "model.backbone_kwargs={}", "loss.alignment.weight=0"),
    *("train.max_steps=2", "train.epochs=1"),
)


@pytest.mark.parametrize(
    "options",
    [
        ("data.batch_size=1",),
        ("data.batch_size=1", "train.accumulate=4", "model.backbone=mobilenetv3_small_050"),
        ("data.batch_size=1", "model.backbone=efficientnet_lite0"),
    ],
)
def test_a_batch_of_one_is_refused_before_a_folder_is_made(tiny, options) -> None:
    config = tiny(*OPTIONS, *options)
    with pytest.raises(ArtifactNetError, match=r"^data\.batch_size must be at least 2,") as caught:
        train_detector(config)
    text = str(caught.value)
    assert "\n" not in text
    assert config.model.backbone in text
    assert not (Path(config.out) / config.name).exists()


@pytest.mark.parametrize(
    "options",
    [
        ("model.image_size=[64, 64]",),  # 2 x 2 values per channel
        ("freeze=[backbone]",),
        ("model.backbone=test_convnext",),  # layer norm
    ],
)
def test_a_batch_of_one_trains_where_it_can(tiny, options) -> None:
    config = tiny(*OPTIONS, "data.batch_size=1", *options)
    assert train_detector(config).results["training"]["steps"] == 2


@pytest.mark.parametrize("backbone", ["resnet10t", "mobilenetv3_small_050", "test_resnet"])
def test_the_check_leaves_the_model_as_it_was(backbone: str) -> None:
    model = tiny_model(backbone, size=(96, 96), kwargs={})
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    check_single_images(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
