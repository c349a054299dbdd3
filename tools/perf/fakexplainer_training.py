"""Memory and speed of FakeXplainer's two stages, on a Qwen2.5-VL of random weights."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from artifactnet.api import train
from artifactnet.cli.arguments import add_value, positive
from artifactnet.config import load
from artifactnet.data.images import encode_png
from artifactnet.types import ArtifactNetError
from perf.harness import check_out, make_report, write_report

# of the released checkpoints: hidden size, layers, heads, key-value heads, width of the MLP,
# vocabulary, tied output layer, and of the vision encoder: layers, hidden size, width of the MLP
SHAPES = {
    "tiny": (64, 2, 2, 2, 128, 1024, False, 2, 64, 128),
    "3b": (2048, 36, 16, 2, 11008, 151936, True, 32, 1280, 3420),
    "7b": (3584, 28, 28, 4, 18944, 152064, False, 32, 1280, 3420),
}
STAGES = ("sft", "grpo")
BASELINE = "sft"
_CORPUS = ('{"bbox_2d": [98, 49, 295, 197], "label": "left hand has six fingers"} real generated',)
_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the benchmark."""
    option = parser.add_argument
    option("--shape", choices=SHAPES, default="tiny", help="7b needs a GPU of 80 GB (tiny)")
    add_value(parser, "--steps", positive, 4, "optimizer steps of each stage (4)")
    add_value(parser, "--size", positive, 512, "side of the images (512)", metavar="PIXELS")
    add_value(parser, "--tokens", positive, 1024, "longest answer (1024)")
    option("--work", metavar="DIR", help="keeps the random base (a temporary folder)")
    option("--out", metavar="JSON", help="file for the report")


def run(args: argparse.Namespace) -> int:
    """Run the benchmark; returns the exit code."""
    check_out(args.out)
    if args.shape != "tiny" and not torch.cuda.is_available():
        raise ArtifactNetError(f"--shape {args.shape} needs a GPU; tiny runs anywhere")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.work or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        base = save_random_base(folder / f"qwen2_5_vl_{args.shape}", args.shape)
        manifest = _save_images(folder / "images", args.size, 4 * args.steps)
        stages = {}
        for stage in STAGES:
            stages[stage] = _measure(stage, base, manifest, folder / "runs", args)
            facts = "  ".join(f"{key} {value}" for key, value in stages[stage].items())
            print(f"{stage:<5} {facts}", flush=True)
    setting = {name: getattr(args, name) for name in ("shape", "steps", "size", "tokens")}
    write_report(args.out, make_report("fakexplainer-training", setting, BASELINE, stages=stages))
    return 0


def _measure(
    stage: str, base: Path, manifest: Path, out: Path, args: argparse.Namespace
) -> dict[str, Any]:
    """One training by the paper's recipe: seconds a step, tokens, peak memory."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    overrides = [
        *(f"mllm.base={base}", f"data.root={manifest}", f"out={out}", f"name={stage}"),
        *("overwrite=true", "train.log_every=1", "train.tensorboard=false", "data.workers=0"),
        *(f"train.max_steps={args.steps}", f"mllm.max_new_tokens={args.tokens}"),
        f"mllm.save_every={args.steps}",
        "train.precision=auto",
    ]
    if stage == "grpo":
        overrides.append(f"mllm.adapters={out / 'sft'}")
    started = time.perf_counter()
    result = train(load(f"paper/fakexplainer_{stage}", overrides))
    lines = (result.run_dir / "logs" / "metrics.jsonl").read_text().splitlines()
    steps = [one for one in map(json.loads, lines) if "loss" in one]
    facts: dict[str, Any] = {
        "seconds": round(result.results["training"]["seconds"] / len(steps), 3),
        "with_loading_and_evaluation": round(time.perf_counter() - started, 1),
    }
    tokens = steps[-1]["num_tokens"]  # of prompts and answers, counted from the first step
    facts["tokens_per_second"] = round(tokens / result.results["training"]["seconds"], 1)
    if stage == "grpo":
        sampled = [one["completions/mean_length"] for one in steps]
        facts["answer_tokens"] = round(float(np.mean(sampled)), 1)
    if torch.cuda.is_available():
        facts["peak_gigabytes"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
    return facts


def save_random_base(folder: Path, shape: str) -> Path:
    """Write a Qwen2.5-VL of a released shape with random weights, unless it is there."""
    from transformers import (
        PreTrainedTokenizerFast,
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    if (folder / "config.json").is_file():
        return folder
    hidden, layers, heads, groups, mlp, words, tied, depth, vision, vision_mlp = SHAPES[shape]
    special = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
    special |= {"vision_start_token": "<|vision_start|>", "vision_end_token": "<|vision_end|>"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_byte_tokenizer(),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=special,
    )
    size = {"shortest_edge": 3136, "longest_edge": 12845056}
    processor = Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(size=size),
        tokenizer,
        Qwen2VLVideoProcessor(size=size),
        chat_template=_CHAT,
    )
    ids: dict[str, Any] = {
        f"{key}_id": tokenizer.convert_tokens_to_ids(token) for key, token in special.items()
    }
    share = hidden // heads // 8  # multimodal rotary embedding: 16, 24, 24 of 64 when released
    config = Qwen2_5_VLConfig(
        vision_config={
            "depth": depth,
            "hidden_size": vision,
            "num_heads": 16 if depth > 2 else 2,
            "intermediate_size": vision_mlp,
            "out_hidden_size": hidden,
            "fullatt_block_indexes": list(range(depth // 4 - 1, depth, depth // 4))
            if depth > 4
            else [depth - 1],
            "window_size": 112,
        },
        text_config={
            "hidden_size": hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": groups,
            "intermediate_size": mlp,
            "vocab_size": words,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1000000.0,
                "mrope_section": [
                    hidden // heads // 2 - 2 * (3 * share // 2),
                    3 * share // 2,
                    3 * share // 2,
                ],
            },
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        tie_word_embeddings=tied,
        **ids,
    )
    torch.manual_seed(0)
    dtype = torch.bfloat16 if shape != "tiny" else torch.float32
    device = "cuda" if torch.cuda.is_available() else "cpu"
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = Qwen2_5_VLForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(default)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _byte_tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.train_from_iterator(
        _CORPUS,
        trainers.BpeTrainer(
            vocab_size=600,
            special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return inner


def _save_images(folder: Path, size: int, count: int) -> Path:
    """Noise, half of it called generated with five regions; one more pair for the test split."""
    folder.mkdir(parents=True, exist_ok=True)
    random, lines = np.random.default_rng(0), []
    for number in range(count + 2):
        label = number % 2
        name = f"{number}.png"
        (folder / name).write_bytes(encode_png(random.integers(0, 256, (size, size, 3), np.uint8)))
        line: dict[str, Any] = {"image": name, "uid": name, "label": label, "annotation": "clean"}
        line["split"] = "train" if number < count else "test"
        if label:
            boxes: Sequence[int] = range(0, size // 2, size // 10)
            line["annotation"] = "mask"
            line["regions"] = [
                {"bbox": [k, k, k + size // 3, k + size // 4], "caption": "hand with six fingers"}
                for k in boxes
            ][:5]
        lines.append(json.dumps(line) + "\n")
    path = folder / "images.jsonl"
    path.write_text("".join(lines))
    return path
