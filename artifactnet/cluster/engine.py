"""A job on the actors of a Ray cluster, by Ray Data: the one file that imports ray.

The units of the plan stream from its file to a pool of actors. Each holds a model, writes the part
of a unit itself, and returns only its counts. Ray replaces an actor that dies and hands its unit to
the next; since a part is named after its unit and appears as a whole, nothing is lost or twofold.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from artifactnet.cluster.job import Job
from artifactnet.cluster.parts import Answers, PartCounts
from artifactnet.cluster.plan import Plan, Summary, read_plan
from artifactnet.cluster.storage import describe
from artifactnet.cluster.units import Unit
from artifactnet.cluster.worker import Careful, UnitResult, Worker
from artifactnet.inference.inputs import Failure
from artifactnet.types import ArtifactNetError

_IN_FLIGHT = 2  # units that are with an actor: one that it works on, and the next
_FAST = 1  # attempts at a unit before its images are predicted one at a time
_PATIENCE = 10.0  # seconds until a cluster must answer
_HERE = "local"  # how ray calls the address of a cluster that it starts
_ATTEMPTS = 12  # at a unit; each careful one finds one image on which a process dies


@dataclass(frozen=True, slots=True)
class Resources:
    """What a job takes of a cluster.

    Attributes:
        actors: least and most actors; None: from one to as many as the cluster holds now.
        gpus: of each actor; None: 1 where the cluster has any and the device is not ``cpu``.
        cpus: processor cores of each actor.
        address: of a running cluster; None: that of ``RAY_ADDRESS``, or else one is started here.
    """

    actors: tuple[int, int] | None = None
    gpus: float | None = None
    cpus: int = 1
    address: str | None = None


def predict_on_ray(
    job: Job,
    resources: Resources,
    resume: bool = False,
    expect: Callable[[int, int], None] | None = None,
    report: Callable[[UnitResult], None] | None = None,
) -> Summary:
    """Predict the images of a job and write ``predictions/part-*.parquet``, see `parts`.

    Args:
        job: what to do.
        resources: of the cluster.
        resume: go on where an interrupted run stopped, see `plan.Plan`.
        expect: called first with the number of units to do and of the images that are known to be
            in them.
        report: called with every unit that is done.

    Raises:
        ArtifactNetError: ray is not installed, the cluster lacks what an actor needs, the model
            cannot be loaded there, see also `plan.Plan`; or the answers cannot be written.
        KeyboardInterrupt: its message says that the parts that are there are kept.
    """
    need_ray()
    plan = Plan(job, resume)
    if expect is not None:
        expect(plan.todo, plan.images)
    if plan.todo:
        try:
            with started(resources.address):
                for result in _results(job, plan, resources):
                    plan.take(result)
                    if report is not None:
                        report(result)
        except KeyboardInterrupt as stop:
            summary = plan.summary
            stop.args = (f"{summary.parts} parts are in {summary.out}; --resume continues",)
            raise
    return plan.finish()


def need_ray() -> None:
    """Import ray, without telemetry.

    Raises:
        ArtifactNetError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # its core prints an error line about each pool of actors that may restart, and means nothing
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray.data  # noqa: F401
    except ImportError as error:
        raise ArtifactNetError(
            "the ray engine needs the package ray: pip install 'artifactnet[ray]'"
        ) from error


@contextmanager
def started(address: str | None = None, cpus: int | None = None) -> Iterator[None]:
    """Be connected to a cluster; one that is started here ends with the block.

    Args:
        address: see `Resources`.
        cpus: processor cores of a cluster that is started here; None: all of this machine.

    Raises:
        ArtifactNetError: it does not answer, or cannot be started.
    """
    import ray

    if ray.is_initialized():  # by the caller, whose it stays
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS") or _HERE
    here = address == _HERE
    try:
        _knock(address)
        ray.init(
            address=address,
            num_cpus=cpus if here else None,
            include_dashboard=False if here else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (OSError, ValueError, RuntimeError) as error:
        where = "cannot be started here" if here else f"at {address} does not answer"
        reason = " ".join(str(error).split())[:300]
        raise ArtifactNetError(f"the Ray cluster {where} ({reason})") from error
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Look whether anybody is at ``HOST:PORT``; Ray itself would try for minutes.

    Raises:
        OSError: nobody is.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()


def _results(job: Job, plan: Plan, resources: Resources) -> Iterator[UnitResult]:
    """Results of the units of a plan, as they come."""
    import ray
    from ray.data import ActorPoolStrategy, DataContext
    from ray.exceptions import RayError

    gpus, actors = _fit(job, resources)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = 1  # byte: a block, and so a task, is one unit
    context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors are told by us
    attempts = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Attempts).remote()
    source = _plan_source(job.out, plan.file)
    units = ray.data.read_datasource(source, num_cpus=0, override_num_blocks=1)
    results = units.map_batches(
        _Actor,
        fn_constructor_args=(job, attempts),
        batch_size=1,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(
            min_size=actors[0], max_size=actors[1], max_tasks_in_flight_per_actor=_IN_FLIGHT
        ),
        num_cpus=resources.cpus,
        num_gpus=gpus,
    )
    try:
        for batch in results.iter_batches(
            batch_size=None, batch_format="pyarrow", prefetch_batches=0
        ):
            for text in batch.column("result").to_pylist():
                result = _read_result(json.loads(text))
                if result is not None:
                    yield result
    except RayError as error:
        raise _own_error(error) from error


