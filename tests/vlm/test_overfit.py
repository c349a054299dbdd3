"""The whole of HEIE learns eight images by heart: where, how much, and in which form."""

import copy
import math

import pytest
import tiny_mllm
import torch

from artifactnet.config import DataConfig, HeatmapLossConfig
from artifactnet.vlm.heie.data import TextData, collate
from artifactnet.vlm.heie.model import build_heie, generate_texts
from artifactnet.vlm.heie.module import HeieModule
from artifactnet.vlm.text.chain_of_thought import Style, parse_cot

STEPS, RATE = 150, 5e-3


@pytest.mark.slow
def test_eight_images_are_learnt(tiny_config, tmp_path):
    config = copy.deepcopy(tiny_config)
    config.mllm.base = str(tiny_mllm.save_base(tmp_path, hidden=48))
    config.mllm.lora_rank = 0
    config.mllm.max_new_tokens = 150
    config.model.heatmap.width = 32
    config.model.heatmap.max_tiles = 2
    config.loss.bce, config.loss.text = 0.0, 1.0
    config.loss.heatmap = HeatmapLossConfig(focal=20.0, gamma=1.0, score=1.0)
    config.data = DataConfig(
        name="demo", demo_train=4, demo_val=1, demo_test=1, demo_size=56, batch_size=8
    )
    torch.manual_seed(0)
    model = build_heie(config)
    data = TextData(config, model.processing)
    examples = [item for batch in data.example_loader("train") for item in batch]
    assert len(examples) == 8
    batch = collate(examples, model.processing)
    module = HeieModule(model, config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    focal = []
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = (
                RATE * min(1, (step + 1) / 10) * (1 + math.cos(math.pi * step / STEPS)) / 2
            )
        parts, _ = module.losses(batch)
        focal.append(parts["heatmap_focal"].item())
        optimizer.zero_grad()
        parts["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert focal[-1] < focal[0] / 5, (focal[0], focal[-1])
    # another loss than the one it learnt from, and the score
    with torch.no_grad():
        output = model.eval()(batch.inputs)
    for target, found in zip(batch.target, output.heatmaps, strict=True):
        small = torch.nn.functional.adaptive_avg_pool2d(target[None], found.heatmap.shape[1:])
        assert float((found.heatmap - small).abs().mean()) < 0.1
    written = generate_texts(
        model, [example.image for example in examples], [example.question for example in examples]
    )
    for text in written:
        assert parse_cot(text).style == Style()  # the exact form, with nothing repaired
    right = sum(text == example.text for text, example in zip(written, examples, strict=True))
    assert right >= 7, f"{right} of 8 texts are those that were learnt"
