"""Forms of a training step agree before they are timed, and the report says what they cost."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from perf import alignment_forms
from perf import alignment_step as module
from perf.alignment_forms import FLOOR, FORMS, baseline_of
from perf.alignment_step import (
    StepSetting,
    TrainingStep,
    benchmark_alignment,
    fit_line,
    fit_lines,
    peak_memory,
)
from perf.cli import main
from tiny_models import rollout_by_loops, tiny

from artifactnet.types import ArtifactNetError

SMALL = StepSetting("test_vit", size=48, batch_size=2)
GRADIENT = dataclasses.replace(SMALL, method="gradient_rollout")
METHODS = list(FORMS)
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


def setting_of(method, **changes):
    return dataclasses.replace(SMALL, method=method, **changes)


def broken(form, method="rollout", **changes):
    """The method's forms, one of them changed."""
    forms = {**FORMS[method], form: dataclasses.replace(FORMS[method][form], **changes)}
    return {**FORMS, method: forms}


@pytest.mark.parametrize("method", METHODS)
def test_report(method):
    report = benchmark_alignment(setting_of(method), sizes=[48, 32], repeats=1, memory=False)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["setting"]["method"] == method
    assert report["setting"]["device"] == "cpu"
    assert report["floor"] == "sdpa"
    assert report["baseline"] == ("naive" if method == "rollout" else "plain create_graph")
    assert [(row["size"], row["tokens"]) for row in report["steps"]] == [(32, 5), (48, 10)]
    for row in report["steps"]:
        assert list(row["forms"]) == list(report["forms"]) == list(FORMS[method])
        assert row["forms"][FLOOR]["ratio"] == {"median": 1, "min": 1, "max": 1}
        for form, found in row["forms"].items():
            assert not found["out_of_memory"]
            seconds = found["seconds"]
            assert 0 < seconds["min"] <= seconds["median"] <= seconds["max"]
            assert ("alignment_loss" in found) == (FORMS[method][form].gradient is not None)
        ratio = seconds["median"] / row["forms"][FLOOR]["seconds"]["median"]
        assert found["ratio"]["median"] == pytest.approx(ratio)


@pytest.mark.parametrize("method", METHODS)
def test_forms_agree_in_what_they_share(method):
    step = TrainingStep(setting_of(method, start_layer=-3))
    figures = {name: step.figures(name) for name, form in FORMS[method].items() if form.gradient}
    heatmap = figures[baseline_of(method)].heatmap  # not even, or forms would agree anyhow
    assert float(heatmap.max() - heatmap.min()) > 0.1 * float(heatmap.max())
    norms = {}
    for name, found in figures.items():
        norms.setdefault(FORMS[method][name].gradient, []).append(found.gradient_norm)
        first = next(iter(figures.values()))
        assert found.loss == pytest.approx(first.loss, rel=1e-5)
        assert torch.allclose(found.heatmap, first.heatmap, rtol=1e-4, atol=1e-6)
    for same in norms.values():
        assert same == pytest.approx([same[0]] * len(same), rel=1e-4)
    if method == "gradient_rollout":  # or "first order" would be no mode of its own
        assert norms["first"][0] != pytest.approx(norms["second"][0], rel=1e-2)


@pytest.mark.parametrize("start_layer", [0, 1, -1])
def test_the_naive_map_is_the_product_of_all_matrices(start_layer):
    model = tiny()
    model.config.attention.start_layer = start_layer
    images = torch.randn(2, 3, 32, 48)
    with torch.no_grad(), alignment_forms.AttentionRecorder(weights=True, fused=True) as recorder:
        model(images)
    with torch.no_grad():
        _, heatmap = alignment_forms.naive_rollout(model, images)
    for image in range(2):
        matrices = [weights[image].double().mean(0).numpy() for weights in recorder.weights]
        row = rollout_by_loops(matrices[start_layer:])[1:]
        expected = 1 - 2.0 ** (-len(row) * row / 2)
        assert np.abs(heatmap[image].flatten().numpy() - expected).max() < 1e-5


