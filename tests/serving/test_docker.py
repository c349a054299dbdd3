"""The container's files name what exists; there is no Docker here to build them with."""

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from artifactnet.cli import _parser
from artifactnet.serving.settings import API_KEY_VARIABLE

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "tools" / "docker"
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text())


def instructions():
    """(name, arguments) of the Dockerfile, with continued lines joined."""
    text = re.sub(r"^#.*\n", "", (FOLDER / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [tuple(line.split(maxsplit=1)) for line in lines if line.strip()]


def values(name):
    return [arguments for each, arguments in instructions() if each == name]


def test_only_instructions_and_all_of_the_source():
    known = {
        *("ARG", "FROM", "RUN", "ENV", "WORKDIR", "COPY", "USER", "EXPOSE", "HEALTHCHECK"),
        *("ENTRYPOINT", "CMD"),
    }
    assert {name for name, _ in instructions()} <= known
    copied = [word for line in values("COPY") for word in line.split()[:-1]]
    assert all((ROOT / name).exists() for name in copied)
    kept = (FOLDER / "Dockerfile.dockerignore").read_text().split()
    assert kept[0] == "*"
    assert {f"!{name}" for name in copied} <= set(kept)
    # what setup.py reads is there when it runs
    needed = set(re.findall(r'ROOT / "([\w.]+)"', (ROOT / "setup.py").read_text()))
    assert needed <= set(copied)


@pytest.mark.parametrize("line", values("RUN"))
def test_shell_lines_are_whole(line):
    assert shlex.split(line)
    assert line.count("(") == line.count(")")


def test_the_command_parses_and_is_healthy_at_the_exposed_port():
    entry, default = (json.loads(values(name)[0]) for name in ("ENTRYPOINT", "CMD"))
    assert entry[0] == "artifactnet"
    args = _parser().parse_args([*entry[1:], *default])
    assert str(args.port) == values("EXPOSE")[0]
    (check,) = values("HEALTHCHECK")
    command = json.loads(check[check.index("CMD ") + 4 :])
    compile(command[2], "healthcheck", "exec")
    assert f":{args.port}/healthz" in command[2]


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_services_build_and_start(name):
    service = COMPOSE["services"][name]
    build = service["build"]
    context = (FOLDER / build["context"]).resolve()
    assert context == ROOT
    assert (context / build["dockerfile"]).is_file()
    arguments = {line.partition("=")[0] for line in values("ARG")}
    assert set(build["args"]) <= arguments
    entry = json.loads(values("ENTRYPOINT")[0])
    args = _parser().parse_args([*entry[1:], *service.get("command", [])])
    assert service["ports"] == [f"127.0.0.1:${{ARTIFACTNET_PORT:-8000}}:{args.port}"]
    assert API_KEY_VARIABLE in service["environment"]
    assert service["read_only"] is True
    # it may finish what it has, and then it is not killed
    assert float(service["stop_grace_period"].rstrip("s")) > args.timeout + args.drain
