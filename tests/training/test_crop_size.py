"""Training crops of another size than the model was built for."""

from pathlib import Path

import pytest

from artifactnet.training.trainer import train_detector
from artifactnet.types import ArtifactNetError

OPTIONS = (
    *("data.augment.crop=true", "loss.alignment.weight=0", "train.max_steps=2", "train.epochs=1"),
    "model.backbone_kwargs={}",
)
LEVIT = ("model.backbone=levit_128s", "model.image_size=[96, 96]")
SMALL_VIT = 'model.backbone_kwargs={"depth": 1, "embed_dim": 24, "num_heads": 2}'


@pytest.mark.parametrize(
    ("options", "crop"),
    [
        (LEVIT, "64x64"),
        (("model.backbone=convit_tiny", "model.image_size=[64, 64]"), "96x64"),
        (("model.backbone=vit_tiny_patch16_224", SMALL_VIT), "40x40"),
        (("model.backbone=mvitv2_tiny", "model.image_size=[64, 64]"), "288x288"),
        (("model.backbone=test_maxvit", "model.image_size=[96, 96]"), "100x96"),
    ],
)
def test_a_crop_that_the_model_does_not_take_is_refused_before_a_folder_is_made(
    tiny, options, crop
) -> None:
    size = f"[{crop.replace('x', ', ')}]"
    config = tiny(*OPTIONS, *options, f"data.augment.crop_size={size}")
    with pytest.raises(ArtifactNetError, match=r"^data\.augment\.crop_size ") as caught:
        train_detector(config)
    text = str(caught.value)
    assert "\n" not in text
    assert crop in text
    assert config.model.backbone in text
    assert "model.image_size" in text
    assert not (Path(config.out) / config.name).exists()


@pytest.mark.parametrize(
    "options",
    [
        ("model.backbone=resnet10t", "data.augment.crop_size=[72, 56]"),
        (
            *("model.backbone=vit_tiny_patch16_224", SMALL_VIT, "loss.alignment.weight=0.1"),
            "data.augment.crop_size=[64, 48]",
        ),
        (*LEVIT, "data.augment.crop_size=[96, 96]"),  # its own size
    ],
)
def test_other_crops_train(tiny, options) -> None:
    config = tiny(*OPTIONS, *options)
    assert train_detector(config).results["training"]["steps"] == 2
