"""Estimates: of made-up costs that follow a law, and of a real edit after another one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from flows.cli.tables import estimate_table
from storage.cost_table import CostRecord, CostTable
from storage.workspace import Workspace
from tasks.costs import stage_cost
from tasks.planning.bulk import BulkPlan, PlannedRow, plan_rows
from tasks.planning.dataset import dataset_request
from tasks.planning.estimate import Estimate, PastCosts, estimate_dataset, estimate_edit, read_costs
from tasks.planning.plan import EditPlan, Execution
from tasks.planning.request import edit_request
from tasks.planning.rows import read_rows
from tasks.planning.stages import DECODE, EDIT, FRAME_FLOW, INVERT, PROPAGATE, STAGES, StageLoad
from tests._clips import save_clip
from tests._stages import artifact_of, make_plan, run_stages

MEGA = 10**6


def load(megapixels: float, **others: Any) -> StageLoad:
    pixels = int(megapixels * MEGA)
    return StageLoad(**{"pixels": pixels, "at_once": 1000, "array_bytes": 3 * pixels} | others)


def past(seconds: Callable[[float], float], megapixels: Iterable[float], **others: Any) -> list[dict[str, Any]]:
    """Return rows of the cost table: of stage `edit` if nothing else is said."""
    rows = []
    for place, size in enumerate(megapixels):
        own = {"stage": EDIT.name, "version": EDIT.version, "path": "p", "digest": f"{others} {place} {size}"}
        costs = {"seconds": seconds(size), "peak_memory_mib": 1000.0, "stored_bytes": int(1.5 * size * MEGA)}
        rows.append({**own, **asdict(load(size)), **costs, **others})
    return rows


def costs(*several: Sequence[dict[str, Any]]) -> PastCosts:
    rows = [CostRecord(**row) for found in several for row in found]
    return PastCosts(pd.DataFrame([asdict(row) for row in rows], columns=list(CostRecord.__dataclass_fields__)))


# --- the model --------------------------------------------------------------------------------------------------------


def test_one_past_result_gives_a_rate_without_a_spread() -> None:
    found = costs(past(lambda size: 4 * size, [2])).estimate(EDIT, [load(3), load(5)])
    assert (found.seconds.low, found.seconds.middle, found.seconds.high) == pytest.approx((32, 32, 32))
    assert (found.results, found.unknown, found.past, found.error_factor) == (2, 0, 1, None)
    assert found.disk == 12 * MEGA
    assert found.disk_known


def test_a_constant_part_is_told_from_what_grows() -> None:
    model = costs(past(lambda size: 10 + 2 * size, [1, 3, 10, 30]))
    found = model.estimate(EDIT, [load(100), load(5)])
    assert found.seconds.middle == pytest.approx(10 + 200 + 10 + 10)
    assert found.error_factor == pytest.approx(1.0)


def test_a_few_odd_results_move_an_estimate_little_and_show_in_its_error() -> None:
    sizes = [1 + place / 10 for place in range(9)]
    steady = past(lambda size: 2 * size, sizes)
    odd = past(lambda size: 60 * size, [1.5, 1.25], path="odd")
    found = costs(steady, odd).estimate(EDIT, [load(4)])
    assert found.seconds.middle == pytest.approx(8, rel=0.01)
    noisy = costs(past(lambda size: size * (1 + int(10 * size) % 2), sizes)).estimate(EDIT, [load(4)])
    assert noisy.error_factor is not None
    assert 1.2 < noisy.error_factor < 2.1
    assert noisy.seconds.low < noisy.seconds.high


def test_only_results_of_the_same_stage_version_device_and_kind_are_compared() -> None:
    model = costs(
        past(lambda size: size, [1]),
        past(lambda size: 50 * size, [1], stage=INVERT.name),
        past(lambda size: 60 * size, [1], version=EDIT.version + 1),
        past(lambda size: 0.1 * size, [1], device="cuda"),
        past(lambda size: 7 * size, [1], kind="large"),
    )
    assert model.estimate(EDIT, [load(2)]).seconds.middle == pytest.approx(2)
    assert model.estimate(EDIT, [load(2, kind="large")]).seconds.middle == pytest.approx(14)
    fast = model.estimate(EDIT, [load(2, device="cuda")])
    assert fast.gpu_seconds == fast.seconds.middle == pytest.approx(0.2)
    assert model.estimate(EDIT, [load(2)]).gpu_seconds == 0


def test_without_a_past_run_nothing_is_made_up() -> None:
    model = costs(past(lambda size: size, [1]))
    found = model.estimate(DECODE, [load(2), load(3)])
    assert (found.unknown, found.seconds.middle, found.peak_memory_mib, found.past) == (2, 0, 0, 0)
    assert (found.disk, found.disk_known) == (15 * MEGA, False)
    mixed = model.estimate(EDIT, [load(2), load(3, kind="large")])
    assert (mixed.results, mixed.unknown) == (2, 1)
    assert mixed.seconds.middle == pytest.approx(2)


def test_memory_above_that_of_an_idle_process_grows_with_the_pixels_in_memory() -> None:
    idle = past(lambda size: size, [1], stage=DECODE.name, peak_memory_mib=1000.0)
    model = costs(idle, past(lambda size: size, [1], at_once=1000, peak_memory_mib=1400.0))
    assert model.estimate(EDIT, [load(1, at_once=500)]).peak_memory_mib == pytest.approx(1400)
    assert model.estimate(EDIT, [load(1, at_once=3000)]).peak_memory_mib == pytest.approx(1000 + 3 * 400)


# --- the loads of the stages ------------------------------------------------------------------------------------------


@pytest.fixture
def plan(clip: Path, sd15: Path, tmp_path: Path) -> EditPlan:
    request = edit_request(video=str(clip), prompt="a blue star", model=str(sd15), steps=2, keyframe_interval=3)
    return make_plan(request, tmp_path / "workspace")


def test_loads_follow_from_frames_keyframes_steps_and_pixels(plan: EditPlan) -> None:
    found = {spec.name: spec.load(plan) for spec in STAGES}
    assert found["decode"].pixels == 7 * 48 * 64
    assert found["frame_flow"].pixels == 6 * 48 * 64
    assert found["invert"].pixels == found["edit"].pixels == 2 * 3 * 64 * 64
    assert found["propagate"].pixels == 8 * 64 * 64
    assert found["propagate"].at_once == 4 * 64 * 64
    assert found["invert"].kind == f"{plan.inputs.model.digest}  float32"
    assert (found["decode"].device, found["decode"].kind) == ("cpu", "")


def test_the_arrays_of_a_stage_have_the_bytes_that_its_load_says(plan: EditPlan) -> None:
    plan = run_stages(plan)
    for spec, names in {
        DECODE: ["frames"],
        FRAME_FLOW: ["to_prev", "to_cur"],
        INVERT: ["latents"],
        EDIT: ["latents", "frames"],
        PROPAGATE: ["frames"],
    }.items():
        arrays = [artifact_of(plan, spec).array(name) for name in names]
        assert spec.load(plan).array_bytes == sum(array.nbytes for array in arrays), spec.name


# --- whole edits ------------------------------------------------------------------------------------------------------


def run_edit(plan: EditPlan) -> dict[str, dict[str, Any]]:
    """Run an edit, which records its costs; return them by stage."""
    plan = run_stages(plan)
    return {spec.name: stage_cost(artifact_of(plan, spec)) for spec in STAGES}


@pytest.mark.slow
def test_after_one_run_of_another_size_an_edit_takes_about_what_was_estimated(sd15: Path, tmp_path: Path) -> None:
    def plan(name: str, frames: int, size: tuple[int, int], steps: int, workspace: str = "workspace") -> EditPlan:
        clip = save_clip(tmp_path / f"{name}.mp4", frames=frames, size=size)
        fields = {"model": str(sd15), "steps": steps, "keyframe_interval": 4, "size": f"{size[1]}x{size[0]}"}
        return make_plan(edit_request(video=str(clip), prompt="a star", **fields), tmp_path / workspace)

    run_stages(plan("first", 3, (64, 64), 1, "elsewhere"))  # compiles, and loads what later runs find loaded
    small = run_edit(plan("small", 9, (128, 128), 3))
    larger = plan("larger", 13, (128, 192), 6)
    found = estimate_edit(larger, read_costs(Workspace.open(tmp_path / "workspace")), complete=set())
    took = run_edit(larger)

    def total(costs: dict[str, dict[str, Any]], name: str) -> float:
        return float(sum(cost[name] for cost in costs.values()))

    # A busy machine may slow down either of the two
    assert total(took, "seconds") / 5 < found.seconds.middle < 5 * total(took, "seconds")
    assert found.seconds.middle > 1.5 * total(small, "seconds")
    assert total(took, "stored_bytes") / 2 < found.disk < 3 * total(took, "stored_bytes")
    peak = max(cost["peak_memory_mib"] for cost in took.values())
    assert 0.7 * peak < found.peak_memory_mib < 2 * peak
    assert found.unknown == 0
    assert found.gpu_hours == 0


def test_a_stage_that_is_complete_takes_nothing(plan: EditPlan) -> None:
    run_edit(plan)
    costs = read_costs(Workspace.open(plan.execution.workspace))
    whole = estimate_edit(plan, costs, complete=set())
    rest = estimate_edit(plan, costs, complete={"decode", "frame_flow"})
    assert [stage.results for stage in rest.stages] == [0, 0, 1, 1, 1, 1, 1, 1]
    assert 0 < rest.seconds.middle < whole.seconds.middle
    assert 0 < rest.disk < whole.disk


def test_a_complete_edit_records_its_costs_once(plan: EditPlan) -> None:
    found = run_edit(plan)
    run_edit(plan)
    workspace = Workspace.open(plan.execution.workspace)
    assert len(workspace.files.sizes("tables/costs")) == 1
    recorded = CostTable(workspace).read().set_index("stage")
    assert recorded["seconds"].to_dict() == {name: cost["seconds"] for name, cost in found.items()}
    assert recorded["stored_bytes"]["decode"] <= workspace.usage(plan[DECODE].ref.path)
    assert recorded["stored_bytes"].min() > 0


# --- data sets --------------------------------------------------------------------------------------------------------


def plan_two_rows(clip: Path, sd15: Path, tmp_path: Path) -> BulkPlan:
    manifest = tmp_path / "set.csv"
    rows = [
        {"id": str(i), "source": str(clip), "prompt": f"a {colour} star"} for i, colour in enumerate(("red", "green"))
    ]
    pd.DataFrame(rows).to_csv(manifest, index=False)
    settings = {"model": str(sd15), "steps": 2, "keyframe_interval": 3}
    request = dataset_request(source=str(manifest), defaults=settings)
    return plan_rows(
        read_rows(request, own_tables=str(tmp_path)),
        execution=Execution(workspace=str(tmp_path / "workspace")),
        remember=False,
    )


def results(estimate: Estimate) -> dict[str, int]:
    return {stage.stage: stage.results for stage in estimate.stages}


def test_shared_results_count_once_and_stored_ones_not_at_all(
    plan: EditPlan, clip: Path, sd15: Path, tmp_path: Path
) -> None:
    workspace = Workspace.open(tmp_path / "workspace")
    bulk = plan_two_rows(clip, sd15, tmp_path)
    shared = ("decode", "keyframe_flow", "frame_flow", "invert")
    assert results(estimate_dataset(bulk, read_costs(workspace))) == {
        spec.name: 1 if spec.name in shared else 2 for spec in STAGES
    }
    run_edit(plan)  # of a third prompt, which shares as much
    left = estimate_dataset(bulk, read_costs(workspace))
    assert results(left) == {spec.name: 0 if spec.name in shared else 2 for spec in STAGES}
    assert left.unknown == 0
    artifact_of(plan, INVERT).discard()
    assert results(estimate_dataset(bulk, read_costs(workspace)))["invert"] == 1


def test_ten_thousand_rows_are_estimated_in_a_fraction_of_a_second(plan: EditPlan, tmp_path: Path) -> None:
    loads = tuple(spec.load(plan) for spec in STAGES)
    row: Any = None
    rows = [
        PlannedRow(
            row=row,
            stages=tuple((f"{place} {spec.name}",) for spec in STAGES),
            loads=tuple((replace(load, pixels=load.pixels + place),) for load in loads),
        )
        for place in range(10_000)
    ]
    history = [past(lambda size: size, range(1, 200), stage=spec.name, **_kind(spec.load(plan))) for spec in STAGES]
    model = costs(*history)
    started = time.process_time()
    found = estimate_dataset(BulkPlan(rows=tuple(rows), execution=plan.execution, flow_weights=""), model)
    assert time.process_time() - started < 2  # 0.2 s where nothing else runs
    assert results(found)["decode"] == 10_000


def _kind(found: StageLoad) -> dict[str, Any]:
    return {"device": found.device, "kind": found.kind}


def test_the_table_shows_what_is_not_known_as_such() -> None:
    unknown = costs().estimate(DECODE, [load(1)])
    known = costs(past(lambda size: 100 * size, [1, 4])).estimate(EDIT, [load(2)])
    table = estimate_table(Estimate(stages=(unknown, known)))
    cells = [[str(cell) for cell in column.cells] for column in table.columns]
    decode, edit, total, gpu = zip(*cells, strict=True)
    assert decode == ("decode", "1", "no past run", "-", "3.0 MB uncompressed", "0", "-")
    assert edit == ("edit", "1", "3.3 min", "1.0 GB", "3.0 MB", "2", "x 1.00")
    assert total[2:5] == ("3.3 min, and 1 unknown", "1.0 GB", "6.0 MB uncompressed")
    assert gpu[2] == "0.00"
