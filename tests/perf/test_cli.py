"""``python tools/benchmark.py NAME``: options arrive, results are printed and written."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from perf.cli import BENCHMARKS, main

STEP = ["alignment-step", "--backbone", "test_vit", "--size", "32", "--repeats", "1", "--no-memory"]


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_script_lists_every_benchmark():
    script = Path(__file__).parent.parent.parent / "tools" / "benchmark.py"
    done = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in BENCHMARKS)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_has_help(name, capsys):
    with pytest.raises(SystemExit) as info:
        main([name, "--help"])
    assert info.value.code == 0
    assert "--out" in capsys.readouterr().out


def test_alignment_step_and_plot(capsys):
    arguments = [*STEP, "--forms", "stored-row,naive", "--out", "a.json", "--plot", "a.svg"]
    assert main(arguments) == 0
    report = json.loads(Path("a.json").read_text())
    assert list(report["steps"][0]["forms"]) == ["sdpa", "stored row", "naive"]
    out = capsys.readouterr().out
    assert "32 px, 5 tokens" in out
    assert "stored row" in out
    first = Path("a.svg").read_text()
    assert main(["alignment-plot", "a.json", "--out", "b.svg"]) == 0
    assert Path("b.svg").read_text() == first


def test_metrics(capsys):
    small = "--images 3 --size 64 --polygons 3 --boxes 5 --repeats 1 --out report.json"
    assert main(["metrics", *small.split()]) == 0
    report = json.loads(Path("report.json").read_text())
    expected = {"images": 3, "size": 64, "polygons": 3, "boxes": 5, "repeats": 1}
    assert report["setting"] == expected
    assert "straightforward" in capsys.readouterr().out


def test_loader(capsys):
    small = (
        "model.image_size=[28,28] data.demo_train=8 data.demo_val=4 data.demo_test=4 "
        "data.demo_size=48 data.batch_size=4 data.check=counts"
    )
    options = ["--workers", "0", "--repeats", "1", "--out", "loader.json"]
    for recipe in ([], ["swin_aj"]):
        assert main(["loader", *recipe, *small.split(), *options]) == 0
        setting = json.loads(Path("loader.json").read_text())["setting"]
        assert (setting["config"], setting["images"]) == (*(recipe or ["dinov2_align"]), 16)
    assert "16 images an epoch" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*STEP, "--forms", "magic"], "'magic'"),
        ([*STEP, "--plot", "a.pdf"], "a.pdf"),
        ([*STEP, "--out", "."], "is a folder"),
        (["alignment-step", "--backbone", "resnet18", "--size", "32"], "no global attention"),
        (["alignment-plot", "none.json", "--out", "a.svg"], "none.json"),
        (["loader", "nothing"], "nothing"),
        (["loader", "data.nmae=demo"], "data.name"),
    ],
)
def test_user_errors_are_one_line_and_write_nothing(arguments, message, capsys):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "NAME"),
        (["speed"], "explain-maps"),
        (["alignment-step", "--every", "0"], "below 1"),
        (["alignment-step", "--dtype", "float64"], "invalid choice"),
        (["alignment-plot", "a.json"], "--out"),
        (["loader", "--workers", "-1"], "below 0"),
    ],
)
def test_invalid_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit) as info:
        main(arguments)
    assert info.value.code == 2
    assert message in capsys.readouterr().err
