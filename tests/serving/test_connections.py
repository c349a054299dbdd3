"""Real sockets: slow, greedy and rude clients beside good ones."""

import contextlib
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from serving_stubs import cut, make_service, png, post, read_all, running

TYPE = "Content-Type: multipart/form-data; boundary=b\r\n"
FORM = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n'
END = b"\r\n--b--\r\n"
GOOD = FORM + png(51) + END


@contextlib.contextmanager
def serving(**settings):
    service = make_service(**settings)
    with running(service) as port:
        yield service, port


def dial(port):
    return socket.create_connection(("127.0.0.1", port), 20)


def parts(answer):
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    lines = head.decode().lower().split("\r\n")[1:]
    return status, dict(line.split(": ", 1) for line in lines), body


def receive(connection):
    """One answer, of a connection that may stay open."""
    connection.settimeout(20)
    found = b""
    while b"\r\n\r\n" not in found:
        found += connection.recv(1 << 16)
    status, headers, body = parts(found)
    while len(body) < int(headers["content-length"]):
        body += connection.recv(1 << 16)
    return status, headers, body


def still_works(port):
    answer = httpx.post(
        f"http://127.0.0.1:{port}/v1/predict", files={"images": png(51)}, timeout=30
    )
    assert answer.status_code == 200
    assert answer.json()["predictions"][0]["probability"] == 0.8


