"""What the fuzz benchmarks share: cases in other processes, a time limit, counts, a JSON report.

A case is a number; the check makes its input from it, so that one number repeats one case. The
check returns None where the input is used, or the reason for which it is listed; an
`ArtifactNetError` is a reason too. Any other exception, a process that dies and a case that takes
too long are faults.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import re
import resource
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from multiprocessing import connection
from typing import Any

from artifactnet.cli.arguments import add_value, natural, positive
from artifactnet.types import ArtifactNetError

Check = Callable[[int], str | None]
_KEPT = 20  # faults of a kind that the report describes; all are counted
_START = 120.0  # seconds a process may take to start: it imports what the check needs


@dataclass
class FuzzCounts:
    """What came of the cases.

    Attributes:
        cases: how many there were.
        answered: inputs that were used.
        listed: reason (without names and numbers) -> inputs that were refused for it.
        tracebacks, crashes, hangs, noisy: number of cases that raised something else, killed their
            process, took too long, or wrote to the terminal past Python.
        faults: the first of each kind, with the case's number.
        peak_megabytes: largest resident memory of a process.
        seconds: wall time.
        slowest: seconds and number of the slowest case that ended.
    """

    cases: int = 0
    answered: int = 0
    listed: dict[str, int] = field(default_factory=dict)
    tracebacks: int = 0
    crashes: int = 0
    hangs: int = 0
    noisy: int = 0
    faults: list[dict[str, Any]] = field(default_factory=list)
    peak_megabytes: float = 0.0
    seconds: float = 0.0
    slowest: tuple[float, int] = (0.0, -1)

    @property
    def clean(self) -> bool:
        """Whether every input was used or listed, in time.

        What libraries in C print on standard error (libtiff's complaints about damaged data) is
        counted, but no fault of ours.
        """
        return not (self.tracebacks or self.crashes or self.hangs)

    def to_json(self) -> dict[str, Any]:
        """The counts, for a report."""
        return asdict(self)


def add_fuzz_options(parser: argparse.ArgumentParser, cases: int) -> None:
    """``--cases``, ``--seed``, ``--limit``, ``--workers`` and ``--out``."""
    add_value(parser, "--cases", positive, cases, f"mutated inputs ({cases})")
    add_value(parser, "--seed", natural, 0, "of the mutations (0)")
    add_value(parser, "--limit", float, 20.0, "seconds that a case may take (20)", "SECONDS")
    add_value(parser, "--workers", positive, os.cpu_count() or 1, "processes (one per core)")
    parser.add_argument("--out", metavar="JSON", help="file for the report")


def fuzz(check: Check, cases: int, limit: float = 20.0, workers: int = 1) -> FuzzCounts:
    """Run cases 0, 1, ... in ``workers`` processes, each case for at most ``limit`` seconds.

    Args:
        check: a function at the top of a module, or a `functools.partial` of one.
        cases: how many.
        limit: seconds; a case that takes longer is a hang, and its process is ended.
        workers: processes.
    """
    counts, reasons, started = FuzzCounts(cases=cases), Counter[str](), time.monotonic()
    todo = iter(range(cases))
    running = [_Worker(check) for _ in range(min(workers, cases))]
    try:
        for worker in running:
            worker.give(next(todo, None))
        while busy := [worker for worker in running if worker.case is not None]:
            connection.wait([worker.pipe for worker in busy], timeout=0.2)
            for worker in busy:
                if worker.collect(counts, reasons, limit):
                    worker.give(next(todo, None))
    finally:
        for worker in running:
            worker.end()
    counts.listed = dict(reasons.most_common())
    counts.seconds = time.monotonic() - started
    return counts


def print_counts(counts: FuzzCounts) -> None:
    """Print the counts and describe the faults."""
    listed = sum(counts.listed.values())
    print(f"{counts.cases} cases: {counts.answered} used, {listed} listed, ", end="")
    print(
        f"{counts.tracebacks} tracebacks, {counts.crashes} crashes, {counts.hangs} hangs, ", end=""
    )
    print(f"{counts.noisy} with native output")
    print(f"{counts.seconds:.0f} s, at most {counts.peak_megabytes:.0f} MB and ", end="")
    print(f"{counts.slowest[0]:.1f} s a case (case {counts.slowest[1]})")
    for reason, number in counts.listed.items():
        print(f"  {number:6d} {reason}")
    for fault in counts.faults:
        print(f"{fault['kind']} in case {fault['case']}: {fault['text']}")


def reason_of(message: str) -> str:
    """A message without what differs between inputs: names, numbers, quoted parts."""
    text = message.splitlines()[0] if message else "no reason given"
    text = re.sub(r"\(.*\)", "(...)", text)
    text = re.sub(r"'[^']*'|\"[^\"]*\"|b'[^']*'", "'...'", text)
    return re.sub(r"-?\d[\d.,]*", "N", text)[:120]


class _Worker:
    """One process; it is started anew where a case killed it or had to be ended."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self.case: int | None = None
        self._since = 0.0
        self._start()

    def _start(self) -> None:
        # Spawned: a fork would inherit threads and locks of this process.
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self._process = context.Process(target=_work, args=(self._check, other), daemon=True)
        self._process.start()
        other.close()
        if not self.pipe.poll(_START):
            raise RuntimeError(f"a process did not start within {_START:.0f} s")
        try:
            self.pipe.recv()
        except EOFError:
            raise RuntimeError("a process could not start; its error is above") from None

    def give(self, case: int | None) -> None:
        self.case, self._since = case, time.monotonic()
        if case is not None:
            self.pipe.send(case)

    def collect(self, counts: FuzzCounts, reasons: Counter[str], limit: float) -> bool:
        """Count what came of the case; False if it is still running."""
        assert self.case is not None
        seconds = time.monotonic() - self._since
        if self.pipe.poll():
            try:
                kind, text, noise, peak = self.pipe.recv()
            except (EOFError, OSError):
                _fault(counts, "crash", self.case, f"exit code {self._exit_code()}")
                self._start()
                return True
            counts.slowest = max(counts.slowest, (round(seconds, 3), self.case))
            counts.peak_megabytes = max(counts.peak_megabytes, peak)
            if kind == "answered":
                counts.answered += 1
            elif kind == "listed":
                reasons[text] += 1
            else:
                _fault(counts, "traceback", self.case, text)
            if noise:
                _fault(counts, "noise", self.case, noise)
            return True
        if seconds > limit:
            _fault(counts, "hang", self.case, f"more than {seconds:.0f} s")
            self.end()
            self._start()
            return True
        return False

    def _exit_code(self) -> int | None:
        self._process.join(5)
        return self._process.exitcode

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self.pipe.close()


_FIELDS = {"crash": "crashes", "traceback": "tracebacks", "hang": "hangs", "noise": "noisy"}


def _fault(counts: FuzzCounts, kind: str, case: int, text: str) -> None:
    name = _FIELDS[kind]
    number = getattr(counts, name) + 1
    setattr(counts, name, number)
    if number <= _KEPT:
        counts.faults.append({"kind": kind, "case": case, "text": text})


def _work(check: Check, pipe: connection.Connection) -> None:
    """Run the cases that come through the pipe, with the terminal's error stream kept aside."""
    logger = logging.getLogger("artifactnet")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False  # our own warnings are no noise
    pipe.send("ready")
    with tempfile.TemporaryFile() as noise:
        os.dup2(noise.fileno(), 2)
        while True:
            try:
                case = pipe.recv()
            except (EOFError, OSError):
                return
            noise.seek(0)
            noise.truncate()
            kind, text = _verdict(check, case)
            noise.seek(0)
            written = noise.read(2000).decode(errors="replace").strip()
            # kilobytes on Linux
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            pipe.send((kind, text, written, peak))


def _verdict(check: Check, case: int) -> tuple[str, str]:
    try:
        reason = check(case)
    except ArtifactNetError as error:
        message = str(error)
        if "\n" in message:
            return "traceback", f"the error has more than one line: {message!r}"
        return "listed", reason_of(message)
    except BaseException:
        return "traceback", traceback.format_exc()
    return ("answered", "") if reason is None else ("listed", reason_of(reason))
