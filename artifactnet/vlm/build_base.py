"""A new base for vision-language models: a pretrained ViT, a pretrained language model, InternVL.

The parts keep what they learned; the projector between them is new and knows nothing.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from artifactnet.config import ModelConfig
from artifactnet.models.create import create_model
from artifactnet.models.import_timm import import_timm
from artifactnet.models.timm_net import normalization
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.base import read_checkpoint, require_mllm_extra
from artifactnet.vlm.saving import save_base

# causal language models of transformers whose decoder InternVL can hold
LANGUAGE_FAMILIES = ("llama", "qwen2", "qwen3", "mistral")
GGUF_SUFFIX = ".gguf"
_SHUFFLE = 2  # InternVL makes one image token of 2 x 2 patches
_SPECIAL = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
_TURN_START, _TURN_END = "<|im_start|>", "<|im_end|>"
# ChatML, the format of InternVL and Qwen; the processor writes <img> and </img> around an image
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<IMG_CONTEXT>\n"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class BuiltBase(NamedTuple):
    """What `build_base` made.

    Attributes:
        path: the folder, for ``mllm.base``.
        vision, projector, language: parameters of each part.
        image_tokens: tokens of one tile.
    """

    path: Path
    vision: int
    projector: int
    language: int
    image_tokens: int


def build_base(
    out: str | Path,
    language: str | Path,
    *,
    vision: ModelConfig | None = None,
    revision: str | None = None,
    max_tiles: int = 12,
    seed: int = 0,
) -> BuiltBase:
    """Write an InternVL checkpoint for transformers of a ViT and a causal language model.

    The vision tower gives the features of the timm model after its last norm, on tiles of
    ``vision.image_size``. Four neighbouring patches become one image token, by a new projector of
    two layers. The chat format is ChatML; tokens that the language model lacks are added, their
    embeddings drawn around the mean of the others.

    Args:
        out: folder to write; must not exist.
        language: a causal language model of `LANGUAGE_FAMILIES`: folder, name on the hub, or a
            ``.gguf`` file, which is dequantized.
        vision: a plain timm ViT with a class token and no registers, and its weights as for any
            detector; None: DINOv2-S of the package at 224 x 224.
        revision: of a language model on the hub.
        max_tiles: into how many tiles an image is cut at most.
        seed: of projector and new embeddings.

    Raises:
        ArtifactNetError: ``out`` exists, the extra ``mllm`` is missing, the language model cannot
            be read or is of another family, or the ViT has parts that InternVL's has not.
    """
    out = Path(out)
    if out.exists():
        raise ArtifactNetError(f"{out}: exists already; name a new folder")
    require_mllm_extra()
    from transformers import InternVLConfig, InternVLForConditionalGeneration

    vision = vision or ModelConfig(pretrained="true", image_size=[224, 224])
    tower = create_model(vision).backbone
    state, vision_config = _vision_tower(tower, vision)
    tokenizer = _read_tokenizer(language, revision)
    decoder = _read_language_model(language, revision)
    tile = vision.image_size[0]
    image_tokens = (tile // vision_config["patch_size"][0] // _SHUFFLE) ** 2
    text_config = decoder.config.to_dict()
    text_config.pop("quantization_config", None)  # of a GGUF file, which was dequantized
    text_config |= {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    tied = bool(decoder.config.tie_word_embeddings)
    config = InternVLConfig(
        vision_config=vision_config,
        text_config=text_config,
        image_token_id=tokenizer.convert_tokens_to_ids(_SPECIAL["context_image_token"]),
        image_seq_length=image_tokens,
        downsample_ratio=1 / _SHUFFLE,
        tie_word_embeddings=tied,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = InternVLForConditionalGeneration(config)
        model.model.vision_tower.load_state_dict(state)
        model.model.language_model.load_state_dict(decoder.get_decoder().state_dict())
        if not tied:
            model.lm_head.load_state_dict(decoder.get_output_embeddings().state_dict())
        if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
            model.resize_token_embeddings(len(tokenizer))
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    processor = _processor(tokenizer, tile, image_tokens, max_tiles, normalization(tower.net))
    out.parent.mkdir(parents=True, exist_ok=True)
    save_base(model, processor, out)
    counts = [
        sum(p.numel() for p in part.parameters())
        for part in (model.model.vision_tower, model.model.multi_modal_projector, model)
    ]
    return BuiltBase(out, counts[0], counts[1], counts[2] - counts[0] - counts[1], image_tokens)


def _vision_tower(backbone: Any, config: ModelConfig) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State and configuration of InternVL's vision tower that equal a timm ViT."""
    net, size = backbone.net, config.image_size

    def unsuitable(problem: str) -> ArtifactNetError:
        return ArtifactNetError(
            f"model.backbone {config.backbone}: {problem}; choose a plain ViT such as "
            "vit_small_patch14_dinov2"
        )

    if backbone.patch_size is None or backbone.prefix_tokens != 1 or net.pos_embed is None:
        raise unsuitable("a base needs a class token, position embeddings and no registers")
    step = backbone.patch_size * _SHUFFLE
    if size[0] != size[1] or size[0] % step:
        raise ArtifactNetError(
            f"model.image_size={size}: tiles are square, their side a multiple of {step} pixels "
            f"({_SHUFFLE} x {_SHUFFLE} patches make one image token)"
        )
    source = {key: value.detach().float() for key, value in net.state_dict().items()}

    def take(key: str) -> Tensor:
        if key not in source:
            raise unsuitable(f"InternVL's vision tower needs {key}, which it lacks")
        return source.pop(key)

    values = torch.linspace(-4, 4, 9)
    if not torch.allclose(net.blocks[0].mlp.act(values), F.gelu(values), atol=1e-6):
        raise unsuitable("it has other activations than GELU")
    if getattr(net, "no_embed_class", False):
        raise unsuitable("its class token has no position embedding")
    grid = size[0] // backbone.patch_size
    state = {
        "embeddings.cls_token": take("cls_token"),
        "embeddings.position_embeddings": import_timm().layers.resample_abs_pos_embed(
            take("pos_embed"), [grid, grid], num_prefix_tokens=1
        ),
        "embeddings.patch_embeddings.projection.weight": take("patch_embed.proj.weight"),
        "embeddings.patch_embeddings.projection.bias": take("patch_embed.proj.bias"),
        "layernorm.weight": take("norm.weight"),
        "layernorm.bias": take("norm.bias"),
    }
    width = net.embed_dim
    for k in range(len(net.blocks)):
        block, layer = f"blocks.{k}", f"encoder.layer.{k}"
        for kind in ("weight", "bias"):
            qkv = take(f"{block}.attn.qkv.{kind}").chunk(3)
            for name, value in zip(("q_proj", "k_proj", "v_proj"), qkv, strict=True):
                state[f"{layer}.attention.{name}.{kind}"] = value
            for theirs, ours in (
                ("attn.proj", "attention.projection_layer"),
                ("norm1", "layernorm_before"),
                ("norm2", "layernorm_after"),
                ("mlp.fc1", "mlp.fc1"),
                ("mlp.fc2", "mlp.fc2"),
            ):
                state[f"{layer}.{ours}.{kind}"] = take(f"{block}.{theirs}.{kind}")
        for number in (1, 2):  # a ViT without LayerScale has factors of 1
            gamma = source.pop(f"{block}.ls{number}.gamma", torch.ones(width))
            state[f"{layer}.lambda_{number}"] = gamma
    if source:
        raise unsuitable(f"InternVL's vision tower has no place for {sorted(source)[0]}")
    return state, {
        "hidden_size": width,
        "num_hidden_layers": len(net.blocks),
        "num_attention_heads": net.blocks[0].attn.num_heads,
        "intermediate_size": net.blocks[0].mlp.fc1.out_features,
        "image_size": list(size),
        "patch_size": [backbone.patch_size] * 2,
        "attention_bias": True,
        "hidden_act": "gelu",
        "norm_type": "layer_norm",
        "layer_norm_eps": net.norm.eps,
        "use_qk_norm": False,
        "use_mean_pooling": False,  # else InternVL leaves the last norm out
        "use_absolute_position_embeddings": True,
    }


