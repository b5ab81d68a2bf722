"""The bench of bulk edits: planning, reruns, Prefect's share, memory and throughput, by the `wave` command itself."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

from tasks.evaluation.bench._bulk import (
    dataset_command,
    save_clips,
    save_complete_results,
    save_manifest,
    save_source_facts,
)
from tasks.evaluation.bench._processes import WaveProcess, prefect_server, run_wave
from tasks.evaluation.bench.measurements import BenchRequest, Measurement, Section, without_target
from tasks.evaluation.comparisons.comparison import Measure

__all__ = ["BENCH", "OrchestrationBench"]

_PLANNING: Final = Measure(name="planning CPU", unit="s", better="lower", target=60.0)
_RERUN: Final = Measure(name="rerun", unit="s", better="lower", target=20.0)
_RERUN_CPU: Final = Measure(name="rerun CPU", unit="s", better="lower")
_CLIENT: Final = Measure(name="Prefect in the client, CPU per clip", unit="s", better="lower")
_SERVER: Final = Measure(name="Prefect's server, CPU per clip", unit="s", better="lower")
_SHARE: Final = Measure(name="Prefect's CPU per clip", unit="s", better="lower", target=1.5)
_GROWTH: Final = Measure(name="memory growth", unit="MB", better="lower", target=50.0)
_PEAK: Final = Measure(name="memory at the end", unit="MB", better="lower")
_DATASET: Final = Measure(name="wave dataset", unit="s", better="lower")
_EDITS: Final = Measure(name="wave edit, one after the other", unit="s", better="lower")
_RATIO: Final = Measure(name="wave dataset / wave edit", unit="fraction", better="lower", target=0.5)


class OrchestrationBench:
    """Bulk edits of tiny drawn clips, through the `wave` command and a Prefect server of the bench's own."""

    name = "orchestration"
    title = "What do planning, Prefect and the runs of a data set cost in addition to the stages?"

    def sections(self, request: BenchRequest) -> tuple[Section, ...]:
        """Return the sections to measure. With `quick` or `rows`, targets set for another number are left out."""
        return (
            _section("planning", _measure_planning, request, rows=100_000, quick=200),
            _section("rerun", _measure_rerun, request, rows=1_000, quick=20),
            _section("share", _measure_share, request, rows=12, quick=4),
            _section("memory", _measure_memory, request, rows=300, quick=6),
            _section("throughput", _measure_throughput, request, rows=20, quick=2),
        )


def _section(
    title: str,
    measure: Callable[[Path, int], Iterator[Measurement]],
    request: BenchRequest,
    *,
    rows: int,
    quick: int,
) -> Section:
    count = request.rows or (quick if request.quick else rows)
    return Section(title=title, measure=partial(_in_folder, measure, count, check_targets=count == rows))


def _in_folder(
    measure: Callable[[Path, int], Iterator[Measurement]], count: int, *, check_targets: bool
) -> Iterator[Measurement]:
    with tempfile.TemporaryDirectory(prefix="wave-bench-") as folder:
        for found in measure(Path(folder), count):
            kept = found.measure if check_targets else without_target(found.measure)
            yield Measurement(measure=kept, subject=found.subject, value=found.value)


