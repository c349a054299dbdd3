"""How much of a model's speed `artifactnet serve` keeps, and whether it stands hostile clients."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from artifactnet.cli.arguments import add_value, natural, positive
from artifactnet.inference.inputs import ImageInput
from artifactnet.inference.load import load_model
from artifactnet.inference.predictor import Predictor
from artifactnet.types import ArtifactNetError
from artifactnet.weights import DEFAULT
from perf.harness import (
    add_report_options,
    check_out,
    check_setting,
    make_report,
    spread,
    take_turns,
    write_report,
)
from perf.hostile_clients import HOSTILE, HOSTILE_BYTES, dribble, exchange, upload
from perf.predict import make_crops

BARE, FORWARD = "predictor", "forward passes"
_IMAGES = 32  # different ones
_TICKS = os.sysconf("SC_CLK_TCK")
_PATIENCE = 120.0  # seconds for a server to start, and for one answer
_TOLERANCE = 1e-4  # of a probability in a batch of another size
_WARM = 0.2  # share of the soak before memory is judged
_DRIBBLERS = 8  # clients that send a byte now and then, all the time


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Attributes:
        model: what ``serve --model`` takes.
        backend: as of ``serve``; None: what the file is made for.
        device: of the model, here and there.
        threads: processor threads of the model, here and there; 0 leaves it to the backend.
        max_batch: images that pass through the model together, here and there.
        workers: threads that decode, here and there.
        size: side of the JPEG files, pixels.
        clients: numbers of clients, each of which asks again when it has its answer.
        requests: of each timed round, one image each.
        repeats: rounds.
        soak: requests of the soak; 0: none.
        soak_clients: at a time.
        hostile: share of requests that are hostile.
    """

    model: str = DEFAULT
    backend: str | None = None
    device: str = "auto"
    threads: int = 0
    max_batch: int = 8
    workers: int = 2
    size: int = 512
    clients: Sequence[int] = (1, 8, 64)
    requests: int = 200
    repeats: int = 3
    soak: int = 20_000
    soak_clients: int = 8
    hostile: float = 0.05


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the benchmark."""
    option, default = parser.add_argument, Setting()
    option("--model", default=DEFAULT, metavar="PATH", help=f"as for serve ({DEFAULT})")
    option("--backend", choices=("torch", "onnx", "openvino"))
    option("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    add_value(parser, "--threads", natural, 0, "of the model")
    add_value(parser, "--max-batch", positive, default.max_batch, "images per forward pass (8)")
    add_value(parser, "--workers", positive, default.workers, "threads that decode (2)")
    add_value(parser, "--size", positive, default.size, "side of the images (512)", "PIXELS")
    option(
        "--clients", type=positive, nargs="+", default=list(default.clients), metavar="N",
        help="clients at a time (1 8 64)",
    )  # fmt: skip
    add_value(parser, "--requests", positive, default.requests, "of each timed round (200)")
    add_value(parser, "--soak", natural, default.soak, "requests of the soak; 0: none (20000)")
    add_value(parser, "--soak-clients", positive, default.soak_clients, "at a time (8)")
    add_value(parser, "--hostile", float, default.hostile, "share of the soak (0.05)", "X")
    add_report_options(parser, default.repeats)


def run(args: argparse.Namespace) -> int:
    """Run, print and write the report; 1 if the soak found a failure."""
    check_out(args.out)
    names = Setting.__dataclass_fields__
    report = benchmark_serving(Setting(**{name: getattr(args, name) for name in names}))
    write_report(args.out, report)
    print(f"first answer {report['first_answer_seconds']:.1f} s after the start")
    for form, result in report["forms"].items():
        line = f"{form:<16} {result['images_per_second']['median']:8.2f} images/s"
        if "share_of_predictor" in result:
            shares = [result[f"share_of_{name}"] for name in ("predictor", "forward")]
            line += "".join(
                f"  {s['median']:6.1%} ({s['min']:.1%} to {s['max']:.1%}) of the {name}"
                for s, name in zip(shares, (BARE, FORWARD), strict=True)
            )
            line += (
                f"  processor {result['cpu_share']['median']:.1%}"
                f"  p50 {result['p50']:.3f} s, p99 {result['p99']:.3f} s"
            )
        print(line)
    soak = report["soak"]
    if soak is None:
        return 0
    memory = soak["memory"]
    print(
        f"soak: {soak['good']} good requests, {soak['failures']} failed; "
        f"{soak['hostile']} hostile, {soak['unexpected']} answered unexpectedly; "
        f"{soak['requests_per_second']:.1f} requests/s"
    )
    print(
        f"  memory {memory['megabytes'][0]:.0f} MB at first, {memory['megabytes'][-1]:.0f} MB at "
        f"last, peak {memory['peak']:.0f} MB, {memory['megabytes_per_1000_requests']:+.2f} MB per "
        f"1,000 requests; open files {soak['files'][0]} and {soak['files'][1]}; exit code "
        f"{soak['exit_code']}"
    )
    for line in soak["examples"]:
        print(f"  {line}")
    return int(bool(soak["failures"] or soak["unexpected"] or soak["exit_code"]))


def benchmark_serving(setting: Setting) -> dict[str, Any]:
    """Time a server's process beside the same model in this one, then let it soak.

    Every round times, in turns, the predictor on the content of the files (it decodes ahead with
    as many threads as the server), forward passes alone on images that were prepared before, and
    the server at each number of clients, which send the same files over loopback.

    Returns:
        a report for ``json.dumps``: of each form ``images_per_second``; of the server's also its
        shares of the other two, ``cpu_share`` (processor seconds of the predictor per those of the
        server) and latencies, seconds; ``soak``, see `_soak`.

    Raises:
        ArtifactNetError: no such model, a number out of range, or the server failed.
    """
    counts = ("max_batch", "workers", "size", "requests", "repeats", "soak_clients")
    check_setting({name: getattr(setting, name) for name in counts})
    if not 0 <= setting.hostile <= 1:
        raise ArtifactNetError(f"hostile must be in 0..1, not {setting.hostile}")
    predictor = load_model(
        setting.model, setting.device, backend=setting.backend, threads=setting.threads
    )
    assert isinstance(predictor, Predictor), f"{setting.model}: the benchmark times detectors"
    with tempfile.TemporaryDirectory() as scratch:
        files = make_crops(Path(scratch), _IMAGES, setting.size)
        contents = [file.read_bytes() for file in files]
    images = [ImageInput(str(k), contents[k % len(contents)]) for k in range(setting.requests)]
    cases = _bare_cases(predictor, setting, images)
    latencies: dict[str, list[float]] = {}
    with served(setting, []) as server:
        first = asyncio.run(_first_answer(server, contents[0]))
        for clients in setting.clients:
            form = f"{clients} client{'' if clients == 1 else 's'}"
            latencies[form] = []
            cases[form] = _load(server, contents, clients, setting.requests, latencies[form])
        for case in cases.values():
            case()  # warm
        for found in latencies.values():
            found.clear()
        cpu: dict[str, list[float]] = {name: [] for name in cases}
        times = take_turns(
            {name: _with_cpu(case, server, cpu[name]) for name, case in cases.items()},
            setting.repeats,
        )
    forms: dict[str, Any] = {}
    for name in cases:
        walls = [own.wall for own in times[name]]
        forms[name] = {"images_per_second": spread(setting.requests / wall for wall in walls)}
        if name not in latencies:
            continue
        for base, key in ((BARE, "predictor"), (FORWARD, "forward")):
            pairs = zip(times[base], times[name], strict=True)
            forms[name][f"share_of_{key}"] = spread(b.wall / own.wall for b, own in pairs)
        bare = [own.cpu for own in times[BARE]]
        forms[name]["cpu_share"] = spread(b / own for b, own in zip(bare, cpu[name], strict=True))
        forms[name] |= {f"p{q}": float(np.percentile(latencies[name], q)) for q in (50, 99)}
    soak = _soak(setting, contents, predictor) if setting.soak else None
    options = {name: getattr(setting, name) for name in Setting.__dataclass_fields__}
    return make_report("serving", options, BARE, first_answer_seconds=first, forms=forms, soak=soak)


def _bare_cases(
    predictor: Predictor, setting: Setting, images: Sequence[ImageInput]
) -> dict[str, Callable[[], object]]:
    """The same images through the same model, without a server."""
    size, workers = setting.max_batch, setting.workers
    options = predictor.options(size, heatmaps=False)
    prepared = [predictor.prepare(k, image, options) for k, image in enumerate(images[:_IMAGES])]
    batches = [prepared[k : k + size] for k in range(0, len(prepared), size)]
    passes = math.ceil(len(images) / size)

    def forward() -> None:
        for k in range(passes):
            left = len(images) - k * size
            list(predictor.answer((batches[k % len(batches)] * size)[: min(size, left)], options))

    return {
        BARE: lambda: list(predictor.predict_stream(images, size, workers, False)),
        FORWARD: forward,
    }


@dataclass(frozen=True)
class Server:
    """A server's process.

    Attributes:
        process: of it.
        port: on loopback.
        started: when it was started, of `time.perf_counter`.
    """

    process: subprocess.Popen[str]
    port: int
    started: float

    def cpu_seconds(self) -> float:
        """Processor seconds that it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def resident(self) -> float:
        """Its resident memory, MB (of 2^20 bytes)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
        assert found is not None
        return int(found[1]) / 1024

    def open_files(self) -> int:
        """Files and sockets that it holds."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


