import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from artifactnet.types import ArtifactNetError
from artifactnet.vlm.heie import saving
from artifactnet.vlm.heie.model import build
from artifactnet.vlm.text.template import TEMPLATE

IMAGE = np.random.default_rng(2).integers(0, 256, (112, 56, 3), dtype=np.uint8)


def moved(model):
    """Every weight that learns is somewhere else than at the start."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return model


def answer(model):
    with torch.no_grad():
        output = model(model.processing.encode([IMAGE], [TEMPLATE]))
    return output.heatmaps[0].heatmap, output.heatmaps[0].score, output.text_loss


@pytest.mark.parametrize("rank", [4, 0])
def test_saved_and_loaded_says_the_same(tiny_config, tmp_path, rank):
    config = copy.deepcopy(tiny_config)
    config.mllm.lora_rank = rank
    torch.manual_seed(3)
    model = moved(build(config)).eval()
    saving.save(model, tmp_path / "a", {"epoch": 2})
    torch.manual_seed(4)
    again = saving.load(tmp_path / "a")
    assert not again.training
    for before, after in zip(answer(model), answer(again), strict=True):
        assert torch.equal(before, after)
    assert saving.read_facts(tmp_path / "a")["extra"] == {"epoch": 2}
    assert saving.is_heie(tmp_path / "a")
    assert not saving.is_heie(tmp_path)
    saving.save(again, tmp_path / "a", {})  # over itself
    assert torch.equal(answer(saving.load(tmp_path / "a"))[0], answer(model)[0])
    assert [p.name for p in (tmp_path / "a").iterdir() if p.name.startswith(".")] == []


def test_file_holds_what_was_learnt_and_not_the_base(heie, tmp_path):
    saving.save(heie, tmp_path, {})
    state = load_file(tmp_path / saving.WEIGHTS)
    assert {name.split(".")[0] for name in state} == {"head", "adapter"}
    rows = [v for k, v in state.items() if "trainable_tokens" in k or "token_adapter" in k]
    assert rows
    assert all(row.shape[0] == 2 for row in rows)  # [MAP] and [SCORE], not the vocabulary
    base = sum(p.numel() for p in heie.causal.parameters())
    assert sum(v.numel() for k, v in state.items() if k.startswith("adapter.")) < base / 2


def test_facts_name_base_and_revision(heie, tmp_path, tiny_base):
    saving.save(heie, tmp_path, {})
    facts = json.loads((tmp_path / saving.FACTS).read_text())
    assert facts["mllm"]["base"] == str(tiny_base)
    assert facts["mllm"]["revision"] is None


def test_weights_of_another_base_are_refused(heie, tmp_path):
    saving.save(heie, tmp_path, {})
    state = load_file(tmp_path / saving.WEIGHTS)
    name = next(k for k in state if k.startswith("adapter."))
    del state[name]
    save_file(state, tmp_path / saving.WEIGHTS)
    with pytest.raises(ArtifactNetError, match=r"heie.safetensors.*1 tensors differ"):
        saving.load(tmp_path)


def test_broken_files_are_named(heie, tmp_path):
    with pytest.raises(ArtifactNetError, match=r"heie.json: not a saved HEIE"):
        saving.load(tmp_path)
    saving.save(heie, tmp_path, {})
    whole = (tmp_path / saving.WEIGHTS).read_bytes()
    (tmp_path / saving.WEIGHTS).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtifactNetError, match=r"heie.safetensors: cannot be read"):
        saving.load(tmp_path)
    facts = json.loads((tmp_path / saving.FACTS).read_text())
    (tmp_path / saving.FACTS).write_text(json.dumps(facts | {"format": 99}))
    with pytest.raises(ArtifactNetError, match="format 99"):
        saving.load(tmp_path)
    facts["mllm"]["nonsense"] = 1
    (tmp_path / saving.FACTS).write_text(json.dumps(facts))
    with pytest.raises(ArtifactNetError, match="another version"):
        saving.load(tmp_path)


def test_merged_for_answering_says_the_same(heie, tmp_path):
    saving.save(moved(heie), tmp_path, {})
    plain = saving.load(tmp_path, merge=True)
    assert not any("lora" in name for name, _ in plain.named_parameters())
    for before, after in zip(answer(heie), answer(plain), strict=True):
        torch.testing.assert_close(before, after, atol=1e-4, rtol=1e-4)


def test_base_that_moved_is_named_with_the_place_to_correct(heie, tmp_path):
    heie.mllm = replace(heie.mllm, base=str(tmp_path / "gone"))
    saving.save(heie, tmp_path / "a", {})
    with pytest.raises(ArtifactNetError, match=r"gone.*correct mllm.base in .*heie.json"):
        saving.load(tmp_path / "a")


def test_tied_embeddings_stay_tied(tmp_path, tiny_config):
    import tiny_mllm

    base = tiny_mllm.save_base(tmp_path / "tied", tied=True)
    config = copy.deepcopy(tiny_config)
    config.mllm.base = str(base)
    torch.manual_seed(5)
    model = moved(build(config)).eval()
    saving.save(model, tmp_path / "a", {})
    again = saving.load(tmp_path / "a")
    for before, after in zip(answer(model), answer(again), strict=True):
        torch.testing.assert_close(before, after)
    inner, outer = again.causal.get_input_embeddings(), again.causal.get_output_embeddings()
    assert torch.equal(inner.weight, outer.weight)  # the new rows too, after they have moved
    one, two = (layer.token_adapter.base_layer.weight for layer in (inner, outer))
    assert one.data_ptr() == two.data_ptr()
