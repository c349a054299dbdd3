"""What `predict` shows on a terminal, and that pipes hold none of it."""

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tiny_models import tiny

from artifactnet.cli import main, progress
from artifactnet.inference.collect import count_images, iterate_images, resolve_inputs
from artifactnet.models.checkpoint import save_checkpoint

NAMES = ("[red]a.png", "b\u202egnp.png", "c.png")


@pytest.fixture
def arguments(tmp_path, monkeypatch):
    """Three images with odd names and a broken one, in the current folder, and a model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    save_checkpoint(tiny(seed=1), "model.safetensors")
    Path("photos").mkdir()
    for k, name in enumerate(NAMES):
        pixels = np.random.default_rng(k).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(Path("photos") / name)
    Path("photos/z.png").write_bytes(b"nothing")
    return ["predict", "photos", "--model", "model.safetensors", "--device", "cpu"]


def watch(monkeypatch, *streams: str) -> None:
    for name in streams:
        monkeypatch.setattr(getattr(sys, name), "isatty", lambda: True)


def lines_of(path) -> list[dict]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_a_terminal_gets_a_table_of_a_few(arguments, monkeypatch, capsys):
    watch(monkeypatch, "stdout", "stderr")
    assert main([*arguments, "--out", "out"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("3 of 4 images predicted")  # no line per image
    assert "3/4" in err  # the bar knows how many there are
    table = err[err.index("probability of fake") :]
    for line, shown in zip(lines_of("out/predictions.jsonl"), NAMES, strict=True):
        (row,) = (r for r in table.splitlines() if shown.replace("\u202e", "\\u202e") in r)
        assert f"{line['probability']:.4f}" in row
        assert line["verdict"] in row
    assert "\u202e" not in err


def test_a_terminal_gets_no_table_of_many(arguments, monkeypatch, capsys):
    watch(monkeypatch, "stdout", "stderr")
    monkeypatch.setattr(progress, "FEW", 2)
    assert main([*arguments, "--out", "out"]) == 0
    out, err = capsys.readouterr()
    assert "3 of 4 images predicted" in out
    assert "predicting" in err
    assert "probability of fake" not in err
    assert "c.png" not in out + err


def test_pipes_hold_lines_alone(arguments, capsys):
    assert main([*arguments, "--out", "out"]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 4
    assert "predicting" not in err
    assert "\x1b" not in out + err


@pytest.mark.parametrize("extra", [["--out", "out"], ["--json"]])
def test_a_bar_beside_a_pipe_changes_nothing_in_it(arguments, monkeypatch, capsys, extra):
    assert main([*arguments, *extra]) == 0
    alone = capsys.readouterr().out
    watch(monkeypatch, "stderr")
    assert main([*arguments, *extra]) == 0
    out, err = capsys.readouterr()
    assert out == alone
    assert "3/4" in err
    assert "probability of fake" not in err


def test_json_lines_on_a_terminal_have_no_bar_among_them(arguments, monkeypatch, capsys):
    watch(monkeypatch, "stdout", "stderr")
    assert main([*arguments, "--json"]) == 0
    out, err = capsys.readouterr()
    assert [json.loads(line)["verdict"] for line in out.splitlines()]
    assert "predicting" not in err


def test_what_is_resumed_is_not_waited_for(arguments, monkeypatch, capsys):
    assert main([*arguments, "--out", "out"]) == 0
    watch(monkeypatch, "stdout", "stderr")
    assert main([*arguments, "--out", "out", "--resume"]) == 0
    err = capsys.readouterr().err
    assert "0/?" in err
    assert "probability of fake" not in err  # nothing is new


def test_an_error_ends_the_bar(arguments, monkeypatch, capsys):
    watch(monkeypatch, "stdout", "stderr")
    Path("out").write_text("in the way")
    assert main([*arguments, "--out", "out"]) == 2
    assert "artifactnet: error: out: " in capsys.readouterr().err


def test_images_are_counted_as_they_are_predicted(arguments):
    content = Path("photos/c.png").read_bytes()
    pq.write_table(pa.table({"image": [content] * 5}), "rows.parquet")
    Path("bad.parquet").write_bytes(b"PAR1nothing")
    inputs = ["photos", "photos/c.png", "rows.parquet", "bad.parquet", "./photos", "gone.png"]
    resolved = resolve_inputs(inputs, skip="")
    assert count_images(resolved) == len(list(iterate_images(resolved))) == 4 + 5 + 1
