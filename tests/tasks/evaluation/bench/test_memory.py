from __future__ import annotations

import pytest

from tasks.evaluation.bench import memory
from tasks.evaluation.bench.measurements import BenchRequest, measurement_record
from tasks.evaluation.bench.memory import BENCH
from tasks.planning.stages import STAGES


def test_each_stage_is_measured_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    run = list[tuple[object, ...]]()

    def probe(_module: str, stage: str, *others: object) -> dict[str, float]:
        run.append((stage, *others))
        return {"peak": 3000.0 if stage == "decode" else 100.0}

    monkeypatch.setattr(memory, "run_probe", probe)
    (section,) = BENCH.sections(BenchRequest(seconds=20))
    records = [measurement_record("memory", each) for each in section.measure()]
    assert [stage for stage, *_ in run] == ["draw", *(spec.name for spec in STAGES)]
    assert run[0][2] == 20
    assert [record["holds"] for record in records] == [False, *(True for _ in STAGES[1:])]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_stage_of_a_second_of_video_runs_below_two_gigabytes() -> None:
    (section,) = BENCH.sections(BenchRequest(quick=True))
    peaks = {each.measure.name: each.value for each in section.measure()}
    assert len(peaks) == len(STAGES)
    assert all(value is not None and 100 < value < 2048 for value in peaks.values())
