"""Loading base models: tokens, embeddings, and bases that are refused."""

import copy
import json

import pytest
import tiny_mllm
import torch

from artifactnet.config import MllmConfig
from artifactnet.types import ArtifactNetError
from artifactnet.vlm import base as base_module
from artifactnet.vlm.base import (
    choose_weights,
    load_base,
    load_processor,
    merge_adapters,
    require_mllm_extra,
)
from artifactnet.vlm.heie.model import build_heie
from artifactnet.vlm.heie.processing import load_heie_processing
from artifactnet.vlm.text.chain_of_thought import MARKS


def test_new_tokens_are_single_tokens(tiny_base):
    config = MllmConfig(base=str(tiny_base))
    tokenizer = load_processor(config, MARKS).tokenizer
    wanted = tokenizer.convert_tokens_to_ids(list(MARKS))
    ids = tokenizer("[MAP][MAP] [SCORE].", add_special_tokens=False)["input_ids"]
    assert ids[:2] == [wanted[0]] * 2
    assert wanted[1] in ids
    again = load_processor(config, MARKS).tokenizer
    assert again.convert_tokens_to_ids(list(MARKS)) == wanted
    assert len(load_processor(config).tokenizer) == len(again) - 2


def test_embeddings_have_a_row_for_every_token_and_are_never_cut(tiny_base):
    """Real checkpoints pad their vocabulary; cutting it would break loading with adapters."""
    config = MllmConfig(base=str(tiny_base))
    tokens = len(load_processor(config, MARKS).tokenizer)
    base = load_base(config, tokens, "cpu")
    assert base.get_input_embeddings().weight.shape[0] == tokens
    assert base.get_output_embeddings().weight.shape[0] == tokens
    before = load_base(config, 1, "cpu").get_input_embeddings().weight.shape[0]
    assert load_base(config, before - 3, "cpu").get_input_embeddings().weight.shape[0] == before


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"model_type": "bert"}, "'bert'.*internvl.*-hf"),
        ({"model_type": "nobody-knows"}, "nobody-knows"),
        (None, "mllm.base={folder}"),
    ],
)
def test_unsupported_family_is_refused(tiny_config, tmp_path, content, problem):
    if content is not None:
        (tmp_path / "config.json").write_text(json.dumps(content))
    mllm = MllmConfig(base=str(tmp_path))
    with pytest.raises(ArtifactNetError, match=problem.format(folder=tmp_path)):
        load_heie_processing(mllm, tiny_config.model.heatmap)


def test_a_missing_folder_is_told_from_a_broken_one(tmp_path):
    missing = "none: no such folder; artifactnet build-base makes bases"
    with pytest.raises(ArtifactNetError, match=missing):
        load_processor(MllmConfig(base=str(tmp_path / "none")))
    with pytest.raises(ArtifactNetError, match=f"{tmp_path}: cannot be loaded"):
        load_processor(MllmConfig(base=str(tmp_path)))


def test_base_is_required():
    with pytest.raises(ArtifactNetError, match="mllm.base"):
        load_processor(MllmConfig())


@pytest.mark.parametrize("quantize", ["4bit", "8bit"])
def test_quantisation_needs_a_gpu(tiny_base, quantize):
    config = MllmConfig(base=str(tiny_base), quantize=quantize)
    with pytest.raises(ArtifactNetError, match=f"mllm.quantize={quantize}.*CUDA"):
        load_base(config, 1, "cpu")


def test_tile_of_another_size_is_refused(tiny_config):
    config = copy.deepcopy(tiny_config)
    config.model.heatmap.tile = 112
    with pytest.raises(ArtifactNetError, match=r"model.heatmap.tile=112.*tile=56"):
        build_heie(config)


def test_missing_extra(monkeypatch):
    monkeypatch.setattr(base_module, "find_spec", lambda name: None if name == "peft" else object())
    with pytest.raises(ArtifactNetError, match=r"peft.*artifactnet\[mllm\]"):
        require_mllm_extra()


def test_base_that_lacks_weights_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tiny_mllm.save_base(tmp_path / "base")
    path = folder / "model.safetensors"
    state = load_file(path)
    del state[next(k for k in state if k.endswith("layers.0.self_attn.q_proj.weight"))]
    save_file(state, path, {"format": "pt"})
    with pytest.raises(ArtifactNetError, match=r" 1 weights.*q_proj"):
        load_base(MllmConfig(base=str(folder)), 1, "cpu")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ArtifactNetError, match=str(folder)):
        load_base(MllmConfig(base=str(folder)), 1, "cpu")


