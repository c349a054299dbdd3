"""Bodies of requests: what is read, what is refused, and how much is held."""

import asyncio
import base64
import builtins
import json
import tempfile
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving_stubs import cut

from artifactnet.serving import uploads
from artifactnet.serving.refused import Refused, Upload
from artifactnet.serving.uploads import Buffered, parse_json, read_uploads

TYPE = "multipart/form-data; boundary=b"


def read(headers, pieces, *, limit=10_000_000, buffered=None, images=4, timeout=5.0, pause=0.0):
    """Read a body; returns the images and how many pieces were taken."""
    taken = 0

    async def stream():
        nonlocal taken
        for piece in pieces:
            taken += 1
            await asyncio.sleep(pause)
            yield piece

    whole = buffered or Buffered(100_000_000)

    async def run():
        with whole.open() as share:
            return await read_uploads(
                headers, stream(), share, max_bytes=limit, max_images=images, timeout=timeout
            )

    try:
        return asyncio.run(run()), taken
    finally:
        assert whole.held == 0


def refusal(*args, **options):
    with pytest.raises(Refused) as refused:
        read(*args, **options)
    assert "\n" not in refused.value.detail
    return refused.value


def encoded(files):
    """A body and its headers as httpx writes them."""
    request = httpx.Request("POST", "http://x", files=[("images", file) for file in files])
    return {"content-type": request.headers["content-type"]}, request.read()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.binary(max_size=200), min_size=1, max_size=4),
    st.integers(1, 400),
    st.sampled_from([b"", b"\r\n--", b"\r\n", b"--b--\r\n"]),
)
def test_files_arrive_as_a_client_sent_them(contents, size, tail):
    files = [(f"{k} ü.jpg", content + tail) for k, content in enumerate(contents)]
    headers, body = encoded(files)
    found, _ = read(headers, cut(body, size))
    assert found == [Upload(name, content) for name, content in files]


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "..\\y.jpg", "a\u202egpj.exe", "x" * 900]
)
def test_names_are_kept_and_open_nothing(name, monkeypatch):
    headers, body = encoded([(name, b"content")])

    def forbidden(*args, **options):
        raise AssertionError("a file was opened")

    for module, function in ((builtins, "open"), (tempfile, "SpooledTemporaryFile")):
        monkeypatch.setattr(module, function, forbidden)
    assert read(headers, [body])[0] == [Upload(name, b"content")]


def test_nothing_touches_the_disk_whatever_the_size(monkeypatch):
    def forbidden(*args, **options):
        raise AssertionError("a temporary file was made")

    for function in ("SpooledTemporaryFile", "TemporaryFile", "NamedTemporaryFile", "mkstemp"):
        monkeypatch.setattr(tempfile, function, forbidden)
    headers, body = encoded([("a", bytes(5_000_000))])
    assert read(headers, cut(body, 65536))[0] == [Upload("a", bytes(5_000_000))]


def test_an_announced_size_is_refused_before_a_byte_is_read():
    headers = {"content-type": TYPE, "content-length": "1073741824"}
    with pytest.raises(Refused) as refused:
        assert read(headers, [b"x"])
    assert refused.value.status == 413
    assert "10000000 bytes" in refused.value.detail


