"""A base of a ViT and a language model equals its parts."""

import json

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from PIL import Image
from tiny_mllm import CORPUS, make_tokenizer

from artifactnet.cli import main
from artifactnet.config import MllmConfig, ModelConfig
from artifactnet.models.create import create_model
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.base import load_base, load_processor
from artifactnet.vlm.build_base import build_base

NAME = "vit_tiny_patch16_224"
TINY = {"embed_dim": 24, "depth": 2, "num_heads": 3, "init_values": 0.5, "patch_size": 14}


def vit(**kwargs):
    arguments = TINY | kwargs
    return ModelConfig(
        backbone=NAME, backbone_kwargs=arguments, pretrained="false", image_size=[56, 56]
    )


def save_language(folder, family="llama", **settings):
    """A tiny random causal language model with a tokenizer that has ChatML."""
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = make_tokenizer(CORPUS)
    config = AutoConfig.for_model(
        family,
        **{
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "intermediate_size": 48,
            "vocab_size": len(tokenizer),
            "tie_word_embeddings": False,
        }
        | settings,
    )
    torch.manual_seed(3)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def opened(folder):
    mllm = MllmConfig(base=str(folder))
    processor = load_processor(mllm)
    return processor, load_base(mllm, len(processor.tokenizer), "cpu").eval()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights of a tiny ViT whose places and layers differ, so that no mix-up goes unseen."""
    from safetensors.torch import save_file

    torch.manual_seed(5)
    net = create_model(vit()).backbone.net
    state = {key: torch.randn_like(value) * 0.3 for key, value in net.state_dict().items()}
    path = tmp_path_factory.mktemp("vit") / "vit.safetensors"
    save_file(state, path)
    return path


@pytest.fixture(scope="module")
def language(tmp_path_factory):
    return save_language(tmp_path_factory.mktemp("language"))


@pytest.fixture(scope="module")
def base(tmp_path_factory, weights, language):
    out = tmp_path_factory.mktemp("built") / "base"
    config = vit()
    config.weights = str(weights)
    return build_base(out, language, vision=config, max_tiles=4)


def test_vision_tower_gives_the_features_of_timm(base, weights):
    config = vit()
    config.weights = str(weights)
    net = create_model(config).backbone.net.eval()
    _, model = opened(base.path)
    images = torch.randn(2, 3, 56, 56)
    with torch.no_grad():
        expected = net.forward_features(images)
        found = model.model.vision_tower(images).last_hidden_state
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("family", "tied"), [("llama", False), ("llama", True), ("qwen2", False)])
def test_language_model_gives_the_same_logits(tmp_path, family, tied):
    from transformers import AutoModelForCausalLM

    folder = save_language(tmp_path / "lm", family, tie_word_embeddings=tied)
    built = build_base(tmp_path / "base", folder, vision=vit())
    alone = AutoModelForCausalLM.from_pretrained(folder).eval()
    processor, model = opened(built.path)
    ids = processor.tokenizer("the image is garbled", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        expected, found = alone(input_ids=ids).logits, model(input_ids=ids).logits
    # the rows of the added tokens are behind those of the language model
    torch.testing.assert_close(found[..., : expected.shape[-1]], expected, rtol=1e-4, atol=1e-5)
    assert found.shape[-1] == len(processor.tokenizer) > expected.shape[-1]
    assert model.config.tie_word_embeddings is tied


def test_images_reach_the_language_model_as_tiles(base):
    processor, model = opened(base.path)
    assert base.image_tokens == 4  # (56 / 14 / 2)^2
    text = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Sure."}]}],
        tokenize=False,
        add_generation_prompt=True,
    )
    assert text == "<|im_start|>user\n<IMG_CONTEXT>\nSure.<|im_end|>\n<|im_start|>assistant\n"
    image = np.random.default_rng(0).integers(0, 256, (60, 120, 3), np.uint8)
    inputs = processor(images=[[Image.fromarray(image)]], text=[text], return_tensors="pt")
    assert len(inputs["pixel_values"]) == 3  # two tiles and the thumbnail
    assert (inputs["input_ids"] == model.config.image_token_id).sum() == 12
    # normalized as timm says: ImageNet's black
    black = processor(
        images=[[Image.new("RGB", (56, 56))]], text=[text], return_tensors="pt"
    ).pixel_values
    mean, std = np.array([0.5] * 3), np.array([0.5] * 3)  # of timm's vit_tiny_patch16_224
    np.testing.assert_allclose(black[0].mean((1, 2)), -mean / std, rtol=1e-5)
    with torch.no_grad():
        other = model(**inputs).logits
        inputs["pixel_values"] = -inputs["pixel_values"]
        assert not torch.allclose(model(**inputs).logits, other)


def test_is_a_base_of_heie(base):
    from artifactnet.config import HeatmapConfig
    from artifactnet.vlm.heie.processing import load_heie_processing

    heatmap = HeatmapConfig(tile=56, max_tiles=4)
    processing = load_heie_processing(MllmConfig(base=str(base.path)), heatmap)
    assert processing.tile == 56


def test_seed_decides_the_new_parts_alone(tmp_path, language):
    states = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        build_base(tmp_path / name, language, vision=vit(), seed=seed)
        states.append(opened(tmp_path / name)[1].state_dict())
    same = {key for key, value in states[0].items() if torch.equal(value, states[1][key])}
    projector = {key for key in states[0] if "multi_modal_projector" in key}
    assert projector <= same
    changed = {key for key, value in states[0].items() if not torch.equal(value, states[2][key])}
    linear = {key for key in projector if key.endswith("weight") and "linear" in key}
    assert linear <= changed
    assert not any("language_model.layers" in key for key in changed)


def test_gguf_file(tmp_path):
    """A file in llama.cpp's form, written here: the values come back, for it is not quantized."""
    gguf = pytest.importorskip("gguf")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = save_language(tmp_path / "lm", tie_word_embeddings=True, num_key_value_heads=2)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inner = json.loads((folder / "tokenizer.json").read_text())["model"]
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    path = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_context_length(512)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(48)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(model.config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokenizer))
    writer.add_tokenizer_model("gpt2")
    words = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    writer.add_token_list([word for word, _ in words])
    writer.add_token_types([3 if word.startswith("<|") else 1 for word, _ in words])
    writer.add_token_merges([" ".join(pair) for pair in inner["merges"]])
    writer.add_bos_token_id(tokenizer.eos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm"}
    parts = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }  # fmt: skip
    for key, value in model.state_dict().items():
        key = key.removesuffix(".weight")
        if key == "lm_head":
            continue
        array = value.numpy()
        if key in names:
            writer.add_tensor(f"{names[key]}.weight", array)
            continue
        _, _, layer, part = key.split(".", 3)
        if part in ("self_attn.q_proj", "self_attn.k_proj"):
            # llama.cpp keeps the two halves of a head's rotary pairs interleaved
            array = array.reshape(2, 2, 8, 32).swapaxes(1, 2).reshape(32, 32)
        writer.add_tensor(f"blk.{layer}.{parts[part]}.weight", np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    built = build_base(tmp_path / "base", path, vision=vit())
    processor, found = opened(built.path)
    ids = processor.tokenizer("the image is garbled", return_tensors="pt")["input_ids"]
    assert (
        ids.tolist() == tokenizer("the image is garbled", return_tensors="pt")["input_ids"].tolist()
    )
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        logits = found(input_ids=ids).logits[..., : expected.shape[-1]]
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


class TestRefused:
    def test_folder_exists(self, tmp_path, language):
        with pytest.raises(ArtifactNetError, match="exists already; name a new folder"):
            build_base(tmp_path, language, vision=vit())

    @pytest.mark.parametrize("size", [[56, 84], [70, 70]])
    def test_tiles_that_do_not_fit(self, tmp_path, language, size):
        config = vit()
        config.image_size = size
        with pytest.raises(ArtifactNetError, match=r"image_size=.*multiple of 28 pixels"):
            build_base(tmp_path / "base", language, vision=config)

    def test_vit_with_other_parts(self, tmp_path, language):
        with pytest.raises(ArtifactNetError, match=r"no place for blocks\.0\.attn\.k_norm"):
            build_base(tmp_path / "base", language, vision=vit(qk_norm=True))
        with pytest.raises(ArtifactNetError, match="no registers"):
            build_base(tmp_path / "base", language, vision=vit(reg_tokens=2))

    @pytest.mark.parametrize(
        ("kwargs", "problem"),
        [
            ({"qkv_bias": False}, "needs blocks.0.attn.qkv.bias"),
            ({"pre_norm": True}, "needs patch_embed.proj.bias"),  # CLIP
            ({"final_norm": False}, "needs norm.weight"),
            ({"no_embed_class": True}, "class token has no position"),  # DeiT III
            ({"act_layer": "quick_gelu"}, "other activations than GELU"),  # CLIP of OpenAI
            ({"act_layer": "gelu_tanh"}, "other activations than GELU"),
        ],
    )
    def test_vit_that_lacks_parts(self, tmp_path, language, kwargs, problem):
        with pytest.raises(ArtifactNetError, match=f"model.backbone {NAME}: .*{problem}"):
            build_base(tmp_path / "base", language, vision=vit(**kwargs))
        assert not (tmp_path / "base").exists()

    def test_language_models(self, tmp_path):
        save_language(tmp_path / "gpt", "gpt2", n_embd=32, n_head=2, n_layer=1)
        with pytest.raises(ArtifactNetError, match=r"family 'gpt2' is not supported \(llama,"):
            build_base(tmp_path / "base", tmp_path / "gpt", vision=vit())
        with pytest.raises(ArtifactNetError, match=r"language=.*none.*cannot be loaded"):
            build_base(tmp_path / "base", tmp_path / "none", vision=vit())
        with pytest.raises(ArtifactNetError, match=r"none\.gguf: no such file"):
            build_base(tmp_path / "base", tmp_path / "none.gguf", vision=vit())
        broken = tmp_path / "broken.gguf"
        broken.write_bytes(b"GGUF nothing")
        with pytest.raises(ArtifactNetError, match=r"broken\.gguf: cannot be loaded"):
            build_base(tmp_path / "base", broken, vision=vit())
        assert not (tmp_path / "base").exists()


def test_command(tmp_path, language, capsys):
    from safetensors.torch import save_file

    config = ModelConfig(backbone=NAME, pretrained="false", image_size=[32, 32])
    save_file(create_model(config).backbone.net.state_dict(), tmp_path / "vit.safetensors")
    out = str(tmp_path / "base")
    words = ["build-base", out, "--language", str(language), "--vision", NAME, "--tile", "32"]
    assert main([*words, "--vision-weights", str(tmp_path / "vit.safetensors")]) == 0
    assert f"1 tokens a tile. Use it as mllm.base={out}\n" in capsys.readouterr().out
    # random features would be of no use
    words[1] += "2"
    assert main(words) == 2
    assert "the weights are not in the local cache" in capsys.readouterr().err
