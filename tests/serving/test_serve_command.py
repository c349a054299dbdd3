"""``artifactnet serve`` as a process: start, answers of every backend, signals, what it refuses."""

import argparse
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from serving_stubs import KEY, make_service
from tiny_exports import pictures, student

from artifactnet import load_model
from artifactnet.cli import main
from artifactnet.cli.serve import add_serve_options
from artifactnet.data.images import encode_png
from artifactnet.exporters.export import export_checked
from artifactnet.models.checkpoint import save_checkpoint
from artifactnet.serving import server
from artifactnet.serving.settings import API_KEY_VARIABLE, ServerSettings
from artifactnet.types import ArtifactNetError


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "run" / "model.safetensors"
    path.parent.mkdir()
    save_checkpoint(student(), path)
    return path


@contextlib.contextmanager
def started(*arguments, key=None):
    """A server's process and URL."""
    environment = {k: v for k, v in os.environ.items() if k != API_KEY_VARIABLE}
    if key is not None:
        environment[API_KEY_VARIABLE] = key
    command = [sys.executable, "-m", "artifactnet", "serve", "--port", "0", "--device", "cpu"]
    process = subprocess.Popen(
        [*command, *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()
        assert line.startswith("serving at http://127.0.0.1:"), process.stderr.read()
        yield process, line.split()[2].rstrip(",")
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def files(images):
    return [("images", (f"{k}.png", encode_png(image))) for k, image in enumerate(images)]


@pytest.mark.slow
def test_answers_are_those_of_predict_and_sigterm_lets_them_finish(model):
    images = pictures(4)
    expected = load_model(model, "cpu").predict(images)
    with started("--model", model, "--drain", "1.5", "--timeout", "20", key=KEY) as (process, url):
        headers = {"Authorization": f"Bearer {KEY}"}
        assert httpx.post(f"{url}/v1/predict", files=files(images)).status_code == 401
        with httpx.Client(base_url=url, headers=headers, timeout=20) as client:
            rows = client.post("/v1/predict", files=files(images)).json()["predictions"]
            found = [row["probability"] for row in rows]
            assert np.abs(np.subtract(found, [e.probability for e in expected])).max() < 1e-6
            (about,) = client.get("/v1/models").json()["models"]
            assert about["name"] == "run/model.safetensors"  # and no other folder of this machine
            assert (about["backend"], about["device"], about["heatmap"]) == ("torch", "cpu", True)
            assert client.get("/readyz").status_code == 200

        host, port = url.removeprefix("http://").split(":")
        body = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n'
        body += encode_png(images[0]) + b"\r\n--b--\r\n"
        with socket.create_connection((host, int(port)), 20) as slow:
            head = (
                "POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; "
                f"boundary=b\r\nContent-Length: {len(body)}\r\nAuthorization: Bearer {KEY}\r\n\r\n"
            )
            slow.sendall(head.encode() + body[:100])
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            assert httpx.get(f"{url}/readyz").status_code == 503  # draining, and still answering
            assert httpx.get(f"{url}/healthz").status_code == 200
            time.sleep(1.5)
            with pytest.raises(httpx.ConnectError):
                httpx.get(f"{url}/healthz")
            slow.sendall(body[100:])
            answer = b""
            while piece := slow.recv(1 << 16):
                answer += piece
        assert answer.startswith(b"HTTP/1.1 200 OK")
        row = json.loads(answer.partition(b"\r\n\r\n")[2])["predictions"][0]
        assert row["probability"] == pytest.approx(expected[0].probability, abs=1e-6)
        _, err = process.communicate(timeout=20)
        assert process.returncode == 0, err
        assert "Traceback" not in err
        assert err.rstrip().endswith("stopped")


@pytest.mark.slow
def test_ctrl_c_stops_an_idle_server_at_once(model):
    with started("--model", model) as (process, url), httpx.Client(base_url=url) as client:
        client.get("/healthz")  # and keeps its connection
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert time.monotonic() - begin < 5


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_exported_models(backend, exported):
    pytest.importorskip(f"{backend}runtime" if backend == "onnx" else backend)
    images = pictures(3)
    expected = load_model(exported, backend=backend).predict(images)
    with (
        started("--model", exported, "--backend", backend) as (_, url),
        httpx.Client(base_url=url, timeout=20) as client,
    ):
        rows = client.post("/v1/predict", files=files(images)).json()["predictions"]
        png = client.post("/v1/heatmap", files=files(images[:1]))
        (about,) = client.get("/v1/models").json()["models"]
    found = [row["probability"] for row in rows]
    assert found == pytest.approx([one.probability for one in expected], abs=1e-6)
    assert about["backend"] == backend
    assert float(png.headers["x-probability"]) == pytest.approx(found[0], abs=1e-6)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    pytest.importorskip("onnxscript")
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    export_checked(student(), path, pictures(4))
    return path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "nothing"], "nothing"),
        (["--max-images", "99"], "--max-images 99 is above --queue 64"),
        (["--max-bytes", "999999999999"], "is above --max-buffered"),
        (["--max-bytes", "10"], "--max-bytes must be 1024 or more"),
        (["--timeout", "0"], "--timeout must be above 0"),
        (["--timeout", "nan"], "--timeout must be above 0"),
        (["--batch-wait-ms", "-1"], "--batch-wait-ms must be 0 or more"),
        (["--port", "65536"], "ports go up to 65535"),
        (["--host", "no.such.host.invalid"], "--host no.such.host.invalid: "),
        (["--host", "no..such"], "--host no..such: "),
        (["--host", "203.0.113.7"], "cannot serve at 203.0.113.7 port"),
    ],
)
def test_options_that_are_refused_in_one_line(options, message, capsys, monkeypatch):
    monkeypatch.delenv(API_KEY_VARIABLE, raising=False)
    assert main(["serve", *options]) == 2
    error = capsys.readouterr().err
    assert message in error.splitlines()[-1]
    assert len([line for line in error.splitlines() if "error" in line]) == 1


