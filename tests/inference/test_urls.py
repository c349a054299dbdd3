"""Images on the web: what is fetched, and what is refused, against a server on this machine."""

import io
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image
from tiny_models import tiny

from artifactnet.cli import main
from artifactnet.inference import urls
from artifactnet.inference.urls import fetch_image
from artifactnet.models.checkpoint import save_checkpoint
from artifactnet.types import ArtifactNetError


def picture() -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


PICTURE = picture()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked.append(self.path)
        path = self.path.partition("?")[0]
        if path in ("/a.png", "/b%20c.png", "/d/%C3%A9.png"):
            self.answer(PICTURE)
        elif path == "/chunks":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for start in range(0, len(PICTURE), 1000):
                piece = PICTURE[start : start + 1000]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
        elif path == "/to":
            self.send_response(302)
            self.send_header("Location", self.path.partition("?")[2])
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif path == "/half":
            self.answer(PICTURE[:100], length=len(PICTURE))
            self.close_connection = True
        elif path == "/large":
            self.answer(b"x", length=10**12)
        elif path == "/endless":
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            try:
                while True:
                    self.wfile.write(bytes(1 << 16))
            except OSError:
                self.close_connection = True
        elif path == "/drip":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            try:
                for _ in range(100):
                    self.wfile.write(b"x")
                    time.sleep(0.05)
            except OSError:
                self.close_connection = True
        elif path == "/silent":
            time.sleep(1)
        elif path == "/text":
            self.answer(b"<html>no image</html>")
        elif path == "/empty":
            self.answer(b"")
        else:
            self.send_error(404)

    def answer(self, content, length=None):
        self.send_response(200)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked = []
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def at(server):
    server.asked.clear()
    return f"http://127.0.0.1:{server.server_port}"


def refusal(url: str, private: bool = False) -> str:
    with pytest.raises(ArtifactNetError) as caught:
        fetch_image(url, private)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "path", ["/a.png", "/a.png?x=1", "/b c.png", "/d/é.png", "/chunks", "/to?/a.png", "/to?a.png"]
)
def test_it_fetches_the_content(at, path):
    assert fetch_image(at + path, private=True) == PICTURE


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/gone", "answered 404"),
        ("/half", f"broke off after 100 of {len(PICTURE)} bytes"),
        ("/large", "1000000000000 bytes are more than"),
        ("/empty", "the answer is empty"),
        ("/to?/gone", "answered 404"),
        ("/to?file:///etc/passwd", "file is not http or https"),
        ("/to?ftp://127.0.0.1/a.png", "ftp is not http or https"),
        ("/to?http://user:word@127.0.0.1/", "no user or password"),
    ],
)
def test_it_says_what_is_wrong(at, path, said):
    assert said in refusal(at + path, private=True)


def test_redirects_end(at, server, monkeypatch):
    monkeypatch.setattr(urls, "MAX_REDIRECTS", 2)
    chain = "/to?/to?/to?/a.png"  # each answer is what is behind the first question mark
    assert refusal(at + chain, private=True) == "more than 2 redirects"
    assert len(server.asked) == 3
    assert fetch_image(at + chain.removeprefix("/to?"), private=True) == PICTURE


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "0.0.0.0",
        "10.1.2.3",
        "192.168.0.1",
        "172.16.5.4",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[fe80::1]",
        "[fd00::1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "2130706433",
        "0x7f.1",
    ],
)
def test_private_addresses_are_refused(host, monkeypatch):
    def connect(*args, **kwargs):
        raise AssertionError("it was asked")

    monkeypatch.setattr(socket, "create_connection", connect)
    said = refusal(f"http://{host}/a.png")
    assert "no public address" in said or "cannot be fetched" in said


def test_a_redirect_to_a_private_address_is_refused(at, server, monkeypatch):
    """The first host counts as public; the second is a number that is not."""
    real = urls._is_public
    monkeypatch.setattr(urls, "_is_public", lambda a: a == "127.0.0.1" or real(a))
    assert "10.0.0.1, which is no public address" in refusal(f"{at}/to?http://10.0.0.1/a.png")
    assert len(server.asked) == 1