def _fit(job: Job, resources: Resources) -> tuple[float, tuple[int, int]]:
    """GPUs of an actor, and how many actors there are."""
    import ray

    has = ray.cluster_resources()
    gpus = resources.gpus
    if gpus is None:
        gpus = 1.0 if has.get("GPU", 0) and job.model.device != "cpu" else 0.0
    if job.model.device.startswith("cuda") and not gpus:
        raise ArtifactNetError("--device cuda: the cluster has no GPU, or --gpus-per-actor is 0")
    if resources.actors is not None:
        return gpus, resources.actors
    fit = int(has.get("CPU", 0) // resources.cpus)
    if gpus:
        fit = min(fit, int(has.get("GPU", 0) / gpus))
    if not fit:
        raise ArtifactNetError(
            f"no actor of {resources.cpus} cores and {gpus:g} GPUs fits into the cluster, which "
            f"has {has.get('CPU', 0):g} cores and {has.get('GPU', 0):g} GPUs; if it grows on "
            "demand, name the number of actors: --actors 1..8"
        )
    return gpus, (1, fit)


def _plan_source(out: str, file: str) -> Any:
    """The plan as a source of Ray Data: one task, which reads ahead of the actors a little."""
    from ray.data.block import BlockMetadata
    from ray.data.datasource import Datasource, ReadTask

    class PlanSource(Datasource):
        def estimate_inmemory_data_size(self) -> int | None:
            return None

        def get_read_tasks(
            self,
            parallelism: int,
            per_task_row_limit: int | None = None,
            data_context: Any = None,
        ) -> list[ReadTask]:
            metadata = BlockMetadata(
                num_rows=None, size_bytes=None, input_files=None, exec_stats=None
            )
            return [ReadTask(partial(_read_units, out, file), metadata)]

    return PlanSource()


def _read_units(out: str, file: str) -> Iterator[pa.Table]:
    try:
        for line in read_plan(out, file):
            yield pa.table({"unit": [line.decode().rstrip("\n")]})
    except OSError as error:
        raise ArtifactNetError(
            f"{Answers(out).name}: its plan cannot be read ({describe(error)}); every machine of "
            "the cluster must see this folder"
        ) from error


class _Attempts:
    """Counts how often units were begun; an actor of its own.

    A process that dies can say nothing, so what it was at is noted here before.
    """

    def __init__(self) -> None:
        self._begun: dict[str, int] = {}
        self._at: dict[str, int] = {}  # number of the image that is being predicted
        self._died: dict[str, set[int]] = {}

    def begin(self, unit: str) -> tuple[int, frozenset[int], bool]:
        """A unit is begun.

        Returns:
            How many attempts that makes, the images on which processes died, and whether it is
            hopeless.
        """
        self._begun[unit] = self._begun.get(unit, 0) + 1
        died = self._died.setdefault(unit, set())
        number = self._at.pop(unit, None)
        hopeless = number in died or self._begun[unit] > _ATTEMPTS
        if number is not None:
            died.add(number)
        return self._begun[unit], frozenset(died), hopeless

    def at(self, unit: str, number: int) -> None:
        """An image of a unit is predicted next."""
        self._at[unit] = number

    def end(self, unit: str) -> None:
        """A unit is done."""
        for notes in (self._begun, self._at, self._died):
            notes.pop(unit, None)


class _Actor:
    """Holds a model; called with one unit after another."""

    def __init__(self, job: Job, attempts: Any) -> None:
        self._worker, self._attempts = Worker(job), attempts

    def __call__(self, batch: pa.Table) -> dict[str, list[str]]:
        (text,) = batch.column("unit").to_pylist()
        try:
            outcome = self._run(Unit.from_json(text))
        except ArtifactNetError as error:
            outcome = {"error": str(error)}
        except Exception:
            # returned, not raised: Ray would wrap it beyond recognition
            outcome = {"bug": traceback.format_exc()}
        return {"result": [json.dumps(outcome)]}

    def _run(self, unit: Unit) -> dict[str, Any]:
        import ray

        name = unit.id
        attempt, died, hopeless = ray.get(self._attempts.begin.remote(name))
        if hopeless:
            return {"lost": name}
        careful = None
        if attempt > _FAST:
            careful = Careful(died, lambda number: ray.get(self._attempts.at.remote(name, number)))
        result = self._worker.run(unit, careful)
        self._attempts.end.remote(name)
        return {
            "unit": name,
            "counts": {key: getattr(result.counts, key) for key in PartCounts.__slots__},
            "skipped": result.skipped,
            "failures": [[failure.path, failure.reason] for failure in result.failures],
        }


def _read_result(outcome: dict[str, Any]) -> UnitResult | None:
    """What an actor returned; None for a unit that is lost."""
    if "error" in outcome:
        raise ArtifactNetError(outcome["error"])
    if "bug" in outcome:
        raise RuntimeError(f"an actor failed:\n{outcome['bug']}")
    if "lost" in outcome:
        return None
    failures = [Failure(path, reason) for path, reason in outcome["failures"]]
    counts = PartCounts(**outcome["counts"])
    return UnitResult(outcome["unit"], counts, outcome["skipped"], failures)


def _own_error(error: BaseException) -> BaseException:
    """The error of ours that an error of Ray stands for; itself, if there is none."""
    cause: BaseException | None = error
    while cause is not None:
        inner = getattr(cause, "cause", None)  # ray's copies of an error have a trace as text
        if isinstance(cause, ArtifactNetError) and inner is None:
            return ArtifactNetError(str(cause))
        cause = inner or cause.__cause__
    text = str(error)
    marker = f"{ArtifactNetError.__module__}.{ArtifactNetError.__qualname__}: "
    if marker in text:  # of a constructor, of which Ray keeps the text alone
        return ArtifactNetError(text.rpartition(marker)[2].splitlines()[0])
    return error
