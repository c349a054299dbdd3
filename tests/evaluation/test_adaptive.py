"""Figures of an adaptive mapper are those of what users get from `predict`."""

import numpy as np
import pytest
import torch
from tiny_models import tiny

from artifactnet.config import Config, HeatmapConfig
from artifactnet.data.datamodule import DataModule
from artifactnet.evaluation.evaluate import evaluate_model
from artifactnet.inference.predictor import Predictor
from artifactnet.inference.preprocessing import preprocess_of
from artifactnet.types import Annotation, Record, Sample

# each as large as the grid of tiles that suits it, so that nothing is resized
SIZES = ((32, 128), (64, 64), (32, 128), (96, 32), (64, 64), (128, 32))


class Photos:
    """Noise with a bright box that is annotated."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.records = [
            Record(str(k), 1, "g", Annotation.MASK, f"{k}.png") for k in range(len(SIZES))
        ]
        self.samples = []
        for record, (height, width) in zip(self.records, SIZES, strict=True):
            image = rng.integers(0, 150, (height, width, 3), dtype=np.uint8)
            mask = np.zeros((height, width), np.uint8)
            mask[height // 4 : height // 2, width // 4 : width // 2] = 4
            image[mask > 0] += 100
            self.samples.append(Sample(record, image, mask=mask, score=float(rng.random())))

    def load(self, index: int) -> Sample:
        return self.samples[index]


@pytest.fixture(scope="module")
def model():
    heatmap = HeatmapConfig(head="mapper", width=16, heads=2, tile=32, max_tiles=4)
    model = tiny(
        size=(64, 64), kwargs={"embed_dim": 24, "depth": 4, "num_heads": 2}, heatmap=heatmap
    )
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("maps.weight"):
                weight.mul_(30)
    return model


@pytest.mark.parametrize("workers", [0, 1])
def test_figures_are_those_of_the_predictor(model, workers):
    config = Config()
    config.data.demo_train = config.data.demo_val = config.data.demo_test = 1
    config.data.eval_batch_size, config.data.workers = 4, workers
    data = DataModule(config.data, preprocess_of(model), seed=0)
    photos = Photos()
    data.splits = {**data.splits, "test": photos}
    answers = Predictor(model).predict([sample.image for sample in photos.samples])
    model.config.threshold = float(np.median([answer.probability for answer in answers]))
    model.config.map_threshold = float(np.median(answers[0].heatmap))
    found = evaluate_model(model, data, config, epoch=None)
    errors, correlations, hits, missed = [], [], 0, 0
    for answer, sample in zip(answers, photos.samples, strict=True):
        truth = (sample.mask > 0).astype(np.float64)
        errors.append(((answer.heatmap - truth) ** 2).mean())
        correlations.append(np.corrcoef(answer.heatmap.ravel(), truth.ravel())[0, 1])
        above = answer.heatmap > model.config.map_threshold
        hits, missed = hits + int((above & (truth > 0)).sum()), missed + int((truth > above).sum())
    assert found["saliency"]["MSE"] == pytest.approx(np.mean(errors), abs=1e-6)
    assert found["saliency"]["CC"] == pytest.approx(np.mean(correlations), abs=1e-5)
    assert found["heatmap"]["tp"] == pytest.approx(hits, abs=3)  # pixels right at the threshold
    assert found["heatmap"]["fn"] == pytest.approx(missed, abs=3)
    scores = [answer.score for answer in answers], [sample.score for sample in photos.samples]
    assert found["scores"]["PLCC"] == pytest.approx(np.corrcoef(*scores)[0, 1], abs=1e-4)
    called = sum(answer.probability >= model.config.threshold for answer in answers)
    assert found["authenticity"]["all"]["tp"] == called
    assert found["images"] == len(SIZES)