def test_the_naive_gradient_map_follows_its_definition():
    """W = max(0, mean_h P G), with G by finite differences of the logit."""
    model = tiny(kwargs={"embed_dim": 24, "depth": 1, "num_heads": 2}).double()
    images = torch.randn(1, 3, 32, 48).double()
    pushed = torch.zeros(1, 2, 7, 7, dtype=torch.float64)

    class Push(alignment_forms.AttentionRecorder):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is not torch.nn.functional.scaled_dot_product_attention:
                return func(*args, **(kwargs or {}))
            q, k, v = args
            self.weights.append((q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1))
            return (self.weights[-1] + pushed) @ v

    def logit():
        with torch.no_grad(), Push(True, False) as recorder:
            return float(model(images).logit), recorder.weights[0]

    base, weights = logit()
    slope = torch.zeros_like(weights)
    for place in np.ndindex(*weights.shape):
        pushed[place] = 1e-6
        slope[place] = (logit()[0] - base) / 1e-6
        pushed[place] = 0
    matrix = (weights * slope).mean(1).clamp_min(0)[0].numpy()
    row = rollout_by_loops([matrix])[1:]
    _, heatmap = alignment_forms.naive_gradient_rollout(model, images)
    expected = 1 - 2.0 ** (-len(row) * row / 2)
    assert expected.max() > 0
    found = heatmap.detach().flatten().numpy()
    assert np.abs(found - expected).max() < 1e-4 * expected.max()


def test_all_forms_see_the_same_weights():
    step = TrainingStep(SMALL)
    before = {name: value.clone() for name, value in step.model.state_dict().items()}
    step.run("fused")
    assert all(torch.equal(before[name], value) for name, value in step.model.state_dict().items())
    assert all(parameter.grad is None for parameter in step.model.parameters())
    assert step.model.training
    model, images = tiny(), torch.randn(2, 3, 32, 48)
    with torch.no_grad():
        expected = alignment_forms.plain(model, images)[0]
        assert torch.allclose(alignment_forms.unfused(model, images)[0], expected, atol=1e-6)
    assert torch.equal(alignment_forms.extra_backward(model, images)[0], expected)


@pytest.mark.parametrize(("every", "expected"), [(1, ["fused"]), (3, ["fused", "sdpa", "sdpa"])])
def test_alignment_at_some_steps(every, expected, monkeypatch):
    step = TrainingStep(dataclasses.replace(SMALL, every=every))
    taken = []
    names = {id(form): name for name, form in FORMS["rollout"].items()}
    monkeypatch.setattr(step, "_backward", lambda form: taken.append(names[id(form)]))
    step.run("fused")
    assert taken == expected


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("method", METHODS)
def test_half_precision(dtype, method):
    setting = setting_of(method, dtype=dtype)
    step = TrainingStep(setting)
    figures = {
        name: step.figures(name) if form.gradient else None for name, form in FORMS[method].items()
    }
    module._check_equal(setting, figures)
    exact = TrainingStep(setting_of(method)).figures(baseline_of(method))
    found = figures[baseline_of(method)]
    assert found.gradient_norm == pytest.approx(exact.gradient_norm, rel=0.1)  # loss scale undone
    assert found.gradient_norm != exact.gradient_norm


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        (1.01, "'naive' and 'fused' do not agree: alignment"),
        (float("nan"), "gradient of the 'naive' form is not finite"),
    ],
)
def test_forms_that_differ_are_not_timed(factor, message, monkeypatch):
    def forward(model, images):
        logit, heatmap = alignment_forms.naive_rollout(model, images)
        return logit, heatmap * factor

    monkeypatch.setattr(module, "FORMS", broken("naive", forward=forward))
    forms = ["naive"] if factor != factor else ["fused", "naive"]
    with pytest.raises(ArtifactNetError, match=message):
        benchmark_alignment(SMALL, [32], forms=forms, repeats=1, memory=False)