def _measure_planning(folder: Path, count: int) -> Iterator[Measurement]:
    """Plan rows over a hundredth as many sources, all of them known; imports are included."""
    clips = save_clips(folder, max(count // 100, 1))
    save_source_facts(clips, folder)
    manifest = save_manifest(folder, clips, rows=count)
    found = run_wave(*dataset_command(manifest, folder), "--dry-run")
    yield Measurement(measure=_PLANNING, subject=f"{count} rows, {len(clips)} known sources", value=found.cpu)


def _measure_rerun(folder: Path, count: int) -> Iterator[Measurement]:
    """Run a data set again of which every row is complete."""
    clips = save_clips(folder, max(count // 10, 1))
    manifest = save_manifest(folder, clips, rows=count)
    save_complete_results(manifest, folder)
    with prefect_server(folder) as server:
        found = run_wave(*dataset_command(manifest, folder), server=server)
    yield Measurement(measure=_RERUN, subject=f"{count} complete rows", value=found.wall)
    yield Measurement(measure=_RERUN_CPU, subject=f"{count} complete rows", value=found.cpu)


def _measure_share(folder: Path, count: int) -> Iterator[Measurement]:
    """Measure the CPU of a run of few clips and of many, and that of their stages without Prefect.

    What does not grow with the clips, such as imports, has no part in the difference.
    """
    few, subject = max(count // 4, 1), f"{count} clips"
    clips = save_clips(folder, count + few)
    sets = {few: clips[:few], count: clips[few:]}
    client, server_cpu, stages = {}, {}, {}
    with prefect_server(folder) as server:
        for size, chosen in sets.items():
            manifest = save_manifest(folder, chosen, rows=size, name=f"set{size}")
            before = server.cpu()
            client[size] = run_wave(*dataset_command(manifest, folder), server=server).cpu
            server_cpu[size] = server.cpu() - before
            stages[size] = run_wave(str(manifest), str(folder / "plain"), module=_STAGES).cpu
    per_clip = [(costs[count] - costs[few]) / (count - few) for costs in (client, server_cpu, stages)]
    in_client = per_clip[0] - per_clip[2]
    yield Measurement(measure=_CLIENT, subject=subject, value=in_client)
    yield Measurement(measure=_SERVER, subject=subject, value=per_clip[1])
    yield Measurement(measure=_SHARE, subject=subject, value=in_client + per_clip[1])


_STAGES: Final = "tasks.evaluation.bench._probe_stages"


def _measure_memory(folder: Path, count: int) -> Iterator[Measurement]:
    """Watch the memory of a run, from a sixth of its rows (50 of 300) to its end.

    It goes up and down by some megabytes as clips begin and end: compared are the medians over the sixth of the rows
    that follows the first one, and over the last one.
    """
    clips = save_clips(folder, max(count // 5, 1))
    manifest, output = save_manifest(folder, clips, rows=count), folder / "out"
    first, seen = max(count // 6, 1), list[tuple[int, float]]()
    with prefect_server(folder) as server:
        process = WaveProcess(*dataset_command(manifest, folder), "--output", str(output), server=server)
        for memory in process.watch():
            seen.append((len(list(output.glob("*.mp4"))), memory))
        process.check()
    at_first = _median([memory for done, memory in seen if first <= done < 2 * first])
    at_end = _median([memory for done, memory in seen if done >= count - first])
    growth = None if at_first is None or at_end is None else at_end - at_first
    yield Measurement(measure=_PEAK, subject=f"{count} rows", value=at_end)
    yield Measurement(measure=_GROWTH, subject=f"row {first} to {count}", value=growth)


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None


def _measure_throughput(folder: Path, count: int) -> Iterator[Measurement]:
    """Edit clips of the demo's size in one run, and with a command for each."""
    clips = save_clips(folder, count, size=(128, 128), frames=16)
    manifest = save_manifest(folder, clips, rows=count, settings={"steps": 20, "keyframe_interval": 4})
    with prefect_server(folder) as server:
        together = run_wave(*dataset_command(manifest, folder), server=server).wall
        workspace = ("--workspace", str(folder / "apart"))
        options = ("--prompt", "a star 0", "--steps", "20", "--keyframe-interval", "4", *workspace)
        apart = sum(run_wave("edit", str(clip), *options, server=server).wall for clip in clips)
    subject = f"{count} clips"
    yield Measurement(measure=_DATASET, subject=subject, value=together)
    yield Measurement(measure=_EDITS, subject=subject, value=apart)
    yield Measurement(measure=_RATIO, subject=subject, value=together / apart)


BENCH = OrchestrationBench()