@pytest.mark.parametrize("start", [b"", b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nX-A: "])
def test_a_slow_head_is_given_up(start):
    with serving(timeout=0.5) as (_, port), dial(port) as connection:
        connection.sendall(start)
        begin, answer = time.monotonic(), b""
        if start:
            with contextlib.suppress(OSError):
                for _ in range(40):  # a byte every 50 ms
                    connection.sendall(b"y")
                    time.sleep(0.05)
        answer = read_all(connection)
        assert time.monotonic() - begin < 10
        if start:
            status, _, body = parts(answer)
            assert status == 408
            assert "head of the request was not complete" in json.loads(body)["detail"]
        else:
            assert answer == b""
        still_works(port)


def test_a_slow_body_is_given_up_and_others_go_on():
    with serving(timeout=1.0) as (service, port), contextlib.ExitStack() as stack:
        slow = [stack.enter_context(dial(port)) for _ in range(50)]
        for connection in slow:
            connection.sendall(post("/v1/predict", GOOD[:80], TYPE, length=len(GOOD)))
        still_works(port)
        for connection in slow:
            status, headers, body = receive(connection)
            assert status == 408
            assert headers["connection"] == "close"
            assert "was not complete after 1 s" in json.loads(body)["detail"]
        assert service._buffered.held == 0


def test_a_client_that_does_not_take_its_answer_loses_the_connection():
    noise = b"".join(bytes([k * 37 % 251 for k in range(i, i + 999)]) for i in range(2000))
    with serving(timeout=0.7) as (service, port), dial(port) as connection:
        original = service.metrics.text
        service.metrics.text = lambda: original() + noise * 10  # 20 MB: no buffer takes it
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(2.5)
        assert 0 < len(read_all(connection)) < len(noise) * 10
        service.metrics.text = original
        still_works(port)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_gigabyte_is_refused_and_the_client_learns_why(chunked):
    """The client sends on and on, and reads the answer only when it cannot send any more."""
    with serving(max_bytes=1_000_000) as (service, port), dial(port) as connection:
        if chunked:
            head = (
                f"POST /v1/predict HTTP/1.1\r\nHost: x\r\n{TYPE}Transfer-Encoding: chunked\r\n\r\n"
            )
            connection.sendall(head.encode())
            piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
            connection.sendall(b"%x\r\n" % len(FORM) + FORM + b"\r\n")
        else:
            connection.sendall(post("/v1/predict", FORM, TYPE, length=1 << 30))
            piece = b"x" * 65536
        sent, most = 0, 0
        for _ in range(500):  # 32 MB
            connection.sendall(piece)
            sent += len(piece)
            most = max(most, service._buffered.held)
        status, headers, body = receive(connection)
        assert status == 413
        assert "larger than 1000000 bytes" in json.loads(body)["detail"]
        assert headers["connection"] == "close"
        assert most <= 1_000_000
        still_works(port)


def test_curl_learns_before_it_sends():
    """A client that asks with ``Expect`` gets the refusal instead of ``100 Continue``."""
    with serving(max_bytes=1_000_000) as (_, port), dial(port) as connection:
        headers = TYPE + "Expect: 100-continue\r\n"
        connection.sendall(post("/v1/predict", b"", headers, length=1 << 30))
        assert receive(connection)[0] == 413
    with serving() as (_, port), dial(port) as connection:
        connection.sendall(post("/v1/predict", b"", headers, length=len(GOOD)))
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 100")
        connection.sendall(GOOD)
        assert receive(connection)[0] == 200


def test_connections_beyond_the_limit_are_refused_and_then_closed():
    with serving(max_connections=3) as (_, port), contextlib.ExitStack() as stack:
        held = [stack.enter_context(dial(port)) for _ in range(3)]
        time.sleep(0.3)
        with dial(port) as connection:
            connection.sendall(post("/v1/predict", GOOD, TYPE))
            status, headers, body = parts(read_all(connection))
        assert (status, headers["retry-after"]) == (503, "1")
        assert "too many connections" in json.loads(body)["detail"]
        more = [stack.enter_context(dial(port)) for _ in range(6)]
        time.sleep(0.3)
        assert read_all(more[-1]) == b""
        for connection in (*held, *more):
            connection.close()
        time.sleep(0.3)
        still_works(port)


def test_a_connection_beyond_the_limit_learns_why_though_its_body_is_large():
    with serving(max_connections=1) as (_, port), dial(port), dial(port) as connection:
        connection.sendall(post("/v1/predict", FORM, TYPE, length=20_000_000))
        for piece in cut(bytes(20_000_000 - len(FORM)), 65536):
            connection.sendall(piece)
        status, headers, _ = receive(connection)
        assert (status, headers["retry-after"]) == (503, "1")


def test_a_client_that_leaves_takes_its_image_out_of_the_queue():
    with serving() as (service, port):
        service.predictor.gate.clear()
        with dial(port) as first, dial(port) as second:
            first.sendall(post("/v1/predict", GOOD, TYPE))
            assert service.predictor.entered.wait(20)
            second.sendall(post("/v1/predict", GOOD, TYPE))
            while service.batcher.held < 2:
                time.sleep(0.01)
            second.close()
            time.sleep(0.3)
            service.predictor.gate.set()
            assert receive(first)[0] == 200
        assert service.predictor.sizes == [1]
        still_works(port)


def test_a_thousand_parallel_requests_get_one_answer_each():
    with serving(queue=16) as (service, port), ThreadPoolExecutor(250) as clients:
        url = f"http://127.0.0.1:{port}/v1/predict"

        def ask(k):
            red = k % 70
            body = FORM + png(red) + END
            with dial(port) as connection:
                connection.sendall(post("/v1/predict", body, TYPE + "Connection: close\r\n"))
                status, headers, answer = parts(read_all(connection))
            found = json.loads(answer)
            if status == 200:
                assert found["predictions"][0]["probability"] == 1 - red / 255
            else:
                assert int(headers["retry-after"]) >= 1
            return status

        statuses = list(clients.map(ask, range(1000)))
        assert set(statuses) == {200, 503}
        assert statuses.count(200) >= 16
        assert service._buffered.held == service.batcher.held == 0
        assert httpx.get(url.replace("predict", "models")).status_code == 200


def test_a_connection_is_kept_for_the_next_request():
    with serving() as (_, port), dial(port) as connection:
        for _ in range(3):
            connection.sendall(post("/v1/predict", GOOD, TYPE))
            assert receive(connection)[0] == 200
        connection.sendall(post("/v1/predict", b"x", "Content-Type: image/png\r\n"))
        assert receive(connection)[0] == 415
    with serving() as (_, port), dial(port) as connection:  # pipelined
        connection.sendall(2 * post("/v1/predict", GOOD, TYPE))
        answer = b""
        while answer.count(b"HTTP/1.1 200 OK") < 2 or not answer.endswith(b"]}"):
            answer += connection.recv(1 << 16)


@pytest.mark.parametrize("rubbish", [b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"\x00" * 99])
def test_rubbish_is_answered_and_closed(rubbish):
    with serving() as (_, port):
        with dial(port) as connection:
            connection.sendall(rubbish + b"\r\n\r\n")
            assert read_all(connection).startswith(b"HTTP/1.1 400 ")
        still_works(port)