def test_a_gradient_that_differs_is_not_timed():
    heatmap = torch.rand(2, 3, 3)
    figures = {
        FLOOR: None,
        "fused": module.Figures(heatmap, 0.5, 1.0),
        "naive": module.Figures(heatmap, 0.5, 1.1),
    }
    with pytest.raises(ArtifactNetError, match="gradient norm differs by 0.1"):
        module._check_equal(SMALL, figures)
    # first and second order have gradients of their own
    figures = {"first order": figures["fused"], "second order": figures["naive"]}
    module._check_equal(GRADIENT, figures)


def no_memory(*_):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")


def test_forms_that_run_out_of_memory(monkeypatch):
    monkeypatch.setattr(module, "FORMS", broken("naive", forward=no_memory))
    report = benchmark_alignment(SMALL, [32], forms=["fused", "naive"], repeats=1, memory=False)
    results = report["steps"][0]["forms"]
    assert results["naive"] == {"out_of_memory": True}
    assert results["fused"]["seconds"]["median"] > 0
    monkeypatch.setattr(module, "FORMS", broken(FLOOR, forward=no_memory))
    with pytest.raises(ArtifactNetError, match="at 32 px not even the step without alignment"):
        benchmark_alignment(SMALL, [32], forms=["fused"], repeats=1, memory=False)
    monkeypatch.setattr(module, "FORMS", broken("naive", forward=lambda *_: 1 / 0))
    with pytest.raises(ZeroDivisionError):  # another error is not hidden
        benchmark_alignment(SMALL, [32], forms=["naive"], repeats=1, memory=False)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"method": "grad_cam"}, {}, "method must be one of rollout, gradient_rollout"),
        ({"dtype": "float64"}, {}, "dtype must be one of float32, bfloat16, float16"),
        ({"device": "tpu"}, {}, "device must be one of auto, cpu, cuda"),
        ({"backbone": "resnet18"}, {}, "no global attention"),
        ({"start_layer": 12}, {}, "start_layer"),
        ({"start_layer": -13}, {}, "start_layer"),
        ({"batch_size": 0}, {}, "batch_size must be at least 1"),
        ({"every": 0}, {}, "every must be at least 1"),
        pytest.param({"device": "cuda"}, {}, "finds no GPU", marks=no_gpu),
        ({}, {"repeats": 0}, "repeats must be at least 1"),
        ({}, {"sizes": [32, 0]}, "size must be at least 1"),
        ({}, {"sizes": [32, 50]}, "50"),
        ({}, {"memory_sizes": [50]}, "50"),
        ({}, {"forms": ["first order"]}, "rollout has no form 'first order'; it has: sdpa"),
    ],
)
def test_nonsense_is_refused_before_anything_runs(changes, options, message, monkeypatch):
    monkeypatch.setattr(module, "_timed", None)
    monkeypatch.setattr(module, "peak_memory", None)
    with pytest.raises(ArtifactNetError, match=message):
        benchmark_alignment(dataclasses.replace(SMALL, **changes), **{"sizes": [32], **options})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("method", METHODS)
def test_on_a_gpu(method):
    setting = setting_of(method, device="auto", dtype="bfloat16")
    report = benchmark_alignment(setting, [64], [32, 96], repeats=2)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["setting"]["device"] == "cuda"
    assert report["machine"]["gpu"]
    assert report["steps"][0]["roofline"]
    assert report["memory_fit"]


def test_memory_is_reported_beyond_the_floor_and_as_a_share(monkeypatch):
    peaks = {"sdpa": 100, "fused": 110, "stored row": None, "naive": 300}
    monkeypatch.setattr(
        module, "fresh_peak", lambda run, setting, form: peaks[form] and peaks[form] * 2**20
    )
    found = peak_memory(SMALL, list(peaks))
    assert found["fused"] == {
        "peak_megabytes": 110, "extra_megabytes": 10, "share_of_baseline": 0.05,
    }  # fmt: skip
    assert found["stored row"] is None
    assert found["naive"]["share_of_baseline"] == 1
    peaks["naive"] = None
    assert peak_memory(SMALL, list(peaks))["fused"]["share_of_baseline"] is None
    assert peak_memory(SMALL, ["sdpa", "fused"])["fused"]["extra_megabytes"] == 10


