"""FakeXplainer learns: GRPO lifts the reward of a tiny model, and SFT learns images by heart."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

tiny_mllm = pytest.importorskip("tiny_mllm")
pytest.importorskip("trl", reason="needs the extra mllm-train")

import tiny_fakexplainer  # noqa: E402

from artifactnet.vlm.fakexplainer.trainer import train_fakexplainer  # noqa: E402


def plain_images(folder: Path, shades: tuple[int, int]) -> Path:
    """A manifest of one-coloured images: photographs of one shade of gray, fakes of another."""
    folder.mkdir()
    lines = []
    for label, shade in enumerate(shades):
        for number in range(9):
            name = f"{number}_{label}.png"
            side = 57 if number == 8 else 56  # not the same file as those of the other split
            Image.new("RGB", (side, side), (shade,) * 3).save(folder / name)
            split = "test" if number == 8 else "train"
            line = {"image": name, "uid": str(number), "label": label, "annotation": "clean"}
            lines.append(json.dumps(line | {"split": split}) + "\n")
    path = folder / "images.jsonl"
    path.write_text("".join(lines))
    return path


@pytest.mark.slow
def test_grpo_learns_verdicts_from_rewards_alone(tmp_path):
    base = tiny_mllm.save_qwen(tmp_path / "base", corpus=tiny_fakexplainer.corpus("qwen2_5_vl"))
    gray = plain_images(tmp_path / "gray", (128, 129))
    contrast = plain_images(tmp_path / "contrast", (0, 255))
    common = (
        *("mllm.drop=label", "mllm.lora_rank=0", "mllm.max_new_tokens=20", "data.check=off"),
        *("mllm.save_every=1000", "train.accumulate=1"),
    )
    # what looks alike teaches the form of a verdict, and nothing about which is right
    form = ("train.max_steps=80", "data.batch_size=8", "optim.lr=1e-2")
    first = train_fakexplainer(tiny_fakexplainer.config(base, gray, tmp_path, *common, *form))
    rewards = (
        *("train.max_steps=50", "data.batch_size=32", "optim.lr=3e-3", "optim.schedule=constant"),
        *("mllm.grpo.generations=8", "mllm.grpo.beta=0", f"mllm.adapters={first.run_dir}"),
    )
    second = train_fakexplainer(
        tiny_fakexplainer.config(base, contrast, tmp_path, *common, *rewards, stage="grpo")
    )
    lines = [json.loads(line) for line in (second.run_dir / "logs" / "metrics.jsonl").open()]
    label = [line["reward_label"] for line in lines if "reward_label" in line]
    start, end = np.mean(label[:10]), np.mean(label[-10:])
    assert 0.3 < start < 0.7  # it guessed
    assert end > start + 0.2
