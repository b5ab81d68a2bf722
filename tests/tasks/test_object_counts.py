"""How many objects a long video takes: arrays are described as the stages describe them, and filled with nothing."""

from __future__ import annotations

import pytest

from storage.arrays import ArraySpec, object_keys
from storage.artifact import Artifact
from storage.workspace import open_artifact
from tasks.artifacts import require_latents, shard_rows
from tasks.flow import require_flow
from tasks.planning.batches import stretch_batches
from tasks.planning.plan import EditPlan
from tasks.planning.stages import DECODE, EDIT, FRAME_FLOW, INVERT, KEYFRAME_FLOW, PROPAGATE
from tasks.propagate import require_frames
from tests._plans import planned

SECONDS, RATE = 600, 30
RECORDS = 8  # of a shot: a completion record and a group for each of four stages; of a clip as many, roughly


def objects(artifact: Artifact, *names: str) -> int:
    """Count the objects of arrays, with their descriptions."""
    return sum(1 + sum(1 for _ in object_keys(ArraySpec.of(artifact.array(name)))) for name in names)


def of_a_shot(shot: EditPlan) -> int:
    count, latents = len(shot.keyframes), (len(shot.keyframes), 4, 64, 64)
    flow, keyframe_flow = open_artifact(shot[FRAME_FLOW].ref), open_artifact(shot[KEYFRAME_FLOW].ref)
    size = shot[FRAME_FLOW].settings.size
    total = objects(flow, *require_flow(flow, len(shot.frames) - 1, size, masks=False))
    total += objects(keyframe_flow, *require_flow(keyframe_flow, len(shot.pairs), size, masks=True))
    for spec in (INVERT, EDIT):
        require_latents(open_artifact(shot[spec].ref), 50, latents)
        total += objects(open_artifact(shot[spec].ref), "latents")
    total += 1 + -(-count // shard_rows((count, *shot.size, 3), "uint8"))  # the edited keyframes
    total += 2  # the orders
    require_frames(open_artifact(shot[PROPAGATE].ref), shot)
    return total + objects(open_artifact(shot[PROPAGATE].ref), "frames") + RECORDS


@pytest.mark.parametrize("shot_seconds", [600, 30, 15])
def test_ten_minutes_of_video_take_fewer_than_5000_objects(shot_seconds: int) -> None:
    count, shot = SECONDS * RATE, shot_seconds * RATE
    plan = planned(
        frame_count=count,
        cuts=tuple(range(shot, count, shot)),
        size=(512, 512),
        keyframe_interval=8,
        workspace=f"memory://objects-{shot_seconds}",
    )
    decoded = open_artifact(plan[DECODE].ref)
    shape = (count, 720, 1280, 3)
    decoded.require_array(
        "frames", shape=shape, chunks=(1, *shape[1:]), dtype="uint8", shard_rows=shard_rows(shape, "uint8")
    )
    parts = sum(len(batch.jobs) for batch in stretch_batches(plan))
    total = objects(decoded, "frames") + parts + sum(map(of_a_shot, plan.shots)) + RECORDS
    assert 2000 < total < 5000