@contextmanager
def served(setting: Setting, options: Sequence[str]) -> Iterator[Server]:
    """A server of the model, in a process of its own.

    Args:
        setting: of the benchmark.
        options: of ``serve``, beside those that the setting says.

    Raises:
        ArtifactNetError: it did not start.
    """
    queue = 2 * max(*setting.clients, setting.soak_clients, setting.max_batch, 32)
    command = [sys.executable, "-m", "artifactnet", "serve", "--port", "0", "--queue", str(queue)]
    command += ["--model", setting.model, "--device", setting.device]
    command += ["--threads", str(setting.threads), "--max-batch", str(setting.max_batch)]
    command += ["--workers", str(setting.workers), "--timeout", str(_PATIENCE), *options]
    if setting.backend is not None:
        command += ["--backend", setting.backend]
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert process.stdout is not None
        try:
            found = re.search(r"http://127\.0\.0\.1:(\d+)", process.stdout.readline())
            if found is None:
                log.seek(0)
                reason = (log.read().strip().splitlines() or ["no message"])[-1]
                raise ArtifactNetError(f"the server did not start: {reason}")
            yield Server(process, int(found[1]), started)
        finally:
            process.terminate()
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()


async def _first_answer(server: Server, content: bytes) -> float:
    """Seconds from the start of the process."""
    status, _ = await exchange(server.port, upload(content, close=True))
    if status != 200:
        raise ArtifactNetError(f"the server's first answer has status {status}")
    return time.perf_counter() - server.started


