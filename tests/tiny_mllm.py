"""A tiny InternVL and a tiny Qwen2.5-VL: random weights, tokenizers trained on the spot."""

from pathlib import Path

import numpy as np
import torch

TILE = 56  # pixels; patches of 14, so 4 x 4 features and 2 x 2 image tokens a tile
MAX_TILES = 6
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<IMG_CONTEXT>\n"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN_CHAT = CHAT.replace("<IMG_CONTEXT>\n", "<|vision_start|><|image_pad|><|vision_end|>")
# FakeXplainer's answers and prompt, for the same reason
GRAMMAR = (
    '<think>\n{"bbox_2d": [10, 20, 30, 40], "label": "hand with six fingers"}\n',
    "<tag>wrong texture, other anomalies</tag>\n</think>\n<verdict>generated</verdict>",
    "<think>\n<tag>none</tag>\n</think>\n<verdict>real</verdict> area that looks wrong",
    "structure/attribute error, artistic style, unrecognizable objects, perspective errors",
)
# every word of the texts that are made of annotations becomes one token, so that they are short
CORPUS = (
    "### Image Description\nA square photograph. A wide generated image. An image, tall.",
    "### Problematic Regions Identification\n- upper left, upper right; 9% of the image",
    "- lower left, lower right, top, bottom, center, spread over the image; less than 1%",
    "So, the potential problematic regions in the image are No region looks implausible.",
    "### Analysis of Issues\n- Textures: Surfaces lack the texture of their material.",
    "- Edges and shapes: Outlines are broken, blurred or deformed. most of the image",
    "- Symbols: Letters or signs are garbled. - Common sense: The scene contradicts common",
    "- Colors: Colors are unnatural or bleed into their surroundings. - Artifacts: Something",
    "- Semantics: Parts of an object are missing, misplaced or too many. Nothing is wrong with",
    "- Physics: Light, shadows or supports contradict physics.",
    "Based on the overall analysis, the plausibility score for this image is. Sure. user assistant",
    "Identify and describe every problematic region in this AIGC image.",
)


def random_image(height: int, width: int) -> np.ndarray:
    """(H, W, 3) noise, the same for the same size."""
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)