def _read_tokenizer(language: str | Path, revision: str | None) -> Any:
    """The language model's tokenizer, with the tokens of images and of ChatML."""
    from transformers import AutoTokenizer

    base, options = _where(language)
    what = f"language={language}"
    tokenizer = read_checkpoint(
        AutoTokenizer, base, revision, what, extra_special_tokens=dict(_SPECIAL), **options
    )
    turns = [token for token in (_TURN_START, _TURN_END) if token not in tokenizer.get_vocab()]
    if turns:
        tokenizer.add_special_tokens(
            {"extra_special_tokens": turns}, replace_extra_special_tokens=False
        )
    tokenizer.eos_token = _TURN_END  # an answer ends with its turn
    if tokenizer.pad_token is None:
        tokenizer.pad_token = _TURN_END
    return tokenizer


def _read_language_model(language: str | Path, revision: str | None) -> Any:
    """The language model, float32 on the CPU."""
    from transformers import AutoConfig, AutoModelForCausalLM

    base, options = _where(language)
    what = f"language={language}"
    family = read_checkpoint(AutoConfig, base, revision, what, **options).model_type
    if family not in LANGUAGE_FAMILIES:
        raise ArtifactNetError(
            f"{what}: model family {family!r} is not supported ({', '.join(LANGUAGE_FAMILIES)})"
        )
    return read_checkpoint(
        AutoModelForCausalLM, base, revision, what, dtype=torch.float32, **options
    )


def _where(language: str | Path) -> tuple[str, dict[str, Any]]:
    """What ``from_pretrained`` takes: a name or folder, and of a GGUF file the file in it."""
    path = Path(language)
    if path.suffix != GGUF_SUFFIX:
        return str(language), {}
    if not path.is_file():
        raise ArtifactNetError(f"language={language}: no such file")
    if find_spec("gguf") is None:
        raise ArtifactNetError(f"language={language}: a GGUF file needs gguf: pip install gguf")
    return str(path.parent), {"gguf_file": path.name}


def _processor(
    tokenizer: Any,
    tile: int,
    image_tokens: int,
    max_tiles: int,
    normalized: tuple[tuple[float, ...], tuple[float, ...]],
) -> Any:
    """InternVL's processor: square tiles, normalized as the ViT expects them."""
    from transformers import GotOcr2ImageProcessor, InternVLProcessor, InternVLVideoProcessor

    size = {"height": tile, "width": tile}
    mean, std = (list(values) for values in normalized)
    images = GotOcr2ImageProcessor(
        size=size, crop_to_patches=True, min_patches=1, max_patches=max_tiles,
        image_mean=mean, image_std=std,
    )  # fmt: skip
    video = InternVLVideoProcessor(size=size, image_mean=mean, image_std=std)
    return InternVLProcessor(
        images, tokenizer, video, image_seq_length=image_tokens, chat_template=_CHAT_TEMPLATE
    )
