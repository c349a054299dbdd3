"""When alignment takes part in a step, in which form, and what stops it before the first."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from artifactnet.config import Config
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.training.module import DetectorModule
from artifactnet.training.trainer import train_detector
from artifactnet.types import ArtifactNetError

Tiny = Callable[..., Config]


class Linear(nn.Module):
    """Linear attention: no softmax."""

    def forward(self, x: torch.Tensor, **_: Any) -> torch.Tensor:
        return x @ (x.mT @ x) / x.shape[1]


def column(folder: Path, name: str) -> list[float]:
    with open(folder / "logs" / "version_0" / "metrics.csv", newline="") as handle:
        return [float(row[name]) for row in csv.DictReader(handle) if row.get(name)]


@pytest.mark.parametrize(("accumulate", "expected"), [(1, "10101010"), (2, "11001100")])
def test_every_other_step(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, accumulate: int, expected: str
) -> None:
    """Counted in optimizer steps, so all parts of a step agree; twice as strong when it is on."""
    aligned: list[bool] = []
    losses = DetectorModule.losses

    def watched(self: DetectorModule, batch: Any, **options: Any) -> Any:
        parts, output = losses(self, batch, **options)
        if self.training:
            aligned.append(options["create_graph"])
            assert options["attention"] == options["create_graph"] == ("alignment" in parts)
            extra = 2 * 3.0 * parts["alignment"] if "alignment" in parts else 0
            torch.testing.assert_close(parts["loss"], parts["bce"] + extra)
        return parts, output

    monkeypatch.setattr(DetectorModule, "losses", watched)
    options = ("loss.alignment.every=2", "loss.alignment.weight=3", "train.epochs=1")
    config = tiny(*options, "data.batch_size=2", f"train.accumulate={accumulate}")
    result = train_detector(config)
    assert "".join(str(int(each)) for each in aligned) == expected
    assert all(value > 0 for value in column(result.run_dir, "train/alignment_step"))
    assert all(value > 0 for value in column(result.run_dir, "val/alignment"))


def test_attention_that_cannot_be_aligned_stops_before_the_first_step(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = ArtifactNet.__init__

    def linear(self: ArtifactNet, *args: Any, **kwargs: Any) -> None:
        build(self, *args, **kwargs)
        self.backbone.net.blocks[1].attn = Linear()

    steps: list[int] = []
    monkeypatch.setattr(ArtifactNet, "__init__", linear)
    monkeypatch.setattr(DetectorModule, "on_before_optimizer_step", lambda *_: steps.append(1))
    with pytest.raises(ArtifactNetError, match=r"block 1 \(Linear\) does not use"):
        train_detector(tiny())
    assert not steps


@pytest.mark.slow
@pytest.mark.parametrize("method", ["rollout", "gradient_rollout"])
def test_fifty_steps_in_both_forms_agree(tiny: Tiny, method: str) -> None:
    curves = []
    for form in ("auto", "stored"):
        options = [f"model.attention.form={form}", f"model.attention.method={method}"]
        options += ["model.attention.second_order=false", f"name={form}", "train.max_steps=50"]
        options += ["train.epochs=25", "loss.alignment.weight=10", "train.eval_every=25"]
        options += ["data.demo_photos=classic"]
        curves.append(column(train_detector(tiny(*options)).run_dir, "train/loss_step"))
    assert len(curves[0]) == 50
    assert curves[0][-1] < curves[0][0]  # it learns
    assert curves[0] == pytest.approx(curves[1], rel=1e-4)