def _with_cpu(case: Callable[[], object], server: Server, found: list[float]) -> Callable[[], None]:
    def timed() -> None:
        before = server.cpu_seconds()
        case()
        found.append(server.cpu_seconds() - before)

    return timed


def _load(
    server: Server, contents: Sequence[bytes], clients: int, requests: int, latencies: list[float]
) -> Callable[[], None]:
    """A round of requests by clients that keep their connections."""
    bodies = [upload(content) for content in contents]

    async def client(numbers: Iterator[int]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        try:
            for number in numbers:
                begin = time.perf_counter()
                writer.write(bodies[number % len(bodies)])
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head)
                assert length is not None
                body = await reader.readexactly(int(length[1]))
                if not head.startswith(b"HTTP/1.1 200 "):
                    raise ArtifactNetError(f"the server refused a good request: {body!r:.200}")
                latencies.append(time.perf_counter() - begin)
        finally:
            writer.close()

    async def all_clients() -> None:
        numbers = iter(range(requests))  # of all clients together
        await asyncio.gather(*(client(numbers) for _ in range(clients)))

    return lambda: asyncio.run(all_clients())


def _soak(setting: Setting, contents: Sequence[bytes], predictor: Predictor) -> dict[str, Any]:
    """Good and hostile requests in random order, while memory is watched.

    Returns:
        ``good``, of which ``failures`` had another answer than the predictor gives, or none;
        ``hostile``, of which ``unexpected`` were answered otherwise than they should be;
        ``statuses`` of the hostile by kind; ``examples`` of both; ``memory``: resident megabytes
        at intervals, their ``peak`` and the slope after the first fifth; ``files``: open ones
        before and after; ``exit_code`` of the server after SIGTERM.
    """
    images = [ImageInput(str(k), content) for k, content in enumerate(contents)]
    answers = predictor.predict_stream(images, setting.max_batch, 0, False)
    expected = [answer.probability for answer in answers]  # type: ignore[union-attr]
    random_order = random.Random(0)
    hostile = list(HOSTILE)
    outcome = _Outcome()
    limits = ["--max-bytes", str(HOSTILE_BYTES), "--max-pixels", "4000000"]
    with served(setting, limits) as server:
        watch = _MemoryWatch(server, outcome)
        files = [server.open_files()]
        begin = time.perf_counter()

        async def client(numbers: Iterator[int]) -> None:
            for number in numbers:
                if random_order.random() < setting.hostile:
                    kind = hostile[number % len(hostile)]
                    status = await HOSTILE[kind].attack(server.port, contents[number % _IMAGES])
                    outcome.count_hostile(kind, status, HOSTILE[kind].allowed)
                else:
                    which = number % len(contents)
                    request = upload(contents[which], close=True)
                    outcome.count_good(expected[which], *await exchange(server.port, request))

        async def work() -> None:
            numbers = iter(range(setting.soak))
            slow = [asyncio.create_task(dribble(server.port)) for _ in range(_DRIBBLERS)]
            await asyncio.gather(*(client(numbers) for _ in range(setting.soak_clients)))
            for task in slow:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

        with watch:
            asyncio.run(work())
        seconds = time.perf_counter() - begin
        time.sleep(1.0)  # for connections to be closed
        files.append(server.open_files())
        server.process.send_signal(signal.SIGTERM)
        code = server.process.wait(_PATIENCE)
    return {
        "good": outcome.good,
        "failures": outcome.failures,
        "hostile": sum(outcome.statuses.values()),
        "unexpected": outcome.unexpected,
        "statuses": {f"{kind}: {status}": n for (kind, status), n in outcome.statuses.items()},
        "examples": outcome.examples,
        "requests_per_second": setting.soak / seconds,
        "memory": watch.report(),
        "files": files,
        "exit_code": code,
    }