def test_code_of_a_checkpoint_is_never_run(tiny_config, tmp_path):
    code = {"AutoConfig": "theirs.Config", "AutoProcessor": "theirs.Processor"}
    config = {"model_type": "internvl_chat", "auto_map": code}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "theirs.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    mllm = MllmConfig(base=str(tmp_path))
    with pytest.raises(ArtifactNetError, match="-hf"):
        load_heie_processing(mllm, tiny_config.model.heatmap)
    for load in (load_processor, lambda config: load_base(config, 1, "cpu")):
        with pytest.raises(ArtifactNetError, match=str(tmp_path)):
            load(mllm)
    assert not (tmp_path / "ran").exists()


def test_folder_is_saved_by_its_full_path(tiny_config, tiny_base, monkeypatch):
    monkeypatch.chdir(tiny_base.parent)
    config = copy.deepcopy(tiny_config)
    config.mllm.base = tiny_base.name
    assert build_heie(config).mllm.base == str(tiny_base.resolve())
    assert config.mllm.base == tiny_base.name


@pytest.mark.parametrize("save", ["save_base", "save_qwen", "save_qwen3", "save_llava"])
@pytest.mark.parametrize("tune", ["language", "all"])
def test_which_layers_get_adapters(tmp_path, save, tune):
    """The tiny language models have two blocks of 4 + 3 linear layers, and the output layer."""
    mllm = MllmConfig(base=str(getattr(tiny_mllm, save)(tmp_path)), lora_rank=2, tune=tune)
    base = load_base(mllm, 1, "cpu")
    layers = {name for name, one in base.named_modules() if isinstance(one, torch.nn.Linear)}
    layers.discard("lm_head")
    model = choose_weights(base, mllm)
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    adapted = {name.split("base_model.model.")[1].split(".lora_")[0] for name in learning}
    language = {name for name in layers if ".language_model.layers." in name}
    assert len(language) == 14
    assert adapted == (language if tune == "language" else layers)
    assert layers > language
    assert len(learning) == 2 * len(adapted)


@pytest.mark.parametrize("save", ["save_base", "save_llava"])
def test_the_projector_learns_whole(tmp_path, save):
    folder = str(getattr(tiny_mllm, save)(tmp_path))
    mllm = MllmConfig(base=folder, lora_rank=0, tune="projector")
    model = choose_weights(load_base(mllm, 1, "cpu"), mllm)
    parts = {name for name, _ in model.named_parameters() if ".multi_modal_projector." in name}
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert learning == parts
    assert len(parts) in (4, 6)  # two layers, before them InternVL has a norm

    mllm = MllmConfig(base=folder, lora_rank=2, tune="language_projector")
    model = choose_weights(load_base(mllm, 1, "cpu"), mllm)
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    whole = {name for name in learning if "lora_" not in name}
    assert len(whole) == len(parts)
    assert all(".multi_modal_projector.modules_to_save." in name for name in whole)
    assert len(learning - whole) == 28
    assert all(".language_model.layers." in name for name in learning - whole)


@pytest.mark.parametrize(("rank", "tune"), [(0, "projector"), (2, "language_projector")])
def test_a_base_without_projector_is_refused(tmp_path, rank, tune):
    mllm = MllmConfig(base=str(tiny_mllm.save_qwen(tmp_path)), lora_rank=rank, tune=tune)
    with pytest.raises(ArtifactNetError, match=f"mllm.tune={tune}: the base's family 'qwen2_5_vl'"):
        choose_weights(load_base(mllm, 1, "cpu"), mllm)


@pytest.mark.parametrize("save", ["save_base", "save_llava"])
def test_a_projector_beside_adapters_learns_in_float32(tmp_path, save):
    """Also where the base is bfloat16, as on a GPU: that would round steps of AdamW away."""
    mllm = MllmConfig(
        base=str(getattr(tiny_mllm, save)(tmp_path)), lora_rank=2, tune="language_projector"
    )
    base = load_base(mllm, 1, "cpu").bfloat16()
    projector = base.model.multi_modal_projector
    seen = torch.randn(1, 4, projector.linear_1.in_features, dtype=torch.bfloat16)
    expected = projector(seen)
    model = choose_weights(base, mllm)
    learning = [p for p in model.parameters() if p.requires_grad]
    assert {p.dtype for p in learning} == {torch.float32}
    projector = model.get_base_model().model.multi_modal_projector
    output = projector(seen)
    assert output.dtype == torch.bfloat16  # as the language model takes it
    torch.testing.assert_close(output, expected, rtol=0.02, atol=0.02)
    output.float().square().sum().backward()
    weights = [p for p in learning if p.grad is not None]
    before = [p.detach().clone() for p in weights]
    torch.optim.AdamW(weights, lr=1e-6, weight_decay=0).step()
    assert all((old != new).any() for old, new in zip(before, weights, strict=True))
    expected = projector(seen)
    plain = merge_adapters(model)
    assert torch.equal(plain.model.multi_modal_projector(seen), expected)
    plain.bfloat16()
    output = plain.model.multi_modal_projector(seen)
    torch.testing.assert_close(output, expected, rtol=0.02, atol=0.02)
