"""Shots of a clip: planned independently of each other, and computed a few per task."""

from __future__ import annotations

import math
import time

import pytest

from storage.digest import digest_of
from tasks.planning.batches import Batch, shot_batches, stretch_batches, stretch_rows
from tasks.planning.plan import EditPlan
from tasks.planning.stages import ASSESS, DECODE, ENCODE, FRAME_FLOW, INVERT, KEYFRAME_FLOW, PROPAGATE, STAGES
from tests._plans import planned
from wave_ops.keyframes import keyframe_indices, keyframe_intervals
from wave_ops.shuffle import reachable_pairs

SHOT_STAGES = [spec for spec in STAGES if spec.unit == "shot"]
CUTS = (4, 7)


def test_the_stages_between_decoding_and_encoding_belong_to_a_shot() -> None:
    assert [spec.name for spec in SHOT_STAGES] == ["frame_flow", "keyframe_flow", "invert", "edit", "propagate"]


def test_a_clip_of_one_shot_has_the_identities_that_it_had_before_its_cuts_were_known() -> None:
    unknown, known = planned(), planned(cuts=())
    assert [stage.ref for stage in unknown.stages] == [stage.ref for stage in known.stages]
    assert known.shots == (known,)
    for name, spec in {spec.name: spec for spec in STAGES}.items():
        inputs = [next(stage for stage in known.stages if stage.name == each).ref.digest for each in spec.inputs]
        assert known[spec].ref.digest == digest_of(name, spec.version, inputs, known[spec].settings.identity())


def test_the_keyframes_pairs_and_intervals_of_a_shot_stay_inside_it() -> None:
    plan = planned(cuts=CUTS)
    assert [shot.frames for shot in plan.shots] == [range(4), range(4, 7), range(7, 10)]
    for shot in plan.shots:
        assert {*shot.keyframes, *(frame for pair in shot.intervals for frame in pair)} <= set(shot.frames)
        assert shot.pairs == reachable_pairs(len(shot.keyframes))
    assert plan.keyframes == keyframe_indices(10, 4, cuts=CUTS)
    assert plan.intervals == keyframe_intervals(plan.keyframes, cuts=CUTS)
    inside = [{plan.keyframes.index(frame) for frame in shot.keyframes} for shot in plan.shots]
    assert all(any({first, second} <= own for own in inside) for first, second in plan.pairs)
    assert len(plan.pairs) == sum(len(shot.pairs) for shot in plan.shots)


def test_each_shot_has_artifacts_of_its_own_and_the_clip_one_video() -> None:
    plan = planned(cuts=CUTS)
    refs = [shot[spec].ref for shot in plan.shots for spec in SHOT_STAGES]
    assert len({ref.digest for ref in refs}) == len({ref.path for ref in refs}) == 3 * len(SHOT_STAGES)
    assert {shot[DECODE].ref for shot in plan.shots} == {plan[DECODE].ref}
    edit = plan[ENCODE].ref.path.split("/")[-2]
    assert all(f"/edits/{edit}/frames/" in shot[PROPAGATE].ref.path for shot in plan.shots)
    frames = [shot[PROPAGATE].ref.digest for shot in plan.shots]
    assert plan[ENCODE].ref.digest == digest_of("encode", ENCODE.version, frames, {})


def test_a_shot_is_edited_again_only_where_its_own_frames_change() -> None:
    before, after = planned(cuts=(4, 7)), planned(cuts=(4, 8))
    assert before.shots[0][INVERT].ref == after.shots[0][INVERT].ref
    assert all(before.shots[i][FRAME_FLOW].ref != after.shots[i][FRAME_FLOW].ref for i in (1, 2))
    assert before[ASSESS].ref != after[ASSESS].ref


@pytest.mark.parametrize("spec", SHOT_STAGES)
def test_a_clip_of_several_shots_has_no_single_stage_of_a_shot(spec: object) -> None:
    plan = planned(cuts=CUTS)
    with pytest.raises(KeyError, match="its shots"):
        plan[spec]  # type: ignore[index]
    with pytest.raises(KeyError, match="shot 1 of 3"):
        plan.shots[0][ENCODE]


def test_units_are_those_of_all_shots() -> None:
    plan = planned(cuts=CUTS, steps=5)
    assert [plan.units(spec) for spec in (DECODE, FRAME_FLOW, INVERT, KEYFRAME_FLOW)] == [10, 7, 15, len(plan.pairs)]


def covers(batches: tuple[Batch, ...], plan: EditPlan) -> bool:
    """Return whether the jobs are all shots, or the stretches that their frames consist of, in order."""
    jobs = [job for batch in batches for job in batch.jobs]
    if all(job.frames is None for job in jobs):
        return [job.plan for job in jobs] == list(plan.shots)
    rows = [
        frame
        for job in jobs
        for first, last in [job.frames or (0, 0)]
        for frame in range(first, last + (last == job.plan.frames[-1]))
    ]
    return rows == list(plan.frames)


@pytest.mark.parametrize("seconds", [1, 4, 15, 600])
def test_ten_minutes_of_video_take_at_most_100_tasks(seconds: int) -> None:
    count = 10 * 60 * 30
    plan = planned(frame_count=count, cuts=tuple(range(seconds * 30, count, seconds * 30)), keyframe_interval=8)
    shots, stretches = shot_batches(plan), stretch_batches(plan)
    assert covers(shots, plan)
    assert covers(stretches, plan)
    assert 4 * len(shots) + len(stretches) + len(("decode", "finish", "encode", "assess", "record")) <= 100


@pytest.mark.parametrize(("size", "tasks"), [((128, 128), 2), ((512, 512), 7)])
def test_a_task_of_propagation_has_half_a_minute_of_work_or_a_shard(size: tuple[int, int], tasks: int) -> None:
    plan = planned(frame_count=200, size=size, keyframe_interval=8)
    assert len(stretch_batches(plan)) == tasks
    assert len(shot_batches(plan)) == 1


@pytest.mark.parametrize(
    ("interval", "size", "rows"), [(8, (128, 128), 32), (5, (128, 128), 30), (50, (128, 128), 50), (4, (2160, 3840), 4)]
)
def test_a_shard_of_propagated_frames_is_made_of_whole_intervals(
    interval: int, size: tuple[int, int], rows: int
) -> None:
    plan = planned(frame_count=321, size=size, keyframe_interval=interval)
    assert stretch_rows(plan) == rows
    starts = [job.frames[0] for batch in stretch_batches(plan) for job in batch.jobs if job.frames is not None]
    assert starts == list(range(0, 320, rows))
    assert len(starts) == math.ceil(320 / rows)  # the last frame belongs to the stretch before it


def test_planning_many_shots_takes_little_time() -> None:
    count = 18_000
    began = time.process_time()
    plan = planned(frame_count=count, cuts=tuple(range(30, count, 30)))
    assert len(plan.shots) == 600
    assert time.process_time() - began < 3