def test_memory_rules_out_a_form_for_the_clock(monkeypatch):
    def peaks(setting, forms):
        row = {"peak_megabytes": 1, "extra_megabytes": setting.size, "share_of_baseline": None}
        return {form: None if form == "naive" else row for form in forms}

    monkeypatch.setattr(module, "peak_memory", peaks)
    monkeypatch.setattr(module, "FORMS", broken("naive", forward=lambda *_: 1 / 0))
    chosen = ["fused", "naive"]
    report = benchmark_alignment(SMALL, [32], [48, 64], forms=chosen, repeats=1)
    assert [row["size"] for row in report["memory"]] == [32, 48, 64]
    assert report["steps"][0]["forms"]["naive"] == {"out_of_memory": True}
    assert set(report["memory_fit"]) == {"fused"}
    assert report["memory_fit"]["fused"]["points"] == 3
    report = benchmark_alignment(SMALL, [], [48], forms=["fused"])
    assert report["steps"] == []
    assert report["memory_fit"] == {}


@pytest.mark.slow
@pytest.mark.usefixtures("preloaded")
def test_memory_of_fresh_processes():
    setting = StepSetting("vit_tiny_patch16_224", size=224, batch_size=4)
    found = peak_memory(setting, ["sdpa", "fused", "naive"])
    assert found["sdpa"]["extra_megabytes"] == 0
    # twelve blocks of three heads' 197 x 197 weights, for four images
    assert found["naive"]["extra_megabytes"] > 12 * 3 * 197**2 * 4 * 4 / 2**20
    assert found["fused"]["share_of_baseline"] < 0.5


def test_lines():
    fit = fit_line([(n, 2 + 0.5 * n) for n in (5, 17, 65, 257)])
    assert (fit["intercept_megabytes"], fit["megabytes_per_token"]) == pytest.approx((2, 0.5))
    assert (fit["r_squared"], fit["max_relative_residual"]) == pytest.approx((1, 0), abs=1e-9)
    sizes = np.array([257, 785, 1370, 2705, 5477])
    parabola = sizes**2 / 1e6
    fit = fit_line(list(zip(sizes.tolist(), parabola.tolist(), strict=True)))
    slope, start = np.polyfit(sizes, parabola, 1)
    assert (fit["intercept_megabytes"], fit["megabytes_per_token"]) == pytest.approx((start, slope))
    rest = abs(parabola - start - slope * sizes).max() / parabola.max()
    assert fit["max_relative_residual"] == pytest.approx(rest)
    assert fit["r_squared"] < 0.97
    fit = fit_line([(1, 0.0), (2, 0.0), (3, 0.0)])
    assert (fit["r_squared"], fit["max_relative_residual"]) == (None, None)
    rows = [{"tokens": n, "forms": {"fused": {"extra_megabytes": n}}} for n in (1, 2)]
    assert fit_lines(rows, ["fused"]) == {}


def test_options_of_the_command(monkeypatch):
    seen = {}

    def run(setting, **options):
        seen.update(options, setting=setting)
        raise ArtifactNetError("enough")

    monkeypatch.setattr(module, "benchmark_alignment", run)
    line = (
        "alignment-step --size 224 518 --batch-size 4 --dtype bfloat16 --device cpu --every 3 "
        "--method gradient_rollout --forms first-order --start-layer -4 --memory-sizes 700 1036"
    )
    assert main(line.split()) == 2
    changes = {"size": 518, "batch_size": 4, "dtype": "bfloat16", "device": "cpu", "every": 3}
    changes |= {"method": "gradient_rollout", "start_layer": -4}
    assert seen["setting"] == dataclasses.replace(StepSetting(), **changes)
    assert (seen["sizes"], seen["memory_sizes"]) == ([224, 518], [700, 1036])
    assert (seen["forms"], seen["memory"]) == (["first order"], True)
    main(["alignment-step"])
    assert (seen["sizes"], seen["memory_sizes"]) == ([518], [])
    main(["alignment-step", "--memory-sizes", "224", "--no-memory"])
    assert (seen["sizes"], seen["memory_sizes"], seen["memory"]) == ([], [224], False)
