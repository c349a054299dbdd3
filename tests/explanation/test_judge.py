"""Scores of explanations: every figure against loops, on known maps."""

import json
import math
import weakref
from types import SimpleNamespace

import metric_reference as reference
import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from tiny_models import tiny
from torch import nn

from artifactnet.explanation import judge as judging
from artifactnet.explanation.detector import Classifier
from artifactnet.explanation.explainer import Explained, Explainer
from artifactnet.explanation.judge import score_explanations
from artifactnet.inference.inputs import Failure
from artifactnet.types import Annotation, ArtifactNetError, Explanation, Record, Sample

NONE, CLEAN, MASK = Annotation.NONE, Annotation.CLEAN, Annotation.MASK
SIZES = ((24, 30), (33, 20), (16, 16), (40, 28))


class Brightness(nn.Module):
    """Logit: mean of the picture, and weights to shuffle."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, 3 * 16 * 16).reshape(3, 16, 16))

    def forward(self, images):
        return (images * self.weight).mean(dim=(1, 2, 3))


def detector():
    return Classifier(Brightness(), (16, 16), (0, 0, 0), (1, 1, 1))


def sample(seed, label=1, annotation=MASK, size=None):
    rng = np.random.default_rng(seed)
    height, width = size or SIZES[seed % len(SIZES)]
    mask = np.zeros((height, width), np.uint8)
    while annotation is MASK and not mask.any():
        for _ in range(rng.integers(1, 5)):
            y, x = rng.integers(0, height), rng.integers(0, width)
            mask[y : y + rng.integers(1, 9), x : x + rng.integers(1, 9)] |= np.uint8(
                rng.choice([1, 2, 128])
            )
    record = Record(str(seed), label, "real" if not label else "g", annotation, f"{seed}.png")
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Sample(record, image, mask if annotation is MASK else None)


def named(samples):
    return [(f"image {number}", each) for number, each in enumerate(samples)]


class Faker:
    """Stands in for `Explainer`: maps that are known beforehand.

    A method is a function (name, detector) -> map, Failure or error.
    """

    def __init__(self, model, methods=None, **options):
        self.detector = model
        self.methods = tuple(methods or self.methods_known)

    def explain_batch(self, images):
        (method,) = self.methods
        self.batches.append((method, [name for name, _ in images]))
        answers = []
        for name, pixels in images:
            found = self.methods_known[method](name, self.detector)
            if not isinstance(found, Failure):
                found = np.asarray(found, np.float32)
                maps = {method: Explanation(method, found, found, "minmax")}
                found = Explained(name, pixels, 0.5, True, maps)
            answers.append(found)
        return answers


@pytest.fixture
def fake(monkeypatch):
    """Puts known maps in the place of every method."""

    def install(**methods):
        kind = type("Known", (Faker,), {"methods_known": methods, "batches": []})
        monkeypatch.setattr(judging, "Explainer", kind)
        return kind.batches

    return install


def random_map(name, size):
    rng = np.random.default_rng(sum(map(ord, name)))
    grid = rng.random((size[0] // 4 + 1, size[1] // 4 + 1)) ** 1.5
    blocks = np.kron(grid, np.ones((4, 4)))[: size[0], : size[1]]
    return np.round(blocks, 1)


def by_loops(samples, maps, threshold, t):
    """All figures of one method from full-size masks."""
    pixels, instances = np.zeros(3, int), np.zeros(3, int)
    points, masses, precisions = [], [], []
    for each, heatmap in zip(samples, maps, strict=True):
        heatmap = heatmap.astype(np.float32)
        truth = np.zeros(heatmap.shape, bool) if each.mask is None else each.mask > 0
        found = heatmap > np.float32(threshold)
        pixels += [(found & truth).sum(), (found & ~truth).sum(), (~found & truth).sum()]
        regions = components(found)
        flags = reference.match(reference.instances(truth), regions, t)
        instances += reference.counts(*flags)[:3]
        if truth.any():
            top = np.argwhere(heatmap == heatmap.max())
            points.append(np.mean([truth[y, x] for y, x in top]))
            masses.append(heatmap[truth].sum(dtype=float) / max(heatmap.sum(dtype=float), 1e-30))
            if not truth.all():
                precisions.append(average_precision_score(truth.ravel(), heatmap.ravel()))
    return pixels, instances, points, masses, precisions


def components(found):
    """8-connected regions by flooding."""
    left, out = {tuple(p) for p in np.argwhere(found)}, []
    while left:
        queue, region = [left.pop()], np.zeros(found.shape, bool)
        while queue:
            y, x = queue.pop()
            region[y, x] = True
            near = {(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            queue += near
        out.append(region)
    return out


@pytest.mark.parametrize(("threshold", "overlap"), [(0.5, 0.5), (0.3, 0.2), (0.7, 0.0)])
def test_every_figure_by_loops(fake, threshold, overlap):
    samples = [sample(k, annotation=CLEAN if k % 5 == 4 else MASK) for k in range(14)]
    sizes = {name: each.image.shape[:2] for name, each in named(samples)}
    fake(random=lambda name, _: random_map(name, sizes[name]))
    result = score_explanations(
        detector(), named(samples), threshold=threshold, overlap=overlap, batch_size=4
    )
    row = result["methods"]["random"]
    maps = [random_map(name, size) for name, size in sizes.items()]
    pixels, instances, points, masses, precisions = by_loops(samples, maps, threshold, overlap)
    tp, fp, fn = (row[key] for key in ("tp", "fp", "fn"))
    assert [tp, fp, fn] == pixels.tolist()
    assert min(pixels) > 0
    expected = [tp / (tp + fp + fn), tp / (tp + fp), tp / (tp + fn), 2 * tp / (2 * tp + fp + fn)]
    assert [row[key] for key in ("IoU", "PixP", "PixR", "PixF1")] == pytest.approx(expected)
    assert list(row["instances"].values()) == instances.tolist()
    assert min(instances) > 0
    expected = reference.ratios(*instances)
    assert [row[f"{key}@{overlap:g}"] for key in ("P", "R", "F1")] == pytest.approx(expected)
    assert row["pointing_game"] == pytest.approx(np.mean(points), abs=1e-12)
    assert row["mass_inside"] == pytest.approx(np.mean(masses), abs=1e-6)
    assert row["average_precision"] == pytest.approx(np.mean(precisions), abs=1e-12)
    assert row["evaluated_images"] == 14
    assert row["artifact_images"] == row["average_precision_images"] == 12
    shares = [(each.mask > 0).mean() for each in samples if each.mask is not None]
    assert result["images"]["artifact_share"] == pytest.approx(np.mean(shares))


def test_perfect_inverted_constant_and_empty_maps(fake):
    samples = [sample(k) for k in range(6)]
    masks = {name: each.mask > 0 for name, each in named(samples)}
    fake(
        perfect=lambda name, _: masks[name],
        inverted=lambda name, _: ~masks[name],
        constant=lambda name, _: np.full(masks[name].shape, 0.75),
        empty=lambda name, _: np.zeros(masks[name].shape),
    )
    result = score_explanations(detector(), named(samples))
    rows, share = result["methods"], result["images"]["artifact_share"]
    figures = ("IoU", "PixP", "PixR", "PixF1", "R@0.5", "pointing_game", "mass_inside")
    assert [rows["perfect"][key] for key in figures] == [1] * 7
    assert rows["perfect"]["average_precision"] == 1
    assert [rows["inverted"][key] for key in figures] == [0] * 7
    assert rows["inverted"]["average_precision"] == pytest.approx(share)  # found last, at once
    assert rows["constant"]["PixR"] == 1
    for key in ("pointing_game", "mass_inside", "average_precision"):
        assert rows["constant"][key] == pytest.approx(share)
    assert rows["constant"]["instances"]["fp"] == 6  # one region each, as large as the image
    assert [rows["empty"][key] for key in figures if key != "pointing_game"] == [0] * 6
    assert rows["empty"]["pointing_game"] == pytest.approx(share)
    assert [row["constant_images"] for row in rows.values()] == [0, 0, 6, 6]
    assert [row["zero_prediction_images"] for row in rows.values()] == [0, 0, 0, 6]


def test_who_takes_part(fake):
    kinds = ((0, CLEAN), (1, NONE), (1, CLEAN), (1, MASK), (0, CLEAN))
    samples = [sample(k, *kind) for k, kind in enumerate(kinds)]
    batches = fake(full=lambda name, _: np.ones(samples[int(name[-1])].image.shape[:2]))
    result = score_explanations(detector(), named(samples))
    assert batches == [("full", ["image 2", "image 3"])]
    images = result["images"]
    assert images.pop("artifact_share") == pytest.approx((samples[3].mask > 0).mean())
    counts = {"seen": 5, "real": 2, "unannotated": 1, "annotated": 2, "with_artifacts": 1}
    assert images == {**counts, "unusable": []}
    row = result["methods"]["full"]
    assert row["tp"] == (samples[3].mask > 0).sum()
    assert row["fp"] == samples[2].image[..., 0].size + (samples[3].mask == 0).sum()
    assert (row["evaluated_images"], row["artifact_images"]) == (2, 1)


def test_faithfulness_and_sanity_look_at_the_first_images(fake):
    samples = [sample(9, label=0, annotation=CLEAN), *(sample(k) for k in range(7))]
    own = detector()

    def image(name, _):
        return random_map(name, samples[int(name[-1])].image.shape[:2])

    def learnt(name, model):
        return model.net.weight[0].detach().numpy() - model.net.weight.min().item()

    fake(image=image, flat=lambda name, _: np.ones(samples[int(name[-1])].image.shape[:2]))
    result = score_explanations(
        own, named(samples), faithfulness_images=4, sanity_images=3, batch_size=2, seed=5
    )
    row = result["methods"]["image"]
    assert (row["faithfulness_images"], row["sanity_images"]) == (4, 3)
    assert row["sanity_correlation"] == pytest.approx(1)  # it shows the image, not the model
    found = [
        judging.faithfulness(own, samples[k].image, image(f"image {k}", own), seed=5)
        for k in range(1, 5)
    ]
    assert row["deletion"] == pytest.approx(np.mean([each.deletion_area for each in found]))
    assert row["insertion"] == pytest.approx(np.mean([each.insertion_area for each in found]))
    flat = result["methods"]["flat"]
    assert (flat["sanity_images"], flat["sanity_undefined"]) == (0, 3)
    assert flat["sanity_correlation"] is None

    samples = [sample(k, size=(16, 16)) for k in range(4)]
    fake(learnt=learnt)
    row = score_explanations(own, named(samples), sanity_images=10)["methods"]["learnt"]
    assert row["sanity_images"] == 4
    assert abs(row["sanity_correlation"]) < 0.3
    assert (row["faithfulness_images"], row["deletion"]) == (0, None)


def test_one_batch_is_in_memory_at_a_time(fake):
    """Images are asked for when they are due, and gone when the next ones come."""
    alive: list = []
    drawn, most = [], []

    def samples():
        for k in range(12):
            each = sample(k)
            alive.append(weakref.ref(each.image))
            drawn.append(k)
            yield f"image {k}", each
            del each

    def watching(name, _):
        most.append(sum(ref() is not None for ref in alive))
        assert max(drawn) <= int(name.split()[1]) // 3 * 3 + 2
        return np.zeros(SIZES[int(name.split()[1]) % len(SIZES)])

    fake(first=watching, second=watching)
    result = score_explanations(detector(), samples(), batch_size=3)
    assert result["methods"]["second"]["evaluated_images"] == 12
    assert max(most) <= 2 * 3


def test_one_of_ours_by_its_own_maps():
    model = tiny(size=(32, 48)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    samples = [sample(k, size=(40, 44)) for k in range(3)]
    methods = ["rollout", "gradient_rollout", "relevance", "heatmap"]
    result = score_explanations(
        model, named(samples), methods, faithfulness_images=1, sanity_images=2, batch_size=2
    )
    assert list(result["methods"]) == methods
    explained = Explainer(model, ["relevance"]).explain_batch(
        [(name, each.image) for name, each in named(samples)]
    )
    maps = [each.explanations["relevance"].heatmap for each in explained]
    row = result["methods"]["relevance"]
    assert [row["tp"], row["fp"], row["fn"]] == by_loops(samples, maps, 0.5, 0.5)[0].tolist()
    for row in result["methods"].values():
        assert (row["evaluated_images"], row["failures"]) == (3, [])
        assert row["sanity_images"] + row["sanity_undefined"] == 2
        assert 0 <= row["deletion"] <= 1
        assert row["seconds_per_image"] > 0
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert model.training
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_failures_cost_only_their_image(fake):
    own = detector()
    samples = [sample(k, size=(16, 16)) for k in range(5)]

    def troubled(name, model):
        if name == "image 1":
            return Failure(name, "too small")
        if name == "image 3" and model is not own:
            return Failure(name, "not a number")
        return samples[int(name[-1])].mask > 0

    batches = fake(troubled=troubled, sound=lambda name, _: samples[int(name[-1])].mask > 0)
    each = [*named(samples), ("torn", ArtifactNetError("torn: is torn"))]
    result = score_explanations(own, each, faithfulness_images=5, sanity_images=5)
    row = result["methods"]["troubled"]
    assert row["failures"] == [{"name": "image 1", "reason": "too small"}]
    assert row["evaluated_images"] == row["faithfulness_images"] == 4
    assert (row["sanity_images"], row["sanity_undefined"]) == (3, 1)
    assert row["IoU"] == 1
    assert result["methods"]["sound"]["evaluated_images"] == 5
    assert batches[0] == ("troubled", [f"image {k}" for k in range(5)])
    assert result["images"]["seen"] == 6
    assert result["images"]["unusable"] == [{"name": "torn", "reason": "is torn"}]


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"threshold": 1.5}, "threshold"),
        ({"threshold": math.nan}, "threshold"),
        ({"overlap": -0.1}, "overlap"),
        ({"sanity_images": -1}, "-1"),
        ({"methods": ["no_such"]}, "no_such"),
    ],
)
def test_bad_options_are_refused(options, key):
    with pytest.raises(ArtifactNetError, match=key):
        score_explanations(detector(), [], **options)


@pytest.mark.parametrize("misfit", [lambda mask: mask[:-1], lambda mask: None])
def test_a_mask_that_does_not_fit_is_refused(fake, misfit):
    fake(any=lambda name, _: None)
    other = sample(0)
    other.mask = misfit(other.mask)
    with pytest.raises(ArtifactNetError, match="image 0"):
        score_explanations(detector(), named([other]))


def test_results_become_files(fake, tmp_path):
    samples = [sample(k) for k in range(3)]
    trouble = "bad | image\n<x>.png"
    fake(
        one=lambda name, _: samples[0].mask > 0, two=lambda name, _: Failure(trouble, "too\nsmall")
    )
    own = detector()
    own.warnings = ("random weights",)
    each = [("image 0", samples[0]), ("b", ArtifactNetError("b: is torn"))]
    result = score_explanations(own, each, overlap=0.25)
    judging.write_scores(tmp_path / "new", result)
    assert json.loads((tmp_path / "new" / "explanations.json").read_text()) == result
    page = (tmp_path / "new" / "explanations.md").read_text()
    assert "random weights" in page
    assert "- two: bad | image <x>.png: too small\n" in page
    assert "- b: is torn\n" in page
    table = judging.scores_table(result)
    assert table in page
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert {len(row) for row in cells} == {len(cells[0])}
    one, two = (dict(zip(cells[0], row, strict=True)) for row in cells[2:])
    keys = ("method", "IoU", "images", "failures", "F1@0.25", "deletion")
    assert [one[key] for key in keys] == ["one", "1.0000", "1", "0", "1.0000", "-"]
    assert (two["method"], two["AP"], two["images"], two["failures"]) == ("two", "-", "0", "1")


@pytest.mark.slow
def test_command(tmp_path, capsys, monkeypatch):
    """`judge` opens a run with its data, writes its tables, and passes on warnings."""
    from artifactnet.cli import main
    from artifactnet.evaluation import samples

    opened = SimpleNamespace(
        model=tiny(size=(32, 48)),
        config=SimpleNamespace(seed=3),
        folder=tmp_path,
        warnings=("no test split",),
        each=lambda: named([sample(k, size=(40, 44)) for k in range(2)]),
    )
    monkeypatch.setattr(samples, "open_samples", lambda *arguments: opened)
    assert main(["judge", "run", "data.root=x", "--methods", "rollout", "--sanity", "1"]) == 0
    out, err = capsys.readouterr()
    assert "warning: no test split" in err
    found = json.loads((tmp_path / "explanations" / "explanations.json").read_text())
    assert judging.scores_table(found) in out
    assert (found["seed"], found["notices"]) == (3, ["no test split"])
    assert found["methods"]["rollout"]["evaluated_images"] == 2
