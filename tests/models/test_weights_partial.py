"""Starting a backbone from the part that it shares with another."""

from __future__ import annotations

import pytest
import torch

from artifactnet.config import ModelConfig
from artifactnet.models import checkpoint
from artifactnet.models.create import create_model
from artifactnet.types import ArtifactNetError

DEPTHS = {"dims": [8, 16, 24, 32]}


def net(depths, weights=None, strict=True, seed=0):
    torch.manual_seed(seed)
    return create_model(
        ModelConfig(
            backbone="convnext_atto",
            backbone_kwargs={**DEPTHS, "depths": list(depths)},
            image_size=[64, 64],
            pretrained="auto" if weights else "false",
            weights=weights,
            weights_strict=strict,
        )
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("w") / "large.safetensors"
    large = net((1, 1, 3, 1), seed=5)
    checkpoint.save_checkpoint(large, path)
    return path, large


def test_a_saved_model_gives_its_backbone(saved):
    path, large = saved
    same = net((1, 1, 3, 1), weights=str(path))
    ours, theirs = same.backbone.state_dict(), large.backbone.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert not torch.equal(same.head.weight, large.head.weight)
    assert same.notices == ()


def test_a_shallower_net_takes_what_fits(saved):
    path, large = saved
    small = net((1, 1, 2, 1), weights=str(path), strict=False)
    theirs = large.backbone.state_dict()
    assert all(
        torch.equal(value, theirs[key]) for key, value in small.backbone.state_dict().items()
    )
    assert small.notices == ()


def test_a_deeper_net_says_how_much_is_random(saved, caplog):
    path, _ = saved
    deep = net((2, 2, 6, 2), weights=str(path), strict=False)
    (notice,) = deep.notices
    assert "large.safetensors" in notice
    assert "started from RANDOM weights, e.g. stages." in notice
    assert notice in caplog.text


def test_strict_is_the_default_and_refuses(saved):
    with pytest.raises(ArtifactNetError, match="other architecture"):
        net((1, 1, 2, 1), weights=str(saved[0]))


def test_nothing_that_fits_is_an_error(tmp_path):
    from safetensors.torch import save_file

    save_file({"elsewhere": torch.zeros(2)}, tmp_path / "x.safetensors")
    with pytest.raises(ArtifactNetError, match="other architecture"):
        net((1, 1, 2, 1), weights=str(tmp_path / "x.safetensors"), strict=False)


def test_a_saved_convolutional_stem_comes_along(tmp_path):
    def vit(weights=None, seed=0):
        torch.manual_seed(seed)
        return create_model(
            ModelConfig(
                backbone="vit_tiny_patch16_224",
                backbone_kwargs={"embed_dim": 24, "depth": 2, "num_heads": 2},
                stem="conv",
                stem_width=8,
                image_size=[32, 32],
                pretrained="auto" if weights else "false",
                weights=weights,
            )
        )

    large = vit(seed=3)
    checkpoint.save_checkpoint(large, tmp_path / "vit.safetensors")
    ours = vit(str(tmp_path / "vit.safetensors")).backbone.state_dict()
    assert all(torch.equal(ours[k], v) for k, v in large.backbone.state_dict().items())
