"""Figures of a heatmap head: what is compared with what, and for whom there are none."""

import json
import math
from dataclasses import replace

import pytest
import torch
from tiny_models import tiny

from artifactnet.config import HeatmapConfig
from artifactnet.evaluation.figures import Figures
from artifactnet.metrics.saliency import cc, fixations, kld, nss
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.types import Annotation, ArtifactNetError, Batch, ModelOutput, Record, TeacherBatch

SIZE = (16, 20)


@pytest.fixture(scope="module")
def model() -> ArtifactNet:
    return tiny("test_efficientnet", kwargs={}, heatmap=HeatmapConfig(head="decoder", width=8))


@pytest.fixture
def batch() -> Batch:
    """A soft heatmap, a mask alone, a clean fake, a real image, and a fake nobody looked at."""
    generator = torch.Generator().manual_seed(0)
    states = [Annotation.MASK] * 2 + [Annotation.CLEAN] * 2 + [Annotation.NONE]
    labels = [1, 1, 1, 0, 1]
    mask = torch.zeros(5, *SIZE, dtype=torch.uint8)
    mask[0, :4, :9], mask[1, 5:, 3:7] = 2, 130
    heatmap = torch.zeros(5, *SIZE)
    heatmap[0, :6, :11] = torch.rand(6, 11, generator=generator)
    names = ["real" if label == 0 else "sdxl" for label in labels]
    return Batch(
        image=torch.zeros(5, 3, *SIZE),
        label=torch.tensor(labels).float(),
        annotation=torch.tensor([int(state) for state in states]),
        mask=mask,
        heatmap=heatmap,
        score=torch.tensor([0.2, math.nan, 0.9, 1.0, 0.4]),
        record=[
            Record(str(i), labels[i], names[i], states[i], f"{i}.png") for i in range(len(labels))
        ],
    )


@pytest.fixture
def output() -> ModelOutput:
    generator = torch.Generator().manual_seed(1)
    return ModelOutput(
        logit=torch.randn(5, generator=generator),
        heatmap=torch.rand(5, *SIZE, generator=generator),
        score=torch.rand(5, generator=generator),
    )


def test_heatmap_goes_before_mask_and_unannotated_images_stay_out(
    model: ArtifactNet, batch: Batch, output: ModelOutput
) -> None:
    figures = Figures(model, ["sdxl"], alone=True)
    figures.update(batch, output)
    found = figures.compute()
    assert output.heatmap is not None
    target = torch.stack([batch.heatmap[0], (batch.mask[1] != 0).float()])
    p = output.heatmap[:2]
    for name, values in {
        "KLD": kld(p, target),
        "CC": cc(p, target),
        "NSS": nss(p, fixations(target)),
    }.items():
        assert found["saliency"][name] == pytest.approx(float(values.mean()), abs=1e-12), name
    error = [*((p - target) ** 2).mean((1, 2)), *(output.heatmap[2:4] ** 2).mean((1, 2))]
    assert found["saliency"]["MSE"] == pytest.approx(float(sum(error)) / 4, abs=1e-6)
    assert found["saliency"]["MSE GT=0"] == pytest.approx(float(sum(error[2:])) / 2, abs=1e-6)
    counted = [found["saliency"][f"{key}images"] for key in ("", "empty_", "unannotated_")]
    assert counted == [4, 2, 1]
    assert found["scores"]["images"] == 4
    assert found["teacher"] is None
    wrong = int(((output.heatmap[:3] > 0.5) & (batch.mask[:3] == 0)).sum())
    assert found["heatmap"]["fp"] == wrong  # of fakes, against masks
    json.dumps(found, allow_nan=False)


def test_teacher_is_compared_over_all_images(
    model: ArtifactNet, batch: Batch, output: ModelOutput
) -> None:
    maps = torch.rand(5, *SIZE, generator=torch.Generator().manual_seed(2))
    nothing = torch.full((5,), math.nan)
    batch.teacher = TeacherBatch(maps, torch.ones_like(maps), nothing, nothing)
    figures = Figures(model, ["sdxl"], alone=True)
    figures.update(batch, output)
    batch.teacher = None
    figures.update(batch, output)
    found = figures.compute()["teacher"]
    assert output.heatmap is not None
    assert found["CC"] == pytest.approx(float(cc(output.heatmap, maps).mean()), abs=1e-12)
    assert (found["images"], found["constant_images"]) == (5, 0)
    figures.reset()
    figures.update(batch, output)
    assert figures.compute()["teacher"] is None


def test_maps_are_compared_at_the_targets_size(
    model: ArtifactNet, batch: Batch, output: ModelOutput
) -> None:
    small = torch.rand(5, 4, 5, generator=torch.Generator().manual_seed(3))
    found = []
    for heatmap in (small, torch.nn.functional.interpolate(small[None], SIZE, mode="bilinear")[0]):
        output.heatmap = heatmap
        figures = Figures(model, ["sdxl"], alone=True)
        figures.update(batch, output)
        found.append(figures.compute()["saliency"])
    assert found[0] == found[1]


def test_what_is_not_known_or_not_predicted_is_none(
    model: ArtifactNet, batch: Batch, output: ModelOutput
) -> None:
    figures = Figures(tiny(), ["sdxl"], alone=True)
    figures.update(batch, output)
    found = figures.compute()
    assert (found["saliency"], found["scores"], found["teacher"]) == (None, None, None)
    assert found["heatmap"]["evaluated_images"] == 3
    batch.annotation[:] = int(Annotation.NONE)
    batch.score[:] = math.nan
    figures = Figures(model, ["sdxl"], alone=True)
    figures.update(batch, output)
    found = figures.compute()
    assert (found["saliency"], found["scores"], found["heatmap"]) == (None, None, None)
    assert found["heatmap_generators"] is None


def test_heatmaps_are_scored_per_generator_too(
    model: ArtifactNet, batch: Batch, output: ModelOutput
) -> None:
    batch.record[1] = replace(batch.record[1], generator="flux")
    figures = Figures(model, ["flux", "sdxl"], alone=True)
    figures.update(batch, output)
    found = figures.compute()
    assert list(found["heatmap_generators"]) == ["flux", "sdxl"]
    assert output.heatmap is not None
    called, true = output.heatmap > 0.5, batch.mask != 0
    for name, images in {"flux": [1], "sdxl": [0, 2]}.items():
        row = found["heatmap_generators"][name]
        assert row["tp"] == int((called & true)[images].sum())
        assert row["fn"] == int((~called & true)[images].sum())
        assert row["IoU"] == row["tp"] / int((called | true)[images].sum())
        assert row["evaluated_images"] == len(images)
    parts = found["heatmap_generators"].values()
    assert sum(row["fp"] for row in parts) == found["heatmap"]["fp"]


def test_a_diverged_head_is_an_error(model: ArtifactNet, batch: Batch, output: ModelOutput) -> None:
    assert output.score is not None
    output.score[0] = math.nan
    with pytest.raises(ArtifactNetError, match="predicted score is not finite"):
        Figures(model, ["sdxl"], alone=True).update(batch, output)
