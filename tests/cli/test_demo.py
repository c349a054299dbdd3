"""`artifactnet demo`: what is wrong with its options is one line. Its page: tests/demo."""

import socket

import pytest

from artifactnet.cli import main
from artifactnet.demo import page


def test_without_gradio_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(page, "find_spec", lambda name: None)
    assert main(["demo", "--model", "student-nano"]) == 2
    error = capsys.readouterr().err
    assert (
        error == "artifactnet: error: the demo page needs Gradio: pip install 'artifactnet[demo]'\n"
    )


@pytest.mark.parametrize(
    ("host", "port", "reason"),
    [
        ("127.0.0.1", None, "in use"),
        ("no.such.host.invalid", 0, ""),
        ("no..such", 0, "label"),
        ("127.0.0.1", 99999, ""),
    ],
)
def test_a_port_that_cannot_be_used_is_named(capsys, host, port, reason):
    pytest.importorskip("gradio", reason="needs the extra demo")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1] if port is None else port
        options = ["--model", "student-nano", "--host", host, "--port", str(port)]
        assert main(["demo", *options]) == 2
    error = capsys.readouterr().err
    assert f"cannot serve on port {port} of {host} (" in error
    assert reason in error
    assert "--port 0" in error
    assert error.count("\n") == 1


def test_an_unknown_model_is_one_line(capsys):
    pytest.importorskip("gradio", reason="needs the extra demo")
    assert main(["demo", "--model", "nothing-here"]) == 2
    assert "nothing-here: no such model file" in capsys.readouterr().err
