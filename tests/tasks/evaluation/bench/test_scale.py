from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import psutil
import pytest

from tasks.errors import TaskInputError
from tasks.evaluation.bench import scale
from tasks.evaluation.bench._processes import cpu_of, started_processes
from tasks.evaluation.bench.measurements import BenchRequest, Measurement, chosen_sections
from tasks.evaluation.bench.registry import bench
from tasks.evaluation.bench.scale import BENCH, Sample, busy_fraction, steady_part
from tasks.evaluation.bench.sleeping_stages import Nap
from tasks.processes import end_process
from tasks.services.postgres import find_postgres
from tasks.services.seaweed import find_seaweed


def nap(stage: str, began: float, ended: float) -> Nap:
    resource = "gpu" if stage in {"invert", "edit", "propagate"} else "cpu"
    return Nap(stage=stage, resource=resource, began=began, ended=ended)


def sample(seconds: float, done: int, *, cpu: float = 0.0) -> Sample:
    return Sample(seconds=seconds, done=done, memory=0.0, cpu=dict.fromkeys(scale._CPU, cpu))


def measured(section: str, request: BenchRequest) -> dict[str, Measurement]:
    (chosen,) = chosen_sections(BENCH.sections(request), [section])
    return {found.measure.name: found for found in chosen.measure()}


@pytest.mark.parametrize(
    ("naps", "gpus", "fraction"),
    [
        # Two stages without a pause, and a third clip that waits
        ([nap("invert", 0, 2), nap("edit", 2, 4), nap("invert", 4, 6)], 1, 1.0),
        ([nap("invert", 0, 2), nap("edit", 3, 4), nap("invert", 4, 6)], 1, 0.75),
        # Stages of a CPU do not count
        ([nap("invert", 0, 1), nap("decode", 0, 4), nap("invert", 4, 6)], 1, 0.25),
        # Two GPUs from when both have begun (1), until the last clip reaches one (3): the second one pauses from 2 on
        ([nap("invert", 0, 3), nap("invert", 1, 2), nap("invert", 3, 9), nap("edit", 3, 9)], 2, 0.75),
        ([nap("invert", 0, 2)], 1, None),
        ([nap("invert", 0, 2), nap("edit", 2, 4)], 1, None),
        ([], 1, None),
    ],
)
def test_gpus_are_busy_while_a_stage_runs_on_them(naps: list[Nap], gpus: int, fraction: float | None) -> None:
    assert busy_fraction(naps, gpus) == (None if fraction is None else pytest.approx(fraction))


def test_what_does_not_grow_with_the_clips_is_left_out() -> None:
    samples = [sample(0, 0), sample(50, 1), sample(60, 2), sample(90, 20)]
    assert steady_part(samples) == (samples[2], samples[3])
    assert steady_part(samples[:2]) is None
    assert steady_part([]) is None


def test_costs_are_those_of_the_steady_part_by_its_clips() -> None:
    outcome = scale._Outcome(
        samples=[sample(0, 0, cpu=30), sample(40, 1, cpu=40), sample(100, 11, cpu=45)],
        growth=scale._DatabaseSize(2_200_000, 1_100_000),
        requests=Counter(GET=400, HEAD=40, PUT=600, LIST=60),
        naps=[],
    )
    load = scale._Load(clips=11, gpus=1, gpu_seconds=2, s3=True)
    found = {each.measure.name: each.value for each in scale._measurements(load, outcome)}
    assert found.pop("clips per minute") == pytest.approx(10)
    assert found.pop("GPUs busy") is None
    assert found.pop("cores that the client uses") == pytest.approx(5 / 60)
    assert found.pop("database growth per clip") == pytest.approx(200)
    assert found.pop("of it events, which Prefect keeps for a week") == pytest.approx(100)
    assert found.pop("reads in the object store, per clip") == pytest.approx(40)
    assert found.pop("writes and listings in the object store, per clip") == pytest.approx(60)
    assert found.pop("memory of the client") == 0
    assert set(found.values()) == {0.5}
    assert set(found) == {measure.name for measure in scale._CPU.values()}


def test_a_run_too_short_for_its_costs_has_none() -> None:
    size = scale._DatabaseSize(1000, 0)
    outcome = scale._Outcome(samples=[sample(0, 0), sample(9, 1)], growth=size, requests=Counter(), naps=[])
    found = list(scale._measurements(scale._Load(clips=1, gpus=1, s3=False), outcome))
    assert {each.measure.name for each in found if each.value is not None} == {
        "memory of the client",
        "database growth per clip",
        "of it events, which Prefect keeps for a week",
    }


def test_each_clip_is_counted_once_also_if_its_line_was_half_written(tmp_path: Path) -> None:
    log, line = tmp_path / "naps", '{"stage": "assess", "resource": "cpu", "began": 1.0, "ended": 2.0}\n'
    count = scale._Count(log)
    assert count() == 0
    log.write_text(line.replace("assess", "encode") + line + line[:30])
    assert (count(), count()) == (1, 1)
    with log.open("a") as file:
        file.write(line[30:])
    assert count() == 2


@pytest.mark.parametrize(
    ("gpus", "workers"),
    [(1, ["GPU=1", "CPU=2", "CPU=2"]), (5, ["GPU=3", "GPU=2", "CPU=10", "CPU=10"])],
)
def test_there_is_a_thread_for_every_gpu_and_enough_for_the_stages_on_a_cpu(gpus: int, workers: list[str]) -> None:
    found = scale._workers(gpus)
    assert [resources for resources, _ in found] == workers
    assert all(options[:2] == ["--nthreads", resources.partition("=")[2]] for resources, options in found)


def test_the_cpu_of_processes_counts_those_that_they_have_started_and_ended() -> None:
    burn = "import time\nwhile time.process_time() < 0.6: pass"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}]); print(flush=True); input()"
    with started_processes() as found:
        process = subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        process.stdout.readline()
        assert process.pid in [each.pid for each in found]
        assert cpu_of([psutil.Process(process.pid)]) >= 0.5  # the system counts in ticks of 10 ms
    finally:
        end_process(process)
        process.communicate()
    assert cpu_of(found) == 0


@pytest.mark.parametrize(
    ("program", "request_", "words"),
    [
        ("find_postgres", BenchRequest(), "PostgreSQL is not installed"),
        ("find_seaweed", BenchRequest(s3=True), "SeaweedFS is not installed"),
    ],
)
def test_what_is_missing_is_one_sentence_before_anything_starts(
    program: str, request_: BenchRequest, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("find_postgres", "find_seaweed"):
        monkeypatch.setattr(scale, name, lambda: "found")
    assert [section.title for section in bench("scale").sections(request_)] == ["work", "limit"]
    monkeypatch.setattr(scale, program, lambda: None)
    with pytest.raises(TaskInputError, match=words):
        BENCH.sections(request_)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("s3", [False, True])
def test_a_run_with_sleeping_stages_is_measured_on_postgresql_and_dask(s3: bool) -> None:
    if find_postgres() is None or (s3 and find_seaweed() is None):
        pytest.skip("PostgreSQL or SeaweedFS is not installed")
    found = measured("work", BenchRequest(rows=6, gpus=1, quick=True, s3=s3))
    values = {name: each.value for name, each in found.items()}
    assert all(value is not None and value > 0 for value in values.values())
    assert values["GPUs busy"] <= 1.01  # type: ignore[operator]
    assert ("reads in the object store, per clip" in values) == s3