def test_one_private_address_among_several_is_enough(monkeypatch):
    found = [(2, 1, 6, "", (address, 80)) for address in ("93.184.216.34", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: found)
    assert "no public address" in refusal("http://both.example/a.png")


def test_the_address_that_was_checked_is_asked(at, server, monkeypatch):
    """A name that means another address a moment later changes nothing."""
    answers = iter(["127.0.0.1", "10.0.0.1"])
    port = server.server_port
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *a, **k: [(2, 1, 6, "", (next(answers), port))]
    )
    connected = []

    def connect(address, timeout):
        connected.append(address)
        plain = socket.socket()
        plain.connect(address)
        return plain

    monkeypatch.setattr(socket, "create_connection", connect)
    assert fetch_image(f"http://turns.example:{port}/a.png", private=True) == PICTURE
    assert connected == [("127.0.0.1", port)]


def test_more_than_the_limit_is_not_read(at, monkeypatch):
    monkeypatch.setattr(urls, "MAX_BYTES", 1 << 20)
    assert "more than 1048576 bytes" in refusal(f"{at}/endless", True)


def test_a_slow_answer_ends(at, monkeypatch):
    monkeypatch.setattr(urls, "TOTAL_TIMEOUT", 0.3)
    start = time.monotonic()
    assert refusal(f"{at}/drip", True) == "not there after 0.3 s"
    assert time.monotonic() - start < 2


def test_a_silent_server_ends(at, monkeypatch):
    monkeypatch.setattr(urls, "TIMEOUT", 0.2)
    assert "no answer for 0.2 s" in refusal(f"{at}/silent", True)


@pytest.mark.parametrize("url", ["http://", "http://[::1", "http://a:b/", "http://a\x00b/"])
def test_bad_urls_are_one_line(url):
    assert refusal(url)


@pytest.fixture
def encrypted(tmp_path, monkeypatch):
    """Address of a server with a certificate for localhost that is trusted here."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.daemon_threads = [], True
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    yield server.server_port
    server.shutdown()
    server.server_close()


def test_certificates_are_checked(encrypted, monkeypatch):
    monkeypatch.setattr(urls, "_resolve", lambda host, port, private: ("127.0.0.1", port))
    assert fetch_image(f"https://localhost:{encrypted}/a.png") == PICTURE
    assert "certificate" in refusal(f"https://other.example:{encrypted}/a.png")
    monkeypatch.delenv("SSL_CERT_FILE")
    assert "certificate" in refusal(f"https://localhost:{encrypted}/a.png")


def test_https_to_a_server_without_is_one_line(at):
    assert "cannot be fetched" in refusal(at.replace("http:", "https:") + "/a.png", True)


# --- predict ------------------------------------------------------------------------------


@pytest.fixture
def predict(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_checkpoint(tiny(seed=1), "model.safetensors")
    Path("a.png").write_bytes(PICTURE)
    return lambda *words: main(["predict", *words, "--model", "model.safetensors"])


def test_predict_fetches_only_when_asked(at, server, predict, capsys):
    url = f"{at}/a.png"
    assert predict(url, "--json") == 1
    assert f"{url}: a URL, which only `predict --allow-urls` fetches" in capsys.readouterr().err
    assert predict(url, "--json", "--allow-urls") == 1
    assert "127.0.0.1, which is no public address" in capsys.readouterr().err
    assert predict(url, "--json", "--allow-private-urls") == 2
    assert server.asked == []
    capsys.readouterr()
    private = ("--allow-urls", "--allow-private-urls")
    assert predict(url, "a.png", url, f"{at}/text", f"{at}/gone", *private, "--out", "out") == 0
    err = capsys.readouterr().err
    assert f"{at}/text: " in err
    assert f"{at}/gone: the server answered 404" in err
    lines = [json.loads(line) for line in Path("out/predictions.jsonl").read_text().splitlines()]
    assert [line["path"] for line in lines] == [url, "a.png"]
    assert lines[0]["probability"] == pytest.approx(lines[1]["probability"], abs=1e-6)
    assert (lines[0]["generator"], lines[0]["uid"]) == (None, quote(url, safe=""))
    folder = Path("out/heatmaps").resolve()
    for line in lines:
        assert Path("out", line["heatmap"]).resolve().parent == folder
        assert Path("out", line["heatmap"]).is_file()


def test_a_url_cannot_choose_where_its_picture_goes(at, predict):
    url = f"{at}/to?/a.png#/../../../../x"
    assert predict(url, "--allow-urls", "--allow-private-urls", "--out", "o/p") == 0
    (line,) = map(json.loads, Path("o/p/predictions.jsonl").read_text().splitlines())
    assert Path("o/p", line["heatmap"]).resolve().parent == Path("o/p/heatmaps").resolve()
    assert sorted(p.name for p in Path("o").iterdir()) == ["p"]
