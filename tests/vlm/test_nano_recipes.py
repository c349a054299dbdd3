"""The recipes of HEIE on a laptop, on a tiny base: each goes on from the one before."""

import json

import numpy as np
import pytest
from tiny_mllm import save_base

pytest.importorskip("transformers")

from artifactnet.config import load
from artifactnet.inference.load import load_model
from artifactnet.vlm.heie.evaluate import evaluate_heie
from artifactnet.vlm.heie.saving import FACTS
from artifactnet.vlm.heie.trainer import train_heie
from artifactnet.vlm.merge import merge_run

TINY = (
    *("model.image_size=[56,56]", "model.heatmap.tile=56", "mllm.max_new_tokens=12"),
    *("data.demo_size=56", "data.demo_train=4", "data.demo_val=1", "data.demo_test=2"),
    "train.max_steps=1",
)


def test_the_stages_in_their_order(tmp_path):
    out = f"out={tmp_path}"
    tiny_base = save_base(tmp_path / "base", blocks=4)
    first = train_heie(load("heie_nano_projector", [*TINY, out, f"mllm.base={tiny_base}"]))
    facts = json.loads((first.run_dir / FACTS).read_text())
    assert facts["mllm"]["lora_rank"] == 0
    short = train_heie(load("heie_nano_short", [*TINY, out, f"mllm.base={first.run_dir / 'base'}"]))
    summary = json.loads((short.run_dir / "data.json").read_text())
    assert summary["texts"]["train"] == {"written": 0, "made": 8, "none": 0}
    assert "UNTRAINED" in short.results["notices"][0]
    own = short.run_dir / "results.json"
    assert short.results["text"] == "short"
    assert short.results["saliency"] is None
    assert short.results["explanations"]["facts"]["texts"] == 4
    own.unlink()
    assert evaluate_heie(short.run_dir)["text"] == "short"
    assert own.is_file()
    base = merge_run(short.run_dir, tmp_path / "nano_short")
    second = train_heie(load("heie_nano", [*TINY, out, f"mllm.base={base}"]))
    assert second.results["explanations"]["facts"]["texts"] == 4
    model = load_model(second.run_dir, text="template")
    answer = model.predict(np.full((70, 56, 3), 90, np.uint8))
    assert answer.heatmap.shape == (70, 56)
