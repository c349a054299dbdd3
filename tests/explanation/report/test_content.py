"""What a report says about each image, with a model whose answers are known."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from artifactnet.explanation.explainer import Explained
from artifactnet.explanation.methods import METHODS
from artifactnet.explanation.report import content
from artifactnet.explanation.report.content import LABELS, MAX_INSTANCES, gather_content
from artifactnet.explanation.report.items import Item
from artifactnet.inference.inputs import Failure
from artifactnet.taxonomy import CATEGORIES
from artifactnet.types import (
    Annotation,
    ArtifactNetError,
    Explanation,
    Instance,
    Prediction,
    Record,
    Sample,
)

TEXTURES, SHAPES = CATEGORIES[0], CATEGORIES[1]


class CannedExplainer:
    """An explainer: the probability is the first pixel's red, the map its green channel."""

    methods = ("m", "n")
    detector = SimpleNamespace()

    def __init__(self):
        self.batches = []

    def explain_batch(self, images):
        self.batches.append([name for name, _ in images])
        return [self._answer(name, pixels) for name, pixels in images]

    def _answer(self, name, pixels):
        if name.startswith("nan"):
            return Failure(name, "the map of m is not a number (NaN)")
        probability = float(pixels[0, 0, 0]) / 255
        green = pixels[..., 1].astype(np.float32) / 255
        maps = {
            "m": Explanation("m", green, green, "minmax"),
            "n": Explanation("n", 1 - green, 1 - green, "minmax", ("the map is constant",)),
        }
        return Explained(name, pixels, probability, probability >= 0.5, maps)


def picture(probability, size=(20, 30), bright=(slice(0, 10), slice(0, 10))):
    pixels = np.zeros((*size, 3), np.uint8)
    pixels[..., 0] = round(255 * probability)
    pixels[(*bright, 1)] = 255
    return pixels


def sample(label, annotation, mask=None, probability=0.8):
    record = Record("u", label, "g" if label else "real", annotation, "place")
    return Sample(record, picture(probability), mask)


def item(name, loaded, label=None, generator=None):
    return Item(name, lambda: loaded, generator, label)


def gather(*items):
    return gather_content(CannedExplainer(), items, 8)


def test_an_entry_without_label():
    found = gather(item("a.png", picture(0.8), generator="g"))
    (entry,) = found.entries
    assert {k: v for k, v in entry.items() if k not in ("thumb", "layers")} == {
        "id": 0,
        "name": "a.png",
        "generator": "g",
        "label": None,
        **{"probability": 0.8, "is_fake": True, "verdict": "fake", "correct": None},
        "confidence": 0.8,
        **{"width": 30, "height": 20},
        **{"annotated": [], "predicted": [], "instances": [], "scores": {}},
        "artifact_share": pytest.approx(100 / 600),
        "warnings": ["n: the map is constant"],
    }
    assert sorted(entry["layers"]) == ["heat:m", "heat:n", "image"]
    assert entry["thumb"].startswith("data:image/")
    json.dumps(entry, allow_nan=False)


def test_failures_are_listed_and_stop_nothing():
    def broken(message):
        def load():
            raise ArtifactNetError(message)

        return load

    items = [
        item("good", picture(0.2)),
        Item("bad", broken("bad: truncated")),
        item("nan", picture(0.5)),
        Item("other", broken("mask.png: too small")),
        Item("d/far.png", broken("/a/d/far.png: truncated"), location="/a/d/far.png"),
        item("last", picture(0.8)),
    ]
    explainer = CannedExplainer()
    found = gather_content(explainer, items, 2)
    assert [entry["name"] for entry in found.entries] == ["good", "last"]
    assert [entry["id"] for entry in found.entries] == [0, 1]
    assert [fact.probability for fact in found.facts] == [0.2, 0.8]
    assert [(f.path, f.reason) for f in found.failures] == [
        ("bad", "truncated"),
        ("nan", "the map of m is not a number (NaN)"),
        ("other", "mask.png: too small"),
        ("d/far.png", "truncated"),
    ]
    assert explainer.batches == [["good"], ["nan"], ["last"]]


def annotated(mask_value=TEXTURES.bit):
    mask = np.zeros((20, 30), np.uint8)
    mask[0:10, 5:15] = mask_value
    return sample(1, Annotation.MASK, mask)


