"""``artifactnet completion``: what the shells themselves offer."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from artifactnet.cli import COMMANDS, main
from artifactnet.cli.completion import SHELLS


def script(shell: str, capsys) -> str:
    pytest.importorskip("argcomplete")
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a shell with a script, in a folder with files, where ``artifactnet`` is a command."""
    command = tmp_path / "bin" / "artifactnet"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m artifactnet "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "photo.png").touch()
    (tmp_path / "photos").mkdir()

    def run(shell: str, text: str) -> list[str]:
        (tmp_path / "it").write_text(text)
        done = subprocess.run([shell, "it"], cwd=tmp_path, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    return run


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("artifactnet pre", {"predict"}),
        ("artifactnet predict --ba", {"--backend", "--batch-size"}),
        ("artifactnet predict --backend o", {"onnx", "openvino"}),
        ("artifactnet predict ph", {"photo.png", "photos/"}),
        ("artifactnet predict a.png --out ph", {"photo.png", "photos/"}),
        ("artifactnet experiment alignment-", {"alignment-ablation"}),
        ("artifactnet ", {*COMMANDS, "-h", "--help", "--version", "benchmark"}),
    ],
)
def test_bash(run, capsys, line, offered):
    ask = f'COMP_LINE="{line}"; COMP_POINT=${{#COMP_LINE}}; _python_argcomplete artifactnet\n'
    show = 'printf "%s\\n" "${COMPREPLY[@]}"\n'
    said = run("bash", script("bash", capsys) + ask + show)
    assert {word.strip() for word in said} == offered


def test_fish(run, capsys):
    ask = "complete -C 'artifactnet predict --backend o'\n"
    offered = run("fish", script("fish", capsys) + ask)
    assert {line.partition("\t")[0] for line in offered} == {"onnx", "openvino"}


@pytest.mark.parametrize("shell", SHELLS)
def test_the_shell_can_read_its_script(tmp_path, capsys, shell):
    (tmp_path / "it").write_text(script(shell, capsys))
    done = subprocess.run([shell, "-n", str(tmp_path / "it")], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_without_the_extra_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "argcomplete", None)
    assert main(["completion", "bash"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "pip install 'artifactnet[completion]'" in err


def test_one_file_imports_argcomplete():
    folder = Path(__file__).parents[2] / "artifactnet"
    users = [p.name for p in folder.rglob("*.py") if "import argcomplete" in p.read_text()]
    assert users == ["completion.py"]
