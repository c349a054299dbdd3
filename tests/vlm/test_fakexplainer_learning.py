"""FakeXplainer learns: GRPO lifts the reward of a tiny model, and SFT learns images by heart."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

tiny_mllm = pytest.importorskip("tiny_mllm")
pytest.importorskip("trl", reason="needs the extra mllm-train")

import tiny_fakexplainer  # noqa: E402

import artifactnet  # noqa: E402
from artifactnet.vlm.fakexplainer.grammar import is_strict  # noqa: E402
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


@pytest.mark.slow
def test_sft_learns_sixteen_photographs_by_heart(tmp_path):
    """Half of them are MI-GAN's edits, whose masks become boxes; all as small as the model."""
    photographs = Path(artifactnet.__file__).parent / "photographs" / "train"
    lines = []
    for number, path in enumerate(sorted((photographs / "fake").iterdir())[:16]):
        fake = number % 2 == 0
        with Image.open(path if fake else photographs / "real" / path.name) as image:
            size = (image.width * 160 // max(image.size), image.height * 160 // max(image.size))
            image.convert("RGB").resize(size).save(tmp_path / f"{path.stem}.png")
        line = {"image": f"{path.stem}.png", "uid": path.stem, "label": int(fake)}
        line |= {"annotation": "clean", "split": "train"}
        if fake:
            with Image.open(photographs / "masks" / f"{path.stem}.png") as image:
                mask = np.asarray(image.resize(size, Image.Resampling.NEAREST)) > 127
            Image.fromarray(mask.astype(np.uint8)).save(tmp_path / f"{path.stem}_mask.png")
            line |= {"annotation": "mask", "mask": f"{path.stem}_mask.png"}
        lines.append(line)
    # evaluated on what it has learned: the same pictures under other names
    for number, line in enumerate(lines[:]):
        for split in ("test", "val") if number < 2 else ("test",):
            copy = f"{split}_{line['image']}"
            with Image.open(tmp_path / line["image"]) as image:
                image.save(tmp_path / copy, compress_level=1 if split == "test" else 2)
            lines.append(line | {"image": copy, "uid": f"{split} {line['uid']}", "split": split})
    manifest = tmp_path / "images.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    boxes = [f" [{k}, {k}, {k}, {k}]" for k in range(120)]  # each number is one token
    corpus = tiny_fakexplainer.corpus("qwen2_5_vl", *boxes)
    base = tiny_mllm.save_qwen(tmp_path / "base", hidden=64, corpus=corpus)
    settings = (
        *("mllm.lora_rank=0", "mllm.max_new_tokens=300", "mllm.save_every=1000"),
        *("train.max_steps=150", "train.accumulate=1", "data.batch_size=16", "optim.lr=4e-3"),
        *("data.check=off", "data.val_fraction=0.01", "train.eval_every=1000"),
    )
    run = train_fakexplainer(tiny_fakexplainer.config(base, manifest, tmp_path / "out", *settings))
    answers = [json.loads(line) for line in (run.run_dir / "answers.jsonl").open()]
    assert len(answers) == 16
    strict = [is_strict(a["answer"], tuple(a["input_size"])) for a in answers]
    assert sum(strict) >= 15
    assert run.results["fakexplainer"]["all"]["accuracy"] >= 15 / 16
    assert run.results["fakexplainer"]["all"]["iou"] >= 0.8