def test_scores_against_loops():
    loaded = annotated()
    found = gather(item("a", loaded, 1, "g"))
    (entry,), (fact,) = found.entries, found.facts
    counts = {"tp": 0, "fp": 0, "fn": 0}
    for y in range(20):
        for x in range(30):
            inside, bright = bool(loaded.mask[y, x]), loaded.image[y, x, 1] > 127
            if inside or bright:
                counts["tp" if inside and bright else "fp" if bright else "fn"] += 1
    assert fact.pixels["m"] == (counts["tp"], counts["fp"], counts["fn"]) == (50, 50, 50)
    assert entry["scores"]["m"] == {"iou": 50 / 150, "pointing": 0.5, "mass": 0.5}
    assert entry["scores"]["n"]["iou"] == 50 / 550
    assert entry["annotated"] == [TEXTURES.label]
    assert "annotation" in entry["layers"]
    assert fact.category_pixels == {}  # no mask was predicted


class Segmenter:
    """Predicts shapes where the image is bright, and 30 regions."""

    def __init__(self):
        self.sizes = []

    def predict(self, pixels, batch_size):
        self.sizes.append(batch_size)
        if pixels[0, 0, 0] == 0:
            raise ArtifactNetError("the model's map of artifacts is not a number (NaN)")
        mask = np.where(pixels[..., 1] > 0, SHAPES.bit, 0).astype(np.uint8)
        mask[19, 29] |= 1
        instances = [
            Instance(SHAPES.label, (k, 0, k + 1, 1), k + 1, 0.5, ()) for k in range(29)
        ] + [Instance("uncategorized", (29, 19, 30, 20), 1, 0.75, ())]
        return Prediction(0.5, True, mask=mask, instances=tuple(instances))


@pytest.fixture
def segmenter(monkeypatch):
    made = Segmenter()
    monkeypatch.setattr(content, "find_segmenter", lambda detector: made)
    return made


def test_masks_and_instances(segmenter):
    found = gather_content(
        CannedExplainer(), [item("a", annotated(SHAPES.bit | TEXTURES.bit), 1, "g")], 8
    )
    (entry,), (fact,) = found.entries, found.facts
    assert entry["predicted"] == [SHAPES.label, "uncategorized"]
    assert entry["annotated"] == [TEXTURES.label, SHAPES.label]
    assert entry["artifact_share"] == pytest.approx(101 / 600)
    assert len(entry["instances"]) == MAX_INSTANCES
    assert list(entry["instances"][0].values()) == [SHAPES.label, [28, 0, 29, 1], 29, 0.5]
    assert fact.regions == {SHAPES.label: 29, "uncategorized": 1}
    assert fact.pixels["mask"] == (50, 51, 50)
    assert fact.category_pixels[SHAPES.label] == (50, 50, 50)
    assert fact.category_pixels[TEXTURES.label] == (0, 0, 100)
    assert fact.category_pixels[CATEGORIES[6].label] == (0, 0, 0)
    assert {"mask", "annotation"} <= set(entry["layers"])
    assert segmenter.sizes == [1]
    (fact,) = gather(item("a", annotated(1), 1)).facts  # of no category: against none
    assert fact.annotated == ("uncategorized",)
    assert fact.pixels["mask"] == (50, 51, 50)
    assert fact.category_pixels == {}
    found = gather(item("a", picture(0.0)), item("b", picture(0.9)))  # the first mask fails
    assert [(entry["id"], entry["name"]) for entry in found.entries] == [(0, "b")]
    assert found.failures[0].reason.startswith("the model")


def test_every_method_has_a_label():
    assert set(LABELS) == set(METHODS)


@pytest.mark.parametrize(
    ("label", "annotation", "pixels"),
    [
        (1, Annotation.CLEAN, {"m": (0, 100, 0), "n": (0, 500, 0)}),
        (1, Annotation.NONE, {}),
        (0, Annotation.CLEAN, {}),
        (None, Annotation.CLEAN, {}),
    ],
)
def test_images_without_artifacts(label, annotation, pixels):
    loaded = sample(label or 0, annotation)
    found = gather(item("a", loaded, label))
    assert found.facts[0].pixels == pixels
    assert found.facts[0].scores == found.entries[0]["scores"] == {}
    assert found.entries[0]["correct"] == {1: True, 0: False, None: None}[label]
    # an annotation that shows nothing on any image is no layer to choose
    assert "annotation" not in found.entries[0]["layers"]
    both = gather_content(
        CannedExplainer(), [item("a", loaded, label), item("b", annotated(), 1)], 8
    )
    assert ("annotation" in both.entries[0]["layers"]) == (annotation is Annotation.CLEAN)
