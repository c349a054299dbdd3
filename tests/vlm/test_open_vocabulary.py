"""Grounding DINO by name: boxes, errors, and nothing loaded before it is needed."""

import json

import numpy as np
import pytest
import tiny_grounding

from artifactnet.types import ArtifactNetError
from artifactnet.vlm.open_vocabulary import OpenVocabularyDetector

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_grounding.save_grounding(tmp_path_factory.mktemp("dino"))


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)


def test_boxes_are_those_of_the_model(folder, image):
    """Compared with the logits themselves: sigmoid, largest over tokens, centre to corners."""
    import torch
    from PIL import Image
    from transformers import GroundingDinoForObjectDetection, GroundingDinoProcessor

    boxes, scores = OpenVocabularyDetector(str(folder), threshold=0.0).detect(image, "Red Cat")
    model = GroundingDinoForObjectDetection.from_pretrained(folder).eval()
    processor = GroundingDinoProcessor.from_pretrained(folder)
    inputs = processor(images=Image.fromarray(image), text="red cat.", return_tensors="pt")
    with torch.inference_mode():
        out = model(**inputs)
    expected = out.logits[0].double().sigmoid().amax(-1)
    x, y, w, h = out.pred_boxes[0].double().unbind(-1)
    corners = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], -1)
    corners *= torch.tensor([90.0, 60.0, 90.0, 60.0])
    assert len(boxes) == len(scores) == 8
    assert np.abs(np.array(scores) - expected.numpy()).max() < 1e-5
    assert np.abs(np.array(boxes) - corners.numpy()).max() < 1e-3


def test_the_threshold_and_the_name_count(folder, image):
    everything = OpenVocabularyDetector(str(folder), threshold=0.0)
    _, scores = everything.detect(image, "cat")
    low, high = sorted(scores)[4:6]
    assert high - low > 1e-5
    few = OpenVocabularyDetector(str(folder), threshold=(low + high) / 2)
    assert sorted(few.detect(image, "cat")[1]) == sorted(scores)[5:]
    assert everything.detect(image, "dog")[1] != scores
    assert few.identity != everything.identity
    assert OpenVocabularyDetector(str(folder), threshold=1.0).detect(image, "cat") == ([], [])


def test_nothing_is_loaded_until_it_is_needed(tmp_path, image):
    detector = OpenVocabularyDetector(str(tmp_path / "none"))
    assert "none, threshold 0.25" in detector.identity
    with pytest.raises(ArtifactNetError, match=r"detector .*none: cannot be loaded"):
        detector.detect(image, "cat")


def test_another_family_is_refused(folder, tmp_path, image):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ArtifactNetError, match="'bert' is not supported"):
        OpenVocabularyDetector(str(tmp_path)).detect(image, "cat")


def test_missing_weights_are_refused(folder, tmp_path, image):
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, tmp_path / "copy")
    weights = tmp_path / "copy" / "model.safetensors"
    tensors = load_file(weights)
    del tensors["model.level_embed"]
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(ArtifactNetError, match="level_embed"):
        OpenVocabularyDetector(str(tmp_path / "copy")).detect(image, "cat")
