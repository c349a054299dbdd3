"""A tiny base model on disk and a HEIE built on it, made once."""

import copy

import pytest
import torch

from artifactnet.config import Config, HeatmapConfig, MllmConfig

tiny_mllm = pytest.importorskip("tiny_mllm")
pytest.importorskip("transformers", reason="needs the extra mllm")
pytest.importorskip("peft", reason="needs the extra mllm")


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory):
    """Folder of a random InternVL whose tiles are 56 pixels."""
    return tiny_mllm.save_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def tiny_config(tiny_base):
    """A configuration of a HEIE on it; copy it before you change it."""
    config = Config(
        mllm=MllmConfig(
            base=str(tiny_base), lora_rank=4, lora_dropout=0.0, gradient_checkpointing=False
        )
    )
    config.model.image_size = [56, 56]
    config.model.heatmap = HeatmapConfig(head="mapper", width=16, heads=2, tile=56, max_tiles=6)
    return config


@pytest.fixture(scope="session")
def built_heie(tiny_config):
    """A HEIE with adapters, not to be changed."""
    from artifactnet.vlm.heie.model import build_heie

    torch.manual_seed(0)
    return build_heie(copy.deepcopy(tiny_config)).eval()


@pytest.fixture
def heie(built_heie):
    """A HEIE with adapters that a test may change."""
    return copy.deepcopy(built_heie)
