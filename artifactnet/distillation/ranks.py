"""Sharing the labelling among processes that were launched together (torchrun, srun).

There is no process group yet while images are labelled, and a teacher may take hours, so the
processes talk through small files beside the pseudo-labels: ``rank-LAUNCH-RANK.json`` holds

  launch  drawn by the process when it starts
  state   ``labelling``, ``done`` or ``failed``, then with the ``reason``
  seen    the ``launch`` of every other process that this one has seen
  beat    counts up while the process is alive

A process trusts ``done`` only in a file that has seen its own launch, so that a file of an earlier
run never counts; that needs no clocks in common. One that stops counting is given up after a while.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch

from artifactnet import files
from artifactnet.types import ArtifactNetError

PATIENCE = 1800.0  # seconds without a sign of life, as in torch.distributed; models load slowly
_BEAT = 5.0  # seconds between two signs of life
_POLL = 0.5  # seconds between two looks at the others

# rank and number of processes: of torchrun, and of a step of SLURM (not of a batch script, where
# SLURM_NTASKS counts processes that nobody starts). The processes that Lightning starts itself
# have no RANK: they start when the first one has labelled everything.
_VARIABLES = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"))


def launched_rank() -> tuple[int, int]:
    """Rank of this process and number of processes that were launched together; else (0, 1)."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    for rank, world in _VARIABLES:
        if rank in os.environ and world in os.environ:
            return int(os.environ[rank]), int(os.environ[world])
    return 0, 1


class Ranks:
    """The processes of one launch, seen from one of them.

    Args:
        folder: where their files lie; every process sees it.
        launch: names what they work on together; other launches into the folder are apart.
        rank: of this process.
        world: number of processes.
    """

    def __init__(self, folder: Path, launch: str, rank: int = 0, world: int = 1) -> None:
        name = blake2b(f"{launch} {world}".encode(), digest_size=6).hexdigest()
        self.rank, self.world = rank, world
        self._paths = [folder / f"rank-{name}-{k}.json" for k in range(world)]
        self._state: dict[str, Any] = {"launch": uuid.uuid4().hex, "state": "labelling"}
        self._state |= {"seen": {}, "beat": 0}
        self._written = -_BEAT

    @contextmanager
    def share(self) -> Iterator[None]:
        """Label this process's share inside; afterwards wait until the others have theirs.

        Raises:
            ArtifactNetError: another process failed, or shows no sign of life for `PATIENCE`
                seconds.
        """
        if self.world == 1:
            yield
            return
        self._write()
        try:
            yield
        except BaseException as error:
            self._read_others()
            self._state |= {"state": "failed", "reason": f"{type(error).__name__}: {error}"}
            self._write()
            raise
        self._state["state"] = "done"
        self._write()
        self._wait()

    def beat(self) -> None:
        """Show a sign of life; call it often."""
        if self.world > 1 and time.monotonic() - self._written >= _BEAT:
            self._read_others()
            self._write()

    def _wait(self) -> None:
        last: dict[int, dict[str, Any]] = {}
        changed = dict.fromkeys(range(self.world), time.monotonic())
        while True:
            seen = dict(self._state["seen"])
            others = self._read_others()
            waiting = [rank for rank, other in others.items() if not self._is_done(rank, other)]
            if not waiting or seen != self._state["seen"]:
                self._write()  # before leaving too: the others need to know that they were seen
            if not waiting:
                return
            for rank in waiting:
                if others[rank] != last.get(rank):
                    last[rank], changed[rank] = others[rank], time.monotonic()
                if time.monotonic() - changed[rank] > PATIENCE:
                    raise ArtifactNetError(
                        f"process {rank} of {self.world} shows no sign of life for {PATIENCE:g} "
                        f"seconds ({self._paths[rank]}), and its share of the images is not "
                        "labelled; what was labelled is kept: start all processes again"
                    )
            self.beat()
            time.sleep(_POLL)

    def _is_done(self, rank: int, other: dict[str, Any]) -> bool:
        if other.get("seen", {}).get(str(self.rank)) != self._state["launch"]:
            return False  # not started yet, or left by an earlier launch
        if other["state"] == "failed":
            raise ArtifactNetError(
                f"process {rank} of {self.world} failed to label its share of the images "
                f"({other['reason']}); what was labelled is kept: start all processes again"
            )
        return bool(other["state"] == "done")

    def _read_others(self) -> dict[int, dict[str, Any]]:
        """What each other process wrote last, nothing where it has not; notes who was seen."""
        found: dict[int, dict[str, Any]] = {}
        for rank, path in enumerate(self._paths):
            if rank != self.rank:
                try:
                    found[rank] = json.loads(path.read_text(encoding="utf-8"))
                    self._state["seen"][str(rank)] = found[rank]["launch"]
                except FileNotFoundError:
                    found[rank] = {}
        return found

    def _write(self) -> None:
        self._state["beat"] += 1
        self._written = time.monotonic()
        path = self._paths[self.rank]
        try:
            files.write_json(path, self._state)
        except OSError as error:
            raise ArtifactNetError(f"{path}: cannot be written ({error.strerror})") from error
