"""Answers of models whose heatmap a head predicts."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from artifactnet.config import HeatmapConfig, ModelConfig
from artifactnet.data.transforms import Preprocess
from artifactnet.inference.folder import predict_to_folder
from artifactnet.inference.predictor import Predictor
from artifactnet.models.artifact_net import ArtifactNet


def predictor(head="decoder", size=(64, 64), resize="stretch", **heatmap):
    torch.manual_seed(0)
    options = {"width": 16, "tile": 32, "heads": 2, "max_tiles": 4, **heatmap}
    return Predictor(
        ArtifactNet(
            ModelConfig(
                backbone="test_convnext",
                image_size=list(size),
                resize=resize,
                pretrained="false",
                heatmap=HeatmapConfig(head=head, **options),
            )
        )
    )


def image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize("resize", ["stretch", "pad", "reflect"])
def test_maps_have_the_images_size_and_score_is_a_number(resize):
    ours = predictor(resize=resize)
    answer = ours.predict(image(50, 90))
    assert answer.heatmap.shape == answer.sigma.shape == (50, 90)
    assert 0 <= answer.heatmap.min() <= answer.heatmap.max() <= 1
    assert answer.sigma.min() > 0
    assert 0 <= answer.score <= 1
    assert answer.attention is None
    assert answer.to_json()["score"] == answer.score


def test_answers_are_the_models_own_output():
    ours = predictor()
    pixels = image(64, 64)
    model = ours.model.eval()
    tensor, geometry = Preprocess((64, 64), "stretch", model.mean, model.std).image(pixels)
    with torch.no_grad():
        output = model(tensor[None], heatmap=True)
    answer = ours.predict(pixels)
    assert answer.probability == pytest.approx(float(output.logit.sigmoid()), abs=1e-6)
    assert answer.score == pytest.approx(float(output.score), abs=1e-6)
    wanted = Preprocess((64, 64), "stretch", model.mean, model.std).restore(
        output.heatmap[0].numpy(), geometry
    )
    np.testing.assert_allclose(answer.heatmap, wanted, atol=1e-6)


def test_without_maps_the_verdict_is_the_same():
    ours, pixels = predictor(), image(40, 40)
    (bare,) = ours.predict_stream([_saved(pixels)], heatmaps=False)
    full = ours.predict(pixels)
    assert bare.heatmap is bare.sigma is None
    assert bare.score == pytest.approx(full.score, abs=1e-6)
    assert bare.probability == pytest.approx(full.probability, abs=1e-6)


def _saved(pixels):
    from io import BytesIO

    from artifactnet.inference.inputs import ImageInput

    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return ImageInput("x.png", buffer.getvalue())


def test_a_score_that_is_no_number_stops_no_folder(tmp_path, monkeypatch):
    ours = predictor()
    forward = type(ours.model).forward

    def broken(self, images, **options):
        output = forward(self, images, **options)
        output.score[1] = float("nan")  # while the logit is a number
        return output

    monkeypatch.setattr(type(ours.model), "forward", broken)
    for k in range(3):
        Image.fromarray(image(40, 60, k)).save(tmp_path / f"{k}.png")
    summary = predict_to_folder(ours, [tmp_path], tmp_path / "out")
    (failure,) = summary.failures
    assert failure.path == str(tmp_path / "1.png")
    assert failure.reason == "the model's answer is not a number (NaN)"
    lines = [json.loads(line) for line in summary.answers.read_text().splitlines()]
    assert [line["path"] for line in lines] == [str(tmp_path / f"{k}.png") for k in (0, 2)]


def test_tiles_follow_the_shape_of_each_image():
    ours = predictor("mapper")
    sizes = []
    ours.model.register_forward_pre_hook(lambda _, args: sizes.append(tuple(args[0].shape)))
    pictures = [image(30, 120), image(120, 30), image(64, 64), image(30, 121, seed=1)]
    answers = ours.predict(pictures)
    assert [a.heatmap.shape for a in answers] == [p.shape[:2] for p in pictures]
    assert sorted(sizes) == [(1, 3, 64, 64), (1, 3, 128, 32), (2, 3, 32, 128)]
    alone = [ours.predict(picture) for picture in pictures]
    for one, other in zip(answers, alone, strict=True):
        np.testing.assert_allclose(one.heatmap, other.heatmap, atol=1e-5)


def test_fixed_tiles():
    ours = predictor("mapper", adaptive=False)
    sizes = []
    ours.model.register_forward_pre_hook(lambda _, args: sizes.append(tuple(args[0].shape)))
    ours.predict([image(30, 120), image(120, 30)])
    assert sizes == [(2, 3, 64, 64)]


def test_a_folder_without_pictures_keeps_the_scores(tmp_path):
    Image.fromarray(image(40, 60)).save(tmp_path / "0.png")
    summary = predict_to_folder(predictor(), [tmp_path], tmp_path / "out", heatmaps=False)
    (line,) = map(json.loads, summary.answers.read_text().splitlines())
    assert line["heatmap"] is None
    assert line["score"] == pytest.approx(predictor().predict(image(40, 60)).score, abs=1e-6)
    assert not (tmp_path / "out" / "heatmaps").exists()
