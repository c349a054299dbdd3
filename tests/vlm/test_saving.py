"""A trained HEIE on disk."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import tiny_mllm
import torch
from safetensors.torch import load_file, save_file

from artifactnet.types import ArtifactNetError
from artifactnet.vlm.heie import saving
from artifactnet.vlm.heie.model import build_heie
from artifactnet.vlm.text.template import TEMPLATE

IMAGE = np.random.default_rng(2).integers(0, 256, (112, 56, 3), dtype=np.uint8)


def perturbed(model):
    """The model with every trainable weight changed."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return model


def answer(model):
    with torch.no_grad():
        output = model(model.processing.encode([IMAGE], [TEMPLATE]))
    return output.heatmaps[0].heatmap, output.heatmaps[0].score, output.text_loss


@pytest.mark.parametrize(
    ("rank", "tune"), [(4, "all"), (0, "all"), (4, "language_projector"), (0, "projector")]
)
def test_loaded_model_gives_the_same_output(tiny_config, tmp_path, rank, tune):
    config = copy.deepcopy(tiny_config)
    config.mllm.lora_rank, config.mllm.tune = rank, tune
    torch.manual_seed(3)
    model = perturbed(build_heie(config)).eval()
    saving.save_heie(model, tmp_path / "a", {"epoch": 2})
    torch.manual_seed(4)
    again = saving.load_heie(tmp_path / "a")
    assert not again.training
    for before, after in zip(answer(model), answer(again), strict=True):
        assert torch.equal(before, after)
    assert saving.read_facts(tmp_path / "a")["extra"] == {"epoch": 2}
    assert saving.is_heie(tmp_path / "a")
    assert not saving.is_heie(tmp_path)
    saving.save_heie(again, tmp_path / "a", {})  # over itself
    assert torch.equal(answer(saving.load_heie(tmp_path / "a"))[0], answer(model)[0])
    assert [p.name for p in (tmp_path / "a").iterdir() if p.name.startswith(".")] == []


def test_file_holds_trained_weights_and_not_the_base(built_heie, tmp_path):
    saving.save_heie(built_heie, tmp_path, {})
    state = load_file(tmp_path / saving.WEIGHTS)
    assert {name.split(".")[0] for name in state} == {"head", "adapter"}
    rows = [v for k, v in state.items() if "trainable_tokens" in k or "token_adapter" in k]
    assert rows
    assert all(row.shape[0] == 2 for row in rows)  # [MAP] and [SCORE], not the vocabulary
    base = sum(p.numel() for p in built_heie.causal.parameters())
    assert sum(v.numel() for k, v in state.items() if k.startswith("adapter.")) < base / 2


def test_the_config_is_loaded_as_it_was_also_without_keys_that_came_later(built_heie, tmp_path):
    saving.save_heie(built_heie, tmp_path, {})
    assert saving.load_heie(tmp_path).mllm == built_heie.mllm
    facts = json.loads((tmp_path / saving.FACTS).read_text())
    del facts["mllm"]["grpo"]
    (tmp_path / saving.FACTS).write_text(json.dumps(facts))
    assert saving.load_heie(tmp_path).mllm == built_heie.mllm


def test_weights_of_another_base_are_refused(built_heie, tmp_path):
    saving.save_heie(built_heie, tmp_path, {})
    state = load_file(tmp_path / saving.WEIGHTS)
    name = next(k for k in state if k.startswith("adapter."))
    del state[name]
    save_file(state, tmp_path / saving.WEIGHTS)
    with pytest.raises(ArtifactNetError, match=r"heie.safetensors.* 1 tensors"):
        saving.load_heie(tmp_path)


def test_broken_files_are_named(built_heie, tmp_path):
    with pytest.raises(ArtifactNetError, match=r"heie\.json"):
        saving.load_heie(tmp_path)
    saving.save_heie(built_heie, tmp_path, {})
    whole = (tmp_path / saving.WEIGHTS).read_bytes()
    (tmp_path / saving.WEIGHTS).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtifactNetError, match=r"heie\.safetensors"):
        saving.load_heie(tmp_path)
    facts = json.loads((tmp_path / saving.FACTS).read_text())
    (tmp_path / saving.FACTS).write_text(json.dumps(facts | {"format": 99}))
    with pytest.raises(ArtifactNetError, match="format 99"):
        saving.load_heie(tmp_path)
    facts["mllm"]["nonsense"] = 1
    (tmp_path / saving.FACTS).write_text(json.dumps(facts))
    with pytest.raises(ArtifactNetError, match=r"heie\.json.*nonsense"):
        saving.load_heie(tmp_path)


@pytest.mark.parametrize("tune", ["all", "language_projector"])
def test_merged_model_gives_the_same_output(tiny_config, tmp_path, tune):
    config = copy.deepcopy(tiny_config)
    config.mllm.tune = tune
    heie = build_heie(config).eval()
    saving.save_heie(perturbed(heie), tmp_path, {})
    plain = saving.load_heie(tmp_path, merge=True)
    assert not any("lora" in name for name, _ in plain.named_parameters())
    for before, after in zip(answer(heie), answer(plain), strict=True):
        torch.testing.assert_close(before, after, atol=1e-4, rtol=1e-4)


def test_moved_base_is_named_with_the_key_to_correct(heie, tmp_path):
    heie.mllm = replace(heie.mllm, base=str(tmp_path / "gone"))
    saving.save_heie(heie, tmp_path / "a", {})
    with pytest.raises(ArtifactNetError, match=r"gone.*mllm\.base.*heie\.json"):
        saving.load_heie(tmp_path / "a")


def test_tied_embeddings_stay_tied(tmp_path, tiny_config):
    base = tiny_mllm.save_base(tmp_path / "tied", tied=True)
    config = copy.deepcopy(tiny_config)
    config.mllm.base = str(base)
    torch.manual_seed(5)
    model = perturbed(build_heie(config)).eval()
    saving.save_heie(model, tmp_path / "a", {})
    again = saving.load_heie(tmp_path / "a")
    for before, after in zip(answer(model), answer(again), strict=True):
        torch.testing.assert_close(before, after)
    inner, outer = again.causal.get_input_embeddings(), again.causal.get_output_embeddings()
    assert torch.equal(inner.weight, outer.weight)  # the new rows too, after they have moved
    one, two = (layer.token_adapter.base_layer.weight for layer in (inner, outer))
    assert one.data_ptr() == two.data_ptr()