@pytest.mark.parametrize("kind", [TYPE, "application/json"])
def test_an_endless_body_is_cut_off_while_it_streams(kind):
    start = b'--b\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\n'
    pieces = (start if k == 0 and kind == TYPE else bytes(65536) for k in range(10**9))
    tracemalloc.start()
    found = refusal({"content-type": kind}, pieces, limit=1_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.status == 413
    assert peak < 3_000_000


def test_a_slow_body_is_given_up():
    headers, body = encoded([("a", b"content")])
    found = refusal(headers, cut(body, 1), pause=0.02, timeout=0.3)
    assert (found.status, found.retry_after) == (408, None)
    assert "not complete after 0.3 s" in found.detail


def test_uploads_together_hold_no_more_than_they_may():
    whole = Buffered(1000)
    other = whole.open()
    other.add(900)
    headers, body = encoded([("a", bytes(500))])

    async def run():
        async def pieces():
            for piece in cut(body, 50):
                yield piece

        with whole.open() as share:
            await read_uploads(headers, pieces(), share, max_bytes=10_000, max_images=1, timeout=5)

    with pytest.raises(Refused) as refused:
        asyncio.run(run())
    assert (refused.value.status, refused.value.retry_after) == (503, 1.0)
    assert whole.held == 900
    other.release()
    other.release()
    assert whole.held == 0
    assert read(headers, cut(body, 50), buffered=whole)[0] == [Upload("a", bytes(500))]


PART = b'--b\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\n'


@pytest.mark.parametrize(
    ("headers", "body", "status", "words"),
    [
        ({}, b"", 415, "multipart/form-data, or in base64"),
        ({"content-type": "image/jpeg"}, b"x", 415, "multipart/form-data"),
        ({"content-type": TYPE, "content-encoding": "gzip"}, b"x", 415, "Content-Encoding"),
        ({"content-type": "multipart/form-data"}, b"x", 400, "no boundary"),
        ({"content-type": TYPE.replace("=b", "=" + "b" * 999)}, b"x", 400, "oundary"),
        ({"content-type": TYPE}, b"hello", 400, "damaged multipart"),
        ({"content-type": TYPE}, PART + b"half", 400, "ends before its last boundary"),
        ({"content-type": TYPE}, b"--b--\r\n", 400, "no image"),
        (
            {"content-type": TYPE},
            b'--b\r\nContent-Disposition: form-data; name="images"\r\n\r\n/etc/passwd\r\n--b--\r\n',
            400,
            "field 'images' is text, not a file",
        ),
        ({"content-type": TYPE}, b"--b\r\n\r\nx\r\n--b--\r\n", 400, "is text, not a file"),
        ({"content-type": TYPE}, b"--b\r\n" + b"X: y\r\n" * 99 + b"\r\n", 400, "damaged"),
        ({"content-type": TYPE}, b"--b\r\nX: " + b"y" * 99999, 400, "damaged"),
        ({"content-type": TYPE}, (PART + b"x\r\n") * 5 + b"--b--\r\n", 413, "more than 4 images"),
    ],
)  # fmt: skip
def test_bodies_that_are_refused(headers, body, status, words):
    found = refusal(headers, [body])
    assert found.status == status
    assert words in found.detail


def document(*entries):
    return json.dumps({"images": list(entries)}).encode()


def test_json_with_base64():
    content = bytes(range(256))
    body = document(
        {"data": base64.b64encode(content).decode(), "name": "../a\ud800.jpg"}, {"data": ""}
    )
    found, _ = read({"content-type": "application/json; charset=utf-8"}, cut(body, 7))
    assert found == [Upload("../a?.jpg", content), Upload("", b"")]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "not JSON"),
        (b"{" * 100, 400, "not JSON"),
        (b"[" * 15_000, 400, "not JSON"),
        (b"\xff\xfe", 400, "not JSON"),
        (b"[]", 400, "no list of images"),
        (b'{"images": {}}', 400, "no list of images"),
        (b'{"images": ["/etc/passwd"]}', 400, "images[0] must be an object"),
        (b'{"images": [{"url": "http://x/a.jpg"}]}', 400, "images[0] must be an object"),
        (b'{"images": [{"data": "AAAA", "path": "/a"}]}', 400, "images[0] must be an object"),
        (b'{"images": [{"data": 7}]}', 400, "images[0] must be an object"),
        (b'{"images": [{"data": "AAA"}]}', 400, "not base64"),
        (b'{"images": [{"data": "\xc3\xbc"}]}', 400, "not base64"),
        (b'{"images": [{"data": "data:image/png;base64,AAAA"}]}', 400, "before the comma"),
        (document({"data": "", "name": 7}), 400, "its name"),
        (document({"data": "", "name": "x" * 1025}), 400, "its name"),
        (document(*[{"data": ""}] * 5), 413, "more than 4 images"),
        (b'{"images": []}', 400, "no image in the request"),
    ],
)
def test_documents_that_are_refused(body, status, words):
    found = refusal({"content-type": "application/json"}, [body])
    assert found.status == status
    assert words in found.detail


def test_documents_are_parsed_one_after_the_other(monkeypatch):
    """A name outside of ASCII makes four bytes of memory of every letter of the body."""
    original, inside, most = json.loads, 0, 0

    def loads(body):
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.02)
        inside -= 1
        return original(body)

    monkeypatch.setattr(uploads.json, "loads", loads)
    body = document({"data": "AAAA"})
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: parse_json(body, 4), range(8)))
    assert found == [[Upload("", bytes(3))]] * 8
    assert most == 1


@pytest.mark.parametrize("value", [b"[],", b"0,", b'{"a":0},', b'"",'])
def test_a_document_of_many_values_takes_no_memory(value):
    body = b'{"images": [' + value * (4_000_000 // len(value)) + b"0]}"
    tracemalloc.start()
    with pytest.raises(Refused, match="too many values"):
        parse_json(body, 4)
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()
