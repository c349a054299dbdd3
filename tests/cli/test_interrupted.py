"""SIGINT, SIGTERM and kill -9 during ``predict``: one line, an exit code, nothing lost."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_models import tiny

from artifactnet.cli import arguments, main
from artifactnet.models.checkpoint import save_checkpoint

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
COUNT = 12


@pytest.fixture
def interruptible():
    """SIGINT raises KeyboardInterrupt, also where a shell started the tests in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_checkpoint(tiny(size=(32, 32)), "m.safetensors")
    Path("photos").mkdir()
    for number in range(COUNT):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"photos/{number:02}.png")
    return ["predict", "photos", "--model", "m.safetensors", "--out", "out", "--device", "cpu"]


def lines(file) -> list[dict]:
    return [json.loads(line) for line in Path(file).read_bytes().splitlines()]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.usefixtures("interruptible")
def test_a_signal_ends_with_one_line(command, number, code, workers, capsys):
    print_line, printed = arguments.print_line, []

    def interrupt(text, *rest):
        print_line(text, *rest)
        printed.append(text)
        if len(printed) == 4:
            os.kill(os.getpid(), number)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arguments, "print_line", interrupt)
        assert main([*command, "--workers", workers]) == code
    assert signal.getsignal(signal.SIGTERM) == before
    error = capsys.readouterr().err
    assert [line for line in error.splitlines() if "interrupted" in line] == [
        "artifactnet: interrupted; 4 predictions are in out/predictions.partial.jsonl; "
        "--resume continues"
    ]
    assert "Traceback" not in error
    assert [line["path"] for line in lines("out/predictions.partial.jsonl")] == [
        f"photos/{number:02}.png" for number in range(4)
    ]
    assert not list(Path("out").rglob(".*"))
    assert main([*command, "--resume"]) == 0
    assert "12 of 12 images predicted (4 of them earlier)" in capsys.readouterr().out
    assert len(lines("out/predictions.jsonl")) == COUNT


def test_resume_with_other_options_is_one_line(command, capsys):
    assert main(command) == 0
    capsys.readouterr()
    assert main([*command, "--resume", "--no-heatmaps"]) == 2
    error = capsys.readouterr().err
    assert "heatmaps=True, now False" in error
    assert error.count("\n") == 1


@pytest.mark.slow
def test_kill_9_leaves_nothing_hidden(command):
    for number in range(COUNT, 400):
        os.link("photos/00.png", f"photos/{number}.png")
    program = [sys.executable, "-m", "artifactnet", *command]
    partial = Path("out/predictions.partial.jsonl")
    process = subprocess.Popen(program, stdout=subprocess.DEVNULL)
    try:
        while process.poll() is None and not (
            partial.exists() and partial.read_bytes().count(b"\n") > 20
        ):
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    kept = partial.read_bytes().count(b"\n")
    assert not list(Path("out").rglob(".*"))
    assert not Path("out/predictions.jsonl").exists()
    done = subprocess.run([*program, "--resume"], capture_output=True, text=True)
    assert done.returncode == 0
    assert f"400 of 400 images predicted ({kept} of them earlier)" in done.stdout
    assert len(lines("out/predictions.jsonl")) == 400
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "heatmaps", "predictions.jsonl", "predictions.settings.json",
    ]  # fmt: skip
    assert len(list(Path("out/heatmaps").iterdir())) == 400
