"""Re-encodings of an image: predicted as if they were images, reported with the image."""

import io
import json

import numpy as np
import pytest
from canned_predictor import CannedPredictor
from PIL import Image
from tiny_exports import student
from tiny_models import tiny

from artifactnet.cli import main
from artifactnet.config import SegmentationConfig
from artifactnet.data import damage
from artifactnet.data.geometry import resample
from artifactnet.inference.base import BasePredictor
from artifactnet.inference.folder import predict_to_folder
from artifactnet.inference.inputs import Failure
from artifactnet.inference.predictor import Predictor
from artifactnet.inference.stability import AS_IS, VARIANTS
from artifactnet.types import ArtifactNetError, Prediction


def noise(height=48, width=64, strength=60, seed=0):
    """Gray with noise, which JPEG and resizing take away."""
    rng = np.random.default_rng(seed)
    return (128 + rng.normal(0, strength / 2, (height, width, 3))).clip(0, 255).astype(np.uint8)


def jpeg(pixels, quality):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def grain(pixels):
    """Mean difference of neighbours, in [0, 1]."""
    return float(np.abs(np.diff(pixels.astype(float), axis=1)).mean()) / 255


class GrainPredictor(BasePredictor):
    """Calls fine grain fake; refuses images below 16 pixels, and white ones have no answer."""

    threshold = 0.08
    warnings = ("grain alone decides",)

    def __init__(self):
        self.batches = []

    def _prepare(self, image, options):
        if min(image.pixels.shape[:2]) < 16:
            raise ArtifactNetError(f"{image.name}: too small")
        return image

    def _answer_batch(self, batch, options):
        self.batches.append((len(batch), options.heatmaps))
        for image in batch:
            if image.pixels.min() == 255:
                yield Failure(image.name, "the model's answer is not a number (NaN)")
                continue
            value = grain(image.pixels)
            heatmap = np.zeros(image.pixels.shape[:2], np.float32) if options.heatmaps else None
            fake = value >= self.threshold
            yield Prediction(value, fake, heatmap, path=image.path, warnings=self.warnings)


# --- what is predicted --------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(48, 64), (33, 200), (17, 18)])
def test_probabilities_are_those_of_images_saved_by_hand(size):
    pixels = noise(*size)
    (found,) = GrainPredictor().predict([pixels], stability=True)
    small = resample(pixels, (round(size[0] * 0.9), round(size[1] * 0.9)))
    by_hand = {AS_IS: pixels, **{f"JPEG {q}": jpeg(pixels, q) for q in (92, 75, 60)}}
    expected = {name: grain(image) for name, image in by_hand.items()}
    if min(small.shape[:2]) >= 16:
        expected["resized to 90 %"] = grain(small)
    assert found.stability.probabilities == expected
    assert found.stability.lowest == min(expected.values())
    assert found.stability.highest == max(expected.values())
    assert found.stability.spread == max(expected.values()) - min(expected.values())
    assert found.probability == expected[AS_IS]
    assert len(VARIANTS) == 4


@pytest.mark.parametrize("strength", [2, 8, 26, 60, 120])
def test_a_verdict_that_flips_is_called_unstable(strength):
    predictor = GrainPredictor()
    found = predictor.predict(noise(strength=strength), stability=True)
    values = found.stability.probabilities
    flips = len({value >= predictor.threshold for value in values.values()}) == 2
    assert found.stability.unstable == flips
    texts = [text for text in found.warnings if text.startswith("unstable")]
    assert len(texts) == flips
    for text in texts:  # names both ends
        for name in (min(values, key=values.get), max(values, key=values.get)):
            assert f"{values[name]:.3f}, {name}" in text
    assert found.warnings[0] == "grain alone decides"


def test_both_outcomes_were_tried():
    found = [GrainPredictor().predict(noise(strength=s), stability=True) for s in (2, 60, 120)]
    assert {one.stability.unstable for one in found} == {True, False}


def test_without_it_nothing_more_is_predicted():
    predictor = GrainPredictor()
    found = predictor.predict(noise())
    assert found.stability is None
    assert found.to_json()["stability"] is None
    assert predictor.batches == [(1, True)]
    assert found.warnings == predictor.warnings


def test_a_reencoding_without_answer_is_left_out_with_its_reason():
    found = GrainPredictor().predict(noise(17, 64), stability=True)
    assert set(found.stability.probabilities) == {AS_IS, "JPEG 92", "JPEG 75", "JPEG 60"}
    (text,) = [text for text in found.warnings if "resized" in text]
    assert "too small" in text