def save_base(
    folder: Path,
    seed: int = 0,
    hidden: int = 32,
    tied: bool = False,
    corpus: tuple[str, ...] = CORPUS,
    blocks: int = 2,
) -> Path:
    """Write model and processor into ``folder``; nothing in it knows of [MAP] and [SCORE]."""
    from transformers import InternVLConfig, InternVLForConditionalGeneration

    processor = _processor(corpus)
    tokenizer = processor.tokenizer
    config = InternVLConfig(
        vision_config={
            "hidden_size": hidden,
            "num_hidden_layers": blocks,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "image_size": [TILE, TILE],
            "patch_size": [14, 14],
        },
        text_config=_text_config(tokenizer, hidden) | {"model_type": "qwen2"},
        image_token_id=processor.image_token_id,
        image_seq_length=4,
        tie_word_embeddings=tied,
    )
    torch.manual_seed(seed)
    model = InternVLForConditionalGeneration(config)
    positions = model.model.vision_tower.embeddings.position_embeddings
    torch.nn.init.normal_(positions, std=0.5)  # zero as initialised: places would look alike
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def save_qwen(
    folder: Path,
    seed: int = 0,
    hidden: int = 32,
    layers: int = 2,
    corpus: tuple[str, ...] = GRAMMAR,
) -> Path:
    """Write a random Qwen2.5-VL and its processor into ``folder``."""
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    tokenizer = make_tokenizer(
        corpus,
        image_token="<|image_pad|>",
        video_token="<|video_pad|>",
        vision_start_token="<|vision_start|>",
        vision_end_token="<|vision_end|>",
        object_ref_start_token="<|object_ref_start|>",
        object_ref_end_token="<|object_ref_end|>",
        box_start_token="<|box_start|>",
        box_end_token="<|box_end|>",
    )
    size = {"shortest_edge": 28 * 28, "longest_edge": 16 * 28 * 28}
    processor = Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(size=size),
        tokenizer,
        Qwen2VLVideoProcessor(size=size),
        chat_template=QWEN_CHAT,
    )
    ids = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(token)
        for name, token in (
            ("image", "<|image_pad|>"),
            ("video", "<|video_pad|>"),
            ("vision_start", "<|vision_start|>"),
            ("vision_end", "<|vision_end|>"),
        )
    }
    head = hidden // 2
    config = Qwen2_5_VLConfig(
        vision_config={
            "depth": layers,
            "hidden_size": hidden,
            "num_heads": 2,
            "intermediate_size": 2 * hidden,
            "out_hidden_size": hidden,
            "fullatt_block_indexes": [layers - 1],
            "window_size": 112,
        },
        text_config=_text_config(tokenizer, hidden, layers, 2 * hidden)
        | {
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [head // 2 - 2 * (head // 6), head // 6, head // 6],
            },
        },
        tie_word_embeddings=False,
        **ids,
    )
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def save_qwen3(folder: Path, corpus: tuple[str, ...] = GRAMMAR) -> Path:
    """Write a random Qwen3-VL and its processor into ``folder``."""
    from transformers import (
        Qwen2VLImageProcessor,
        Qwen3VLConfig,
        Qwen3VLForConditionalGeneration,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    )

    tokens = {
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "vision_start_token": "<|vision_start|>",
        "vision_end_token": "<|vision_end|>",
    }
    tokenizer = make_tokenizer(corpus, **tokens)
    size = {"shortest_edge": 32 * 32, "longest_edge": 16 * 32 * 32}
    images = Qwen2VLImageProcessor(size=size, patch_size=16)
    video = Qwen3VLVideoProcessor(size=size)
    processor = Qwen3VLProcessor(images, tokenizer, video, chat_template=QWEN_CHAT)
    config = Qwen3VLConfig(
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "num_heads": 2,
            "intermediate_size": 64,
            "out_hidden_size": 32,
            "deepstack_visual_indexes": [0],
            "num_position_embeddings": 64,
        },
        text_config=_text_config(tokenizer)
        | {
            "head_dim": 16,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [4, 2, 2],
            },
        },
        **{f"{k}_id": tokenizer.convert_tokens_to_ids(token) for k, token in tokens.items()},
    )
    torch.manual_seed(0)
    Qwen3VLForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def save_llava(folder: Path, corpus: tuple[str, ...] = GRAMMAR) -> Path:
    """Write a random LLaVA and its processor into ``folder``."""
    from transformers import (
        CLIPImageProcessor,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    tokenizer = make_tokenizer(corpus, image_token="<image>")
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": TILE}, crop_size={"height": TILE, "width": TILE}),
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT.replace("<IMG_CONTEXT>", "<image>"),
    )
    config = LlavaConfig(
        vision_config={
            "model_type": "clip_vision_model",
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "image_size": TILE,
            "patch_size": 14,
        },
        text_config=_text_config(tokenizer) | {"model_type": "llama"},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
    )
    torch.manual_seed(0)
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _text_config(tokenizer, hidden=32, layers=2, width=64):
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "intermediate_size": width,
        "vocab_size": len(tokenizer),
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _processor(corpus):
    from transformers import GotOcr2ImageProcessor, InternVLProcessor, InternVLVideoProcessor

    tokenizer = make_tokenizer(
        corpus,
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    size = {"height": TILE, "width": TILE}
    images = GotOcr2ImageProcessor(
        size=size, crop_to_patches=True, min_patches=1, max_patches=MAX_TILES
    )
    return InternVLProcessor(
        images, tokenizer, InternVLVideoProcessor(size=size), image_seq_length=4, chat_template=CHAT
    )


def make_tokenizer(corpus, **special):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=1500,
            special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=special,
    )