class _Outcome:
    """What became of the requests of a soak."""

    def __init__(self) -> None:
        self.good = self.failures = self.unexpected = 0
        self.statuses: Counter[tuple[str, int | None]] = Counter()
        self.examples: list[str] = []

    @property
    def done(self) -> int:
        """Requests so far."""
        return self.good + sum(self.statuses.values())

    def count_good(self, expected: float, status: int | None, body: bytes) -> None:
        """Count an answer to a good request."""
        self.good += 1
        if status == 200:
            found = json.loads(body)["predictions"][0]["probability"]
            if abs(found - expected) <= _TOLERANCE:
                return
            reason = f"probability {found} instead of {expected}"
        else:
            reason = f"status {status}: {body!r:.200}"
        self.failures += 1
        self._show(f"a good request failed: {reason}")

    def count_hostile(self, kind: str, status: int | None, allowed: Sequence[int | None]) -> None:
        """Count an answer to a hostile request."""
        self.statuses[kind, status] += 1
        if status not in allowed:
            self.unexpected += 1
            self._show(f"{kind}: status {status}, not one of {list(allowed)}")

    def _show(self, line: str) -> None:
        if len(self.examples) < 10:
            self.examples.append(line)


class _MemoryWatch(threading.Thread):
    """Looks at a server's memory while the block runs, half a second apart."""

    def __init__(self, server: Server, outcome: _Outcome) -> None:
        super().__init__(daemon=True)
        self._server, self._outcome, self._over = server, outcome, threading.Event()
        self._requests: list[int] = []
        self._megabytes: list[float] = []

    def __enter__(self) -> _MemoryWatch:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()
        self._look()

    def run(self) -> None:
        """See `threading.Thread`."""
        while not self._over.wait(0.5):
            self._look()

    def _look(self) -> None:
        self._requests.append(self._outcome.done)
        self._megabytes.append(self._server.resident())

    def report(self) -> dict[str, Any]:
        """For ``json.dumps``."""
        requests, megabytes = np.array(self._requests, float), np.array(self._megabytes)
        warm = requests >= _WARM * requests[-1]
        slope = float(np.polyfit(requests[warm], megabytes[warm], 1)[0]) if warm.sum() > 2 else 0.0
        shown = np.unique(np.linspace(0, len(requests) - 1, 50).astype(int))
        return {
            "requests": [int(requests[k]) for k in shown],
            "megabytes": [float(megabytes[k]) for k in shown],
            "peak": float(megabytes.max()),
            "megabytes_per_1000_requests": 1000 * slope,
        }
