"""Adapters merged into one checkpoint answer as before; what has none is refused."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_mllm
import torch

pytest.importorskip("peft")

from transformers import AutoModelForImageTextToText, AutoProcessor

from artifactnet.cli import main
from artifactnet.config import MllmConfig
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.fakexplainer import saving as fakexplainer
from artifactnet.vlm.heie import saving as heie
from artifactnet.vlm.heie.model import build_heie
from artifactnet.vlm.image_chat import load_image_chat
from artifactnet.vlm.merge import merge_run
from artifactnet.vlm.text.template import TEMPLATE
from artifactnet.vlm.tuned import build_tuned
from artifactnet.vlm.tuned_chat import marks_of, save_tuned_chat

IMAGE = np.random.default_rng(2).integers(0, 256, (56, 56, 3), dtype=np.uint8)
TUNED = MllmConfig(lora_rank=4, lora_dropout=0.0, gradient_checkpointing=False)


def perturb(model) -> None:
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.05)


def logits(model, inputs) -> torch.Tensor:
    with torch.no_grad():
        found = model.eval()(
            input_ids=inputs.input_ids,
            attention_mask=inputs.attention_mask,
            pixel_values=inputs.pixel_values,
        )
    return found.logits


def opened(folder: Path):
    model = AutoModelForImageTextToText.from_pretrained(folder)
    return model, AutoProcessor.from_pretrained(folder)


@pytest.mark.parametrize("tune", ["all", "language", "language_projector"])
def test_heie_without_its_mapper(tiny_config, tmp_path, tune):
    config = copy.deepcopy(tiny_config)
    config.mllm.tune = tune
    model = build_heie(config).eval()
    inputs = model.processing.encode([IMAGE], [TEMPLATE])
    untrained = logits(model.causal, inputs)
    perturb(model)
    heie.save_heie(model, tmp_path / "run", {})
    merged, processor = opened(merge_run(tmp_path / "run", tmp_path / "out"))
    assert not [name for name, _ in merged.named_parameters() if "lora" in name]
    assert torch.allclose(logits(merged, inputs), logits(model.causal, inputs), atol=1e-4)
    assert not torch.allclose(logits(merged, inputs), untrained, atol=1e-2)
    ids = processor.tokenizer.convert_tokens_to_ids(["[MAP]", "[SCORE]"])
    assert ids == [model.processing.map_id, model.processing.score_id]
    config.mllm.base = str(tmp_path / "out")  # another HEIE starts from what this one learned
    again = build_heie(config).eval()
    assert torch.allclose(logits(again.causal, inputs), logits(merged, inputs), atol=1e-4)


def test_fakexplainer_by_command(tiny_base, tmp_path, capsys):
    tuned = fakexplainer.build_fakexplainer(
        replace(TUNED, task="fakexplainer", base=str(tiny_base)), "cpu"
    )
    perturb(tuned.model)
    fakexplainer.save_fakexplainer(tuned, tmp_path / "run", {})
    assert main(["merge-adapters", str(tmp_path / "run"), str(tmp_path / "new" / "out")]) == 0
    assert f"mllm.base={tmp_path / 'new' / 'out'}" in capsys.readouterr().out
    merged, processor = opened(tmp_path / "new" / "out")
    inputs = tuned.processing.encode([IMAGE])
    assert torch.allclose(logits(merged, inputs), logits(tuned.model, inputs), atol=1e-4)
    assert processor.chat_template == tuned.processing.processor.chat_template


def test_data_type_of_the_base_and_a_model_of_qreal(tmp_path):
    base = tiny_mllm.save_qwen(tmp_path / "base")
    model = AutoModelForImageTextToText.from_pretrained(base)
    model.to(torch.bfloat16).save_pretrained(base)
    mllm = replace(TUNED, task="qreal_object", base=str(base))
    chat = load_image_chat(mllm, marks_of(mllm.task))
    tuned, mllm = build_tuned(mllm, len(chat.processor.tokenizer), "cpu")
    perturb(tuned)
    save_tuned_chat(tuned, chat, mllm, tmp_path / "run", {})
    merged, _ = opened(merge_run(tmp_path / "run", tmp_path / "out"))
    assert {p.dtype for p in merged.parameters()} == {torch.bfloat16}


def test_what_cannot_be_merged(tiny_config, built_heie, tmp_path):
    heie.save_heie(built_heie, tmp_path / "run", {})
    with pytest.raises(ArtifactNetError, match="run: exists already; name a new folder"):
        merge_run(tmp_path / "run", tmp_path / "run")
    with pytest.raises(ArtifactNetError, match="none: no finished run .* qreal.json"):
        merge_run(tmp_path / "none", tmp_path / "out")
    config = copy.deepcopy(tiny_config)
    config.mllm.lora_rank = 0
    heie.save_heie(build_heie(config), tmp_path / "whole", {})
    with pytest.raises(ArtifactNetError, match="no adapters .*; use .*whole/base"):
        merge_run(tmp_path / "whole", tmp_path / "out")
    facts = tmp_path / "run" / heie.FACTS
    facts.write_text(facts.read_text().replace('"quantize": "none"', '"quantize": "4bit"'))
    with pytest.raises(ArtifactNetError, match="mllm.quantize=4bit; adapters are not merged"):
        merge_run(tmp_path / "run", tmp_path / "out")
    assert not (tmp_path / "out").exists()