def test_a_port_that_is_taken(capsys, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--port", str(port)]) == 2
    assert f"cannot serve at 127.0.0.1 port {port} (" in capsys.readouterr().err


def test_a_port_that_another_server_took_while_the_model_was_loaded():
    service = make_service()
    service.batcher.close()
    with server.open_socket("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with server.open_socket("127.0.0.1", port) as second:
            first.listen()
            with pytest.raises(ArtifactNetError, match=f"cannot serve at 127.0.0.1 port {port} "):
                server.serve(service.predictor, service.model, second, service.settings)


@pytest.mark.parametrize("key", ["", "two words", "schlüssel", "a\nb"])
def test_a_key_that_no_header_can_hold(key, capsys, monkeypatch):
    monkeypatch.setenv(API_KEY_VARIABLE, key)
    assert main(["serve", "--port", "0"]) == 2
    error = capsys.readouterr().err
    assert f"{API_KEY_VARIABLE} must be printable" in error
    assert not key or key not in error


def test_a_server_open_to_others_without_a_key_warns(capsys, monkeypatch):
    monkeypatch.delenv(API_KEY_VARIABLE, raising=False)
    assert main(["serve", "--host", "0.0.0.0", "--port", "0", "--model", "nothing"]) == 2
    error = capsys.readouterr().err
    assert f"may be reached from other machines, and no {API_KEY_VARIABLE} is set" in error


def test_without_the_extra_it_is_named(capsys, monkeypatch):
    from artifactnet.cli import serve

    monkeypatch.setattr(serve, "_PACKAGES", ("fastapi", "no_such_package"))
    assert main(["serve"]) == 2
    assert (
        "serve needs no_such_package: pip install 'artifactnet[serve]'" in capsys.readouterr().err
    )


def test_settings_of_the_command_are_the_defaults():
    parser = argparse.ArgumentParser()
    add_serve_options(parser)
    given, default = parser.parse_args([]), ServerSettings()
    assert given.host == "127.0.0.1"
    assert given.batch_wait_ms == 1000 * default.batch_wait
    for name in set(ServerSettings.__dataclass_fields__) - {"batch_wait"}:
        assert getattr(given, name) == getattr(default, name), name
    with pytest.raises(ArtifactNetError, match="--queue must be 1"):
        ServerSettings(queue=0)


def test_the_page_names_every_option_and_every_figure():
    page = (Path(__file__).parent.parent.parent / "docs" / "serving.md").read_text()
    limits = re.findall(r"^\| `(--[\w-]+)` \| (\S+)", page, re.MULTILINE)
    parser = argparse.ArgumentParser()
    add_serve_options(parser)
    known = {option: action for action in parser._actions for option in action.option_strings}
    for option, default in limits:
        value = known[option].default
        stated = {"cores,": None, "off": False}.get(default, default)
        assert stated == value or float(stated) == value or (option, stated) == ("--max-batch", "8")
    explained = {option for option, _ in limits}
    explained |= {"--help", "--model", "--text", "--device", "--backend", "--host", "--port"}
    assert {option for option in known if option.startswith("--")} == explained
    service = make_service()
    service.batcher.close()
    names = set(re.findall(r"^# TYPE (artifactnet_\w+) ", service.metrics.text().decode(), re.M))
    names = {name for name in names if not name.endswith("_created")}
    assert set(re.findall(r"^\| `(artifactnet_\w+)` \|", page, re.MULTILINE)) == names
