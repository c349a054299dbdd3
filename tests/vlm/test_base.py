import copy
import json

import pytest
import tiny_mllm

from artifactnet.config import MllmConfig
from artifactnet.types import ArtifactNetError
from artifactnet.vlm import base as extra
from artifactnet.vlm.base import load_base, load_processor
from artifactnet.vlm.heie.model import build


def test_marks_are_single_tokens(tiny_base):
    processor = load_processor(MllmConfig(base=str(tiny_base)))
    ids = processor.tokenizer("[MAP][MAP] [SCORE].", add_special_tokens=False)["input_ids"]
    wanted = processor.tokenizer.convert_tokens_to_ids(["[MAP]", "[SCORE]"])
    assert ids[:2] == [wanted[0]] * 2
    assert wanted[1] in ids
    again = load_processor(MllmConfig(base=str(tiny_base)))
    assert again.tokenizer.convert_tokens_to_ids(["[MAP]", "[SCORE]"]) == wanted


def test_embeddings_have_a_row_for_every_token(tiny_base):
    config = MllmConfig(base=str(tiny_base))
    tokens = len(load_processor(config).tokenizer)
    base = load_base(config, tokens, "cpu")
    assert base.get_input_embeddings().weight.shape[0] == tokens
    assert base.get_output_embeddings().weight.shape[0] == tokens


def test_embeddings_larger_than_the_tokenizer_stay(tiny_base):
    """Real checkpoints pad their vocabulary; cutting it would break loading with adapters."""
    config = MllmConfig(base=str(tiny_base))
    before = load_base(config, 1, "cpu").get_input_embeddings().weight.shape[0]
    assert load_base(config, before - 3, "cpu").get_input_embeddings().weight.shape[0] == before


def test_another_family_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ArtifactNetError, match=r"family 'bert'.*internvl"):
        load_processor(MllmConfig(base=str(tmp_path)))


def test_unknown_family_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nobody-knows"}))
    with pytest.raises(ArtifactNetError, match=r"cannot be loaded.*nobody-knows"):
        load_processor(MllmConfig(base=str(tmp_path)))


def test_empty_folder_is_refused(tmp_path):
    with pytest.raises(ArtifactNetError, match=rf"mllm.base={tmp_path}: cannot be loaded"):
        load_processor(MllmConfig(base=str(tmp_path)))


def test_no_base():
    with pytest.raises(ArtifactNetError, match="mllm.base is not set"):
        load_processor(MllmConfig())


@pytest.mark.parametrize("quantize", ["4bit", "8bit"])
def test_quantisation_needs_a_gpu(tiny_base, quantize):
    config = MllmConfig(base=str(tiny_base), quantize=quantize)
    with pytest.raises(ArtifactNetError, match=f"mllm.quantize={quantize} needs a CUDA device"):
        load_base(config, 1, "cpu")


def test_tile_of_another_size_is_refused(tiny_config):
    config = copy.deepcopy(tiny_config)
    config.model.heatmap.tile = 112
    with pytest.raises(ArtifactNetError, match=r"model.heatmap.tile=112.*set .*tile=56"):
        build(config)


def test_missing_extra_is_said_with_the_command(monkeypatch):
    monkeypatch.setattr(extra, "find_spec", lambda name: None if name == "peft" else object())
    with pytest.raises(ArtifactNetError, match=r"needs peft: pip install 'artifactnet\[mllm\]'"):
        extra.need_extra()


def test_base_that_lacks_weights_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tiny_mllm.save_base(tmp_path / "base")
    state = load_file(folder / "model.safetensors")
    name = next(k for k in state if k.endswith("layers.0.self_attn.q_proj.weight"))
    del state[name]
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ArtifactNetError, match=r"lacks 1 weights, e.g. .*q_proj"):
        load_base(MllmConfig(base=str(folder)), 1, "cpu")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtifactNetError, match="cannot be loaded"):
        load_base(MllmConfig(base=str(folder)), 1, "cpu")


def test_code_of_a_checkpoint_is_never_run(tmp_path):
    code = {"AutoConfig": "theirs.Config", "AutoProcessor": "theirs.Processor"}
    config = {"model_type": "internvl_chat", "auto_map": code}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "theirs.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(ArtifactNetError, match="names end in -hf"):
        load_processor(MllmConfig(base=str(tmp_path)))
    assert not (tmp_path / "ran").exists()


def test_folder_is_kept_by_its_full_path(tiny_config, tiny_base, monkeypatch):
    monkeypatch.chdir(tiny_base.parent)
    config = copy.deepcopy(tiny_config)
    config.mllm.base = tiny_base.name
    assert build(config).mllm.base == str(tiny_base.resolve())
    assert config.mllm.base == tiny_base.name
