"""``artifactnet benchmark``: options reach the benchmark, its answer is printed and written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from perf import alignment_step
from perf import cli as cli

from artifactnet.cli import main
from artifactnet.types import ArtifactNetError

SMALL = ["--backbone", "vit_tiny_patch16_224", "--size", "32", "--repeats", "1", "--no-memory"]


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_alignment_step_and_plot(capsys):
    arguments = [*SMALL, "--forms", "stored-row,naive", "--out", "a.json", "--plot", "a.svg"]
    assert main(["benchmark", "alignment-step", *arguments]) == 0
    report = json.loads(Path("a.json").read_text())
    assert list(report["steps"][0]["forms"]) == ["sdpa", "stored row", "naive"]
    out = capsys.readouterr().out
    assert "32 px, 5 tokens" in out
    assert "stored row" in out
    assert "images/s" in out
    first = Path("a.svg").read_text()
    assert main(["benchmark", "alignment-plot", "a.json", "--out", "b.svg"]) == 0
    assert Path("b.svg").read_text() == first


def test_options_arrive(monkeypatch, capsys):
    seen = {}

    def run(setting, **options):
        seen.update(options, setting=setting)
        raise ArtifactNetError("enough")

    monkeypatch.setattr(alignment_step, "benchmark_alignment", run)
    line = (
        "benchmark alignment-step --backbone b --size 224 518 --batch-size 4 --dtype bfloat16 "
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
    main(["benchmark", "alignment-step"])
    assert (seen["sizes"], seen["memory_sizes"]) == ([518], [])
    main(["benchmark", "alignment-step", "--memory-sizes", "224", "--no-memory"])
    assert (seen["sizes"], seen["memory_sizes"], seen["memory"]) == ([], [224], False)
    assert capsys.readouterr().err.count("artifactnet: error: enough\n") == 3


def test_memory_is_printed(monkeypatch, capsys):
    def peak(run, setting, form):
        tokens = (setting.size // 16) ** 2 + 1
        extra = {"sdpa": 0, "fused": 5 * tokens}.get(form)
        return None if extra is None else (100 + extra) * 2**20

    monkeypatch.setattr(alignment_step, "fresh_peak", peak)
    line = "benchmark alignment-step --backbone vit_tiny_patch16_224 --memory-sizes 32 48 64"
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
    cli._print_roofline({"peaks": rates, "products": products})
    lines = capsys.readouterr().out.splitlines()
    assert "3.00 TB/s, 700 TFLOP/s and 4.00e12 exponentials/s measured" in lines[0]
    assert "4.000 ms  roofline 1.000 ms by exponentials (25%)" in lines[1]
    assert lines[1].endswith("; 12 calls in a step of fused")
    assert lines[2].endswith("by flops (25%); not used by the steps above")
    cli._print_roofline({"reason": "no triton"})
    assert capsys.readouterr().out == "  no kernel times: no triton\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["alignment-step", *SMALL, "--forms", "magic"], "rollout has no form 'magic'; it has:"),
        (["alignment-step", *SMALL, "--plot", "a.pdf"], "a.pdf: a plot is written as .svg or .png"),
        (["alignment-step", *SMALL, "--out", "."], "is a folder"),
        (["alignment-step", "--backbone", "resnet18", "--size", "32"], "no global attention"),
        (["alignment-plot", "none.json", "--out", "a.svg"], "none.json: cannot be read"),
        (["loader", "nothing"], "nothing"),
        (["loader", "data.nmae=demo"], "data.name"),
        (["loader", "--out", "."], "is a folder"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(arguments, message, capsys):
    assert main(["benchmark", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("artifactnet: error: ")
    assert message in err
    assert err.count("\n") == 1
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["alignment-step", "--every", "0"], "below 1"),
        (["alignment-step", "--dtype", "float64"], "invalid choice"),
        (["alignment-step", "--method", "grad_cam"], "invalid choice"),
        (["alignment-plot", "a.json"], "--out"),
        (["loader", "--workers", "-1"], "below 0"),
    ],
)
def test_wrong_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit) as info:
        main(["benchmark", *arguments])
    assert info.value.code == 2
    assert message in capsys.readouterr().err


def test_loader(capsys):
    small = (
        "model.image_size=[32,32] data.demo_train=8 data.demo_val=4 data.demo_test=4 "
        "data.demo_size=48 data.batch_size=4 data.check=counts"
    )
    options = ["--workers", "0", "--repeats", "1", "--out", "loader.json"]
    assert main(["benchmark", "loader", *small.split(), *options]) == 0
    report = json.loads(Path("loader.json").read_text())
    assert report["setting"]["config"] == "dinov2_align"
    assert report["setting"]["images"] == 16
    out = capsys.readouterr().out
    assert "16 images an epoch" in out
    assert "0 workers" in out
    main(["benchmark", "loader", "swin_aj", *small.split(), *options])
    assert json.loads(Path("loader.json").read_text())["setting"]["config"] == "swin_aj"
