"""Forms of a training step agree before they are timed, and the report says what they cost."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

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
    assert report["memory"] == []
    assert report["memory_fit"] == {}
    assert [(row["size"], row["tokens"]) for row in report["steps"]] == [(32, 5), (48, 10)]
    for row in report["steps"]:
        assert list(row["forms"]) == list(report["forms"]) == list(FORMS[method])
        assert row["forms"][FLOOR]["ratio"] == {"median": 1, "min": 1, "max": 1}
        for form, found in row["forms"].items():
            assert not found["out_of_memory"]
            seconds = found["seconds"]
            assert 0 < seconds["min"] <= seconds["median"] <= seconds["max"]
            assert found["images_per_second"] == pytest.approx(2 / seconds["median"])
            assert found["steps_per_second"] == pytest.approx(1 / seconds["median"])
            assert ("alignment_loss" in found) == (FORMS[method][form].gradient is not None)
        ratio = seconds["median"] / row["forms"][FLOOR]["seconds"]["median"]
        assert found["ratio"]["median"] == pytest.approx(ratio)


@pytest.mark.parametrize("method", METHODS)
def test_forms_agree_in_what_they_share(method):
    step = TrainingStep(setting_of(method, start_layer=-3))
    figures = {name: step.figures(name) for name, form in FORMS[method].items() if form.gradient}
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


def test_maps_are_worth_comparing():
    """Maps of even attention would be equal whatever a form did."""
    for setting in (SMALL, GRADIENT):
        heatmap = TrainingStep(setting).figures(baseline_of(setting.method)).heatmap
        assert float(heatmap.max() - heatmap.min()) > 0.1 * float(heatmap.max())


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


def test_the_baselines_share_nothing_with_the_map_that_they_check():
    source = Path(alignment_forms.__file__).read_text(encoding="utf-8")
    ours = set(re.findall(r"from (artifactnet\.\S+) import (.+)", source))
    assert ours == {
        ("artifactnet.models.artifact_net", "ArtifactNet"),
        ("artifactnet.types", "ArtifactNetError"),
    }


def test_unfused_attention_gives_the_same_logits():
    model, images = tiny(), torch.randn(2, 3, 32, 48)
    with torch.no_grad():
        expected = alignment_forms.plain(model, images)[0]
        assert torch.allclose(alignment_forms.unfused(model, images)[0], expected, atol=1e-6)
    assert torch.equal(alignment_forms.extra_backward(model, images)[0], expected)


def test_all_forms_see_the_same_weights():
    step = TrainingStep(SMALL)
    before = {name: value.clone() for name, value in step.model.state_dict().items()}
    step.run("fused")
    assert all(torch.equal(before[name], value) for name, value in step.model.state_dict().items())
    assert all(parameter.grad is None for parameter in step.model.parameters())
    assert step.model.training


@pytest.mark.parametrize(("every", "expected"), [(1, ["fused"]), (3, ["fused", "sdpa", "sdpa"])])
def test_alignment_at_some_steps(every, expected, monkeypatch):
    step = TrainingStep(dataclasses.replace(SMALL, every=every))
    taken = []
    names = {id(form): name for name, form in FORMS["rollout"].items()}
    monkeypatch.setattr(step, "_backward", lambda form: taken.append(names[id(form)]))
    step.run("fused")
    assert taken == expected


def test_seconds_are_those_of_one_step():
    times = {FLOOR: [module.Times(3.0, 1.5)] * 2, "fused": [module.Times(6.0, 6.0)] * 2}
    found = module._step_summary(times, "fused", dataclasses.replace(SMALL, every=3))
    assert found["seconds"]["median"] == 2.0
    assert found["cpu_seconds"]["median"] == 2.0
    assert found["ratio"]["median"] == 2.0
    assert found["cpu_ratio"]["median"] == 4.0
    assert found["images_per_second"] == 1.0


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


@pytest.mark.parametrize("factor", [1.01, float("nan")])
def test_forms_that_differ_are_not_timed(factor, monkeypatch):
    def forward(model, images):
        logit, heatmap = alignment_forms.naive_rollout(model, images)
        return logit, heatmap * factor

    if factor == factor:
        monkeypatch.setattr(module, "FORMS", broken("naive", forward=forward))
        with pytest.raises(ArtifactNetError, match="'naive' and 'fused' do not agree: alignment"):
            benchmark_alignment(SMALL, [32], forms=["fused", "naive"], repeats=1, memory=False)
    else:
        monkeypatch.setattr(module, "FORMS", broken("naive", forward=forward))
        with pytest.raises(ArtifactNetError, match="gradient of the 'naive' form is not finite"):
            benchmark_alignment(SMALL, [32], forms=["naive"], repeats=1, memory=False)


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


def test_a_form_that_runs_out_of_memory_says_so(monkeypatch):
    forms = broken("naive", forward=no_memory)
    monkeypatch.setattr(module, "FORMS", forms)
    chosen = ["fused", "naive"]
    report = benchmark_alignment(SMALL, [32], forms=chosen, repeats=1, memory=False)
    found = report["steps"][0]["forms"]
    assert found["naive"] == {"out_of_memory": True}
    assert found["fused"]["seconds"]["median"] > 0


def test_too_little_memory_for_any_form(monkeypatch):
    forms = broken(FLOOR, forward=no_memory)
    monkeypatch.setattr(module, "FORMS", forms)
    with pytest.raises(ArtifactNetError, match="at 32 px not even the step without alignment"):
        benchmark_alignment(SMALL, [32], forms=["fused"], repeats=1, memory=False)


def test_another_error_is_not_hidden(monkeypatch):
    def forward(model, images):
        raise RuntimeError("something else")

    monkeypatch.setattr(module, "FORMS", broken("naive", forward=forward))
    with pytest.raises(RuntimeError, match="something else"):
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


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu():
    with pytest.raises(ArtifactNetError, match="--device cuda: torch finds no GPU"):
        benchmark_alignment(dataclasses.replace(SMALL, device="cuda"))


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


# --- memory -------------------------------------------------------------------------------


def test_memory_is_told_beyond_the_floor_and_as_a_share(monkeypatch):
    peaks = {"sdpa": 100, "fused": 110, "stored row": None, "naive": 300}
    monkeypatch.setattr(
        module,
        "fresh_peak",
        lambda run, setting, form: peaks[form] and peaks[form] * 2**20,
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


def test_a_line_is_found():
    fit = fit_line([(n, 2 + 0.5 * n) for n in (5, 17, 65, 257)])
    assert fit["intercept_megabytes"] == pytest.approx(2)
    assert fit["megabytes_per_token"] == pytest.approx(0.5)
    assert fit["r_squared"] == pytest.approx(1)
    assert fit["max_relative_residual"] == pytest.approx(0, abs=1e-9)


def test_a_parabola_is_no_line():
    sizes = (257, 785, 1370, 2705, 5477)
    fit = fit_line([(n, n * n / 1e6) for n in sizes])
    assert fit["r_squared"] < 0.97
    assert fit["max_relative_residual"] > 0.1
    line = np.linalg.lstsq(
        np.array([[1, n] for n in sizes]), np.array([n * n / 1e6 for n in sizes]), rcond=None
    )[0]
    assert fit["intercept_megabytes"] == pytest.approx(line[0])
    assert fit["megabytes_per_token"] == pytest.approx(line[1])
    rest = [n * n / 1e6 - line[0] - line[1] * n for n in sizes]
    assert fit["max_relative_residual"] == pytest.approx(max(map(abs, rest)) / (5477**2 / 1e6))


def test_lines_of_nothing():
    fit = fit_line([(1, 0.0), (2, 0.0), (3, 0.0)])
    assert fit["r_squared"] is None
    assert fit["max_relative_residual"] is None
    rows = [{"tokens": n, "forms": {"fused": {"extra_megabytes": n}}} for n in (1, 2)]
    assert fit_lines(rows, ["fused"]) == {}


def test_options_arrive(monkeypatch):
    seen = {}

    def run(setting, **options):
        seen.update(options, setting=setting)
        raise ArtifactNetError("enough")

    monkeypatch.setattr(module, "benchmark_alignment", run)
    line = (
        "alignment-step --backbone b --size 224 518 --batch-size 4 --dtype bfloat16 "
        "--device cpu --method gradient_rollout --forms first-order --start-layer -4 --every 3 "
        "--repeats 7 --memory-sizes 700 1036"
    )
    assert main(line.split()) == 2
    assert vars(seen.pop("setting")) == {
        "backbone": "b", "size": 518, "batch_size": 4, "dtype": "bfloat16", "device": "cpu",
        "method": "gradient_rollout", "start_layer": -4, "every": 3,
    }  # fmt: skip
    assert seen == {
        "sizes": [224, 518], "memory_sizes": [700, 1036], "forms": ["first order"], "repeats": 7,
        "memory": True,
    }  # fmt: skip
    main(["alignment-step"])
    assert (seen["sizes"], seen["memory_sizes"]) == ([518], [])
    main(["alignment-step", "--memory-sizes", "224", "--no-memory"])
    assert (seen["sizes"], seen["memory_sizes"], seen["memory"]) == ([], [224], False)


def test_memory_is_printed(monkeypatch, capsys):
    def peak(run, setting, form):
        tokens = (setting.size // 16) ** 2 + 1
        extra = {"sdpa": 0, "fused": 5 * tokens}.get(form)
        return None if extra is None else (100 + extra) * 2**20

    monkeypatch.setattr(module, "fresh_peak", peak)
    line = "alignment-step --backbone test_vit --memory-sizes 32 48 64"
    assert main([*line.split(), "--forms", "fused,naive", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "64 px, 17 tokens" in out
    assert "85.0 MB  -  (peak 185 MB)" in out
    assert "naive               out of memory" in out
    assert "b   5.0000  R2 1.0000  largest residual 0.0%" in out


def test_kernels_are_printed_with_what_limits_them(capsys):
    row = {"seconds": 4e-3, "roofline_seconds": 1e-3, "limit": "exponentials"}
    row |= {"share_of_roofline": 0.25, "calls_in_step": {"fused": 12}}
    rates = {"bytes_per_second": 3e12, "flops_per_second": 7e14, "exponentials_per_second": 4e12}
    products = {"row_product": row, "log_sum_exp": {**row, "limit": "flops", "calls_in_step": {}}}
    module._print_roofline({"peaks": rates, "products": products})
    lines = capsys.readouterr().out.splitlines()
    assert "3.00 TB/s, 700 TFLOP/s and 4.00e12 exponentials/s measured" in lines[0]
    assert "4.000 ms  roofline 1.000 ms by exponentials (25%)" in lines[1]
    assert lines[1].endswith("; 12 calls in a step of fused")
    assert lines[2].endswith("by flops (25%); not used by the steps above")
    module._print_roofline({"reason": "no triton"})
    assert capsys.readouterr().out == "  no kernel times: no triton\n"
