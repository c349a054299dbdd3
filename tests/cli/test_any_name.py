"""Commands that print names: none is lost, whatever the terminal or pipe can show."""

import csv
import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_models import tiny

from artifactnet.cli import main
from artifactnet.models.checkpoint import save_checkpoint

NAMES = {
    "图片.png": "图片.png",
    "\U0001f600.png": "\U0001f600.png",
    "x" * 251 + ".png": "x" * 251 + ".png",
    "图" * 79 + "xx.png": "图" * 79 + "xx.png",
    "line\nbreak.png": "line\\u000abreak.png",
    "\x1b[31mred\x07.png": "\\u001b[31mred\\u0007.png",
    "\u202egnp.exe.png": "\\u202egnp.exe.png",
    os.fsdecode(b"caf\xe9.png"): "caf\\udce9.png",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    file = tmp_path_factory.mktemp("model") / "m.safetensors"
    save_checkpoint(tiny(size=(32, 32)), file)
    return str(file)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for number, name in enumerate(NAMES):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        try:
            Image.fromarray(pixels).save(Path("photos", name))
        except OSError:
            pytest.skip("this file system refuses one of the names")
    return "photos"


@pytest.fixture
def printed(monkeypatch):
    """Runs a command that prints into streams of an encoding; returns their bytes."""

    def run(arguments: list[str], encoding: str) -> tuple[int, bytes, bytes]:
        streams = [io.TextIOWrapper(io.BytesIO(), encoding, "strict") for _ in range(2)]
        monkeypatch.setattr(sys, "stdout", streams[0])
        monkeypatch.setattr(sys, "stderr", streams[1])
        code = main([*arguments, "--device", "cpu"])
        for stream in streams:
            stream.flush()
        out, err = (stream.buffer.getvalue() for stream in streams)
        return code, out, err

    return run


def shown(name: str, encoding: str) -> bytes:
    return NAMES[name].encode(encoding, "backslashreplace")


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
@pytest.mark.parametrize("command", ["predict", "explain"])
def test_every_image_is_printed_and_written(photos, model, printed, command, encoding):
    if command == "predict":
        arguments, file = ["predict", photos, "--model", model, "--out", "out"], "predictions.jsonl"
    else:
        arguments = ["explain", model, photos, "--methods", "relevance", "--out", "out"]
        file = "explanations.jsonl"
    code, out, err = printed(arguments, encoding)
    assert (code, b"could not be used" in err) == (0, False)
    lines = out.splitlines()
    assert len(lines) == len(NAMES) + 1
    for name in NAMES:
        (line,) = [line for line in lines if line.endswith(b"photos/" + shown(name, encoding))]
        assert line.split()[1] in (b"fake", b"real")
    text = Path("out", file).read_bytes().decode("utf-8")
    entries = [json.loads(line) for line in text.splitlines()]
    assert {entry["path"] for entry in entries} == {f"photos/{name}" for name in NAMES}
    maps = [e.get("heatmap") or e["maps"]["relevance"]["heatmap"] for e in entries]
    assert len({*maps}) == len(NAMES)
    for heatmap in maps:
        assert heatmap.encode("utf-8")
        assert Image.open(Path("out", heatmap)).size == (30, 20)
    assert not [path for path in Path("out").rglob(".*") if path.name.startswith(".")]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8"])
def test_failures_are_printed_on_a_line_each(photos, model, printed, encoding):
    for name in NAMES:
        Path("photos", name).write_bytes(b"\x89PNG\r\n\x1a\n and nothing more")
    arguments = ["predict", *sorted(map(str, Path("photos").iterdir())), "gone\n\x1b[2J.png"]
    code, _, err = printed([*arguments, "--model", model, "--out", "out"], encoding)
    assert code == 1
    lines = err.splitlines()
    for name in NAMES:
        start = b"  photos/" + shown(name, encoding) + b": "
        assert len([line for line in lines if line.startswith(start)]) == 1
    assert [line for line in lines if line.startswith(b"  gone\\u000a\\u001b[2J.png: ")]


def test_an_error_is_one_line(photos, printed):
    arguments = ["predict", photos, "--model", "no\nsuch\x1b[2J图", "--out", "out"]
    code, _, err = printed(arguments, "ascii")
    assert code == 2
    assert err.count(b"\n") == 1
    assert b"no\\u000asuch\\u001b[2J\\u56fe" in err


def test_a_report_shows_every_name(photos, model, printed):
    arguments = ["report", model, "--images", photos, "--out", "out", "--methods", "relevance"]
    assert printed(arguments, "ascii")[0] == 0
    entries = json.loads(Path("out/report.json").read_bytes())["entries"]
    assert {entry["name"] for entry in entries} == NAMES.keys()  # the whole names
    page = Path("out/report.html").read_text(encoding="utf-8")
    for name in ("图片.png", "\U0001f600.png", "caf\\udce9.png"):
        assert name in page or json.dumps(name)[1:-1] in page
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "figures", "report.html", "report.json",
    ]  # fmt: skip


def test_masks_of_any_name(photos, segmenter, noise, printed):
    save_checkpoint(segmenter("convnext", (32, 64)), "m.safetensors")
    for name in NAMES:
        Image.fromarray(noise(60, 90)).save(Path("photos", name))
    arguments = ["predict", photos, "--model", "m.safetensors", "--out", "out", "--save-masks"]
    assert printed(arguments, "ascii")[0] == 0
    masks = list(Path("out/masks/category-agnostic/photos").glob("*/mask.png"))
    assert len(masks) == len(NAMES)
    with open("out/instances.csv", newline="", encoding="utf-8") as handle:
        uids = {row["uid"] for row in csv.DictReader(handle)}
    stems = {os.path.splitext(name)[0] for name in NAMES}
    assert uids == {stem.encode("utf-8", "backslashreplace").decode() for stem in stems}
