from __future__ import annotations

from pathlib import Path

import cloudpickle
import pytest

from flows import edit_video
from storage.workspace import open_artifact
from tasks.artifacts import REPORT
from tasks.cancel import time_limit
from tasks.evaluation.bench._bulk import save_clips
from tasks.evaluation.bench.sleeping_stages import PARTS, Naps, read_naps, sleeping
from tasks.planning.plan import EditPlan, Execution
from tasks.planning.prepare import is_complete, prepare_edit, replan
from tasks.planning.request import edit_request
from tasks.planning.stages import STAGES
from tasks.propagate import begin_propagation
from tasks.stage import StageTask

ORDER = (
    "decode_clip",
    "estimate_keyframe_flow",
    "estimate_frame_flow",
    "invert_keyframes",
    "edit_keyframes",
    "propagate_frames",
    "finish_propagation",
    "encode_edit",
    "assess_edit",
)


@pytest.fixture
def plan(tmp_path: Path) -> EditPlan:
    (clip,) = save_clips(tmp_path, 1)
    request = edit_request(video=str(clip), prompt="a star", steps=3, keyframe_interval=2)
    execution = Execution(workspace=str(tmp_path / "workspace"), device="cuda", propagation="torch")
    return prepare_edit(request, execution=execution)


def naps(tmp_path: Path, *, seconds: float = 0) -> Naps:
    return Naps(gpu=seconds, cpu=0, log=str(tmp_path / "naps"))


def test_every_stage_of_the_flow_sleeps_and_leaves_what_the_next_ones_look_for(plan: EditPlan, tmp_path: Path) -> None:
    stages = {name: stage for name, stage in vars(edit_video).items() if isinstance(stage, StageTask)}
    assert set(stages) == {*ORDER}
    for name in ORDER:
        sleeping(stages[name], naps(tmp_path, seconds=0.2)).run(plan)
        if name == "decode_clip":
            plan = replan(plan)
            begin_propagation(plan)
    assert all(is_complete(plan, spec) for spec in STAGES)
    ended = read_naps(tmp_path / "naps")
    assert [nap.stage for nap in ended] == [stages[name].spec.name for name in ORDER]
    assert {nap.stage for nap in ended if nap.resource == "gpu"} == {"invert", "edit", "propagate"}
    slept = {nap.stage: nap.ended - nap.began for nap in ended}
    assert slept["edit"] >= PARTS["edit"] * 0.2
    report = open_artifact(plan.stages_of(STAGES[-1])[0].ref).read_json(REPORT)
    assert set(report["stages"]) == {spec.name for spec in STAGES[:-1]}


def test_the_stages_of_each_resource_take_its_seconds_together() -> None:
    on_gpu = {"invert", "edit", "propagate"}
    assert sum(part for stage, part in PARTS.items() if stage in on_gpu) == pytest.approx(1)
    assert sum(part for stage, part in PARTS.items() if stage not in on_gpu) == pytest.approx(1)
    assert set(PARTS) == {spec.name for spec in STAGES}


def test_a_sleeping_stage_is_sent_to_workers_and_ends_when_its_run_is_cancelled(plan: EditPlan, tmp_path: Path) -> None:
    stage = sleeping(edit_video.decode_clip, Naps(gpu=0, cpu=6000, log=str(tmp_path / "naps")))
    assert len(cloudpickle.dumps(stage.task)) < 100_000
    with time_limit(0.5), pytest.raises(TimeoutError):
        stage.run(plan)
    assert read_naps(tmp_path / "naps") == []


def test_a_line_that_is_half_written_is_left_for_later(tmp_path: Path) -> None:
    line = '{"stage": "edit", "resource": "gpu", "began": 1.0, "ended": 2.0}\n'
    (tmp_path / "naps").write_text(line + line[:20])
    assert [nap.ended for nap in read_naps(tmp_path / "naps")] == [2.0]