def test_a_side_that_no_jpeg_can_have(monkeypatch):
    monkeypatch.setattr(damage, "JPEG_SIDE", 60)
    found = GrainPredictor().predict(noise(48, 64), stability=True)
    assert set(found.stability.probabilities) == {AS_IS, "resized to 90 %"}
    assert sum("64x48 pixels are more than a JPEG" in text for text in found.warnings) == 3


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 0), (2, 3), (5, 1), (64, 0)])
def test_batches_order_and_failures(batch_size, workers, tmp_path):
    predictor = GrainPredictor()
    alone = [predictor.predict(noise(seed=k), stability=True) for k in range(4)]
    broken = tmp_path / "b.jpg"
    broken.write_bytes(b"no image")
    white = np.full((48, 64, 3), 255, np.uint8)
    predictor.batches.clear()
    images = [noise(seed=0), str(broken), noise(seed=1), noise(4, 4), noise(seed=2), white]
    images.append(noise(seed=3))
    found = list(predictor.predict_stream(images, batch_size, workers, stability=True))
    assert [k for k, one in enumerate(found) if isinstance(one, Failure)] == [1, 3, 5]
    good = [one for one in found if isinstance(one, Prediction)]
    for one, expected in zip(good, alone, strict=True):
        assert one.stability == expected.stability
        assert one.warnings == expected.warnings
        assert one.heatmap is not None
    assert all(size <= batch_size for size, _ in predictor.batches)
    assert sum(size for size, heatmaps in predictor.batches if not heatmaps) == 5 * len(VARIANTS)


def test_only_broken_images():
    assert [type(one) for one in CannedPredictor().predict_stream([b"", b"x"], stability=True)] == [
        Failure,
        Failure,
    ]


# --- real models --------------------------------------------------------------------------------


def models():
    segmentation = SegmentationConfig(head="upernet", channels=8, auxiliary_channels=8)
    kwargs = {"embed_dim": 24, "depth": 4, "num_heads": 2}
    return {
        "attention": (tiny(), {}),
        "heatmap head": (student(), {}),
        "tiles": (tiny(kwargs=kwargs, segmentation=segmentation), {"tiles": True}),
    }


@pytest.mark.parametrize("kind", ["attention", "heatmap head", "tiles"])
def test_models_see_the_reencodings_as_images(kind):
    model, options = models()[kind]
    predictor = Predictor(model)
    pixels = noise(60, 90)
    found = predictor.predict(pixels, stability=True, **options)
    plain = predictor.predict(pixels, **options)
    np.testing.assert_array_equal(found.heatmap, plain.heatmap)
    for name, value in found.stability.probabilities.items():
        image = pixels if name == AS_IS else VARIANTS[name](pixels)
        assert value == pytest.approx(predictor.predict(image).probability, abs=1e-6)
    again = predictor.predict(pixels, stability=True, **options)
    assert again.stability == found.stability  # no chance in it


# --- files and the command line -----------------------------------------------------------------


def test_json_lines_hold_it(tmp_path):
    for k, strength in enumerate((2, 60, 120)):
        Image.fromarray(noise(strength=strength)).save(tmp_path / f"{k}.png")
    out = tmp_path / "out"
    summary = predict_to_folder(GrainPredictor(), [tmp_path], out, stability=True)
    lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert len(lines) == 3
    for line in lines:
        found = line["stability"]
        values = found["probabilities"]
        assert values[AS_IS] == line["probability"]
        assert set(values) == {AS_IS, *VARIANTS}
        assert found["lowest"] == min(values.values())
        assert found["highest"] == max(values.values())
        assert found["spread"] == found["highest"] - found["lowest"]
        assert found["unstable"] == any(text.startswith("unstable") for text in line["warnings"])
    assert summary.unstable == sum(line["stability"]["unstable"] for line in lines) > 0


def test_command_line_prints_it(tmp_path, capsys):
    Image.fromarray(noise(200, 240)).save(tmp_path / "a.png")
    arguments = ["predict", str(tmp_path / "a.png"), "--model", "student-nano", "--device", "cpu"]
    assert main([*arguments, "--out", str(tmp_path / "out"), "--stability"]) == 0
    (line,) = (tmp_path / "out/predictions.jsonl").read_text().splitlines()
    found = json.loads(line)["stability"]
    printed = capsys.readouterr().out
    assert f"[{found['lowest']:.4f}..{found['highest']:.4f}" in printed
    assert f"of {int(found['unstable'])} images" in printed
    assert main([*arguments, "--out", str(tmp_path / "out"), "--resume"]) == 2  # other settings
    assert main([*arguments, "--out", str(tmp_path / "plain")]) == 0
    (line,) = (tmp_path / "plain/predictions.jsonl").read_text().splitlines()
    assert json.loads(line)["stability"] is None
