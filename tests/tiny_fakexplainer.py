"""A tiny data set with boxes, captions and tags, and runs of FakeXplainer on it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import tiny_mllm
from PIL import Image

from artifactnet.config import Config, load
from artifactnet.vlm.fakexplainer.prompts import prompt_messages


def corpus(family: str, *more: str) -> tuple[str, ...]:
    """Texts of the task, whose words become tokens of a tiny tokenizer: prompts stay short."""
    messages = prompt_messages("user", family)
    prompt = " ".join(p["text"] for m in messages for p in m["content"] if "text" in p)
    return (*tiny_mllm.GRAMMAR, *more, *[prompt] * 2)  # twice: a word that occurs once stays bytes


FAST = (
    "train.device=cpu",
    "train.precision=32",
    "train.tensorboard=false",
    "train.log_every=1",
    "mllm.lora_rank=4",
    "mllm.gradient_checkpointing=false",
    "mllm.max_new_tokens=160",
    "mllm.save_every=1",
    "data.workers=0",
    "data.check=counts",
)


def save_images(folder: Path, count: int = 4) -> Path:
    """``count`` photographs (dark) and as many fakes (a bright rectangle) in each split.

    Returns the manifest.
    """
    random = np.random.default_rng(0)
    lines = []
    for split in ("train", "val", "test"):
        for number in range(count if split == "train" else 2):
            for label in (0, 1):
                width, height = (84, 112) if number % 2 else (96, 80)
                pixels = random.integers(0, 60, (height, width, 3), np.uint8)
                name = f"{split}_{number}_{label}.png"
                line = {
                    "image": name,
                    "uid": f"{split}_{number}",
                    "label": label,
                    "split": split,
                    "annotation": "clean",
                }
                if label:
                    box = [10, 10, 50 + number, 40]
                    pixels[10:40, 10 : 50 + number] = 230
                    regions = [{"bbox": box, "caption": "hand with six fingers"}]
                    tags = ["wrong texture"] if number % 2 else []
                    line |= {"annotation": "mask", "regions": regions, "tags": tags}
                    line |= {"generator": "paint" if number % 2 else "draw"}
                Image.fromarray(pixels).save(folder / name)
                lines.append(json.dumps(line))
    path = folder / "images.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def config(base: Path, manifest: Path, out: Path, *overrides: str, stage: str = "sft") -> Config:
    """A run of three steps of a stage."""
    own = [f"mllm.base={base}", f"data.root={manifest}", f"out={out}"]
    steps = "train.accumulate=1" if stage == "sft" else "train.accumulate=2"
    few = ["train.max_steps=3", steps]
    if stage == "grpo":
        few += ["mllm.grpo.generations=2"]
    recipe = f"paper/fakexplainer_{stage}"
    return load(recipe, [*own, *FAST, *few, f"name={stage}", *overrides])
