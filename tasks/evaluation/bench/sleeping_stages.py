"""Stages that sleep instead of computing, and write arrays of the same shapes: everything around them is as it is."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import numpy as np
from PIL import Image

from storage.artifact import Artifact
from storage.workspace import open_artifact
from tasks.artifacts import CONTACT_SHEET, EDITED, REPORT, SIDE_BY_SIDE, require_latents, require_pictures
from tasks.costs import record_costs, stage_costs
from tasks.flow import require_flow
from tasks.planning.batches import Job
from tasks.planning.decoded_facts import remember_decoded_facts
from tasks.planning.plan import EditPlan
from tasks.planning.stages import (
    ASSESS,
    DECODE,
    FRAME_FLOW,
    KEYFRAME_FLOW,
    STAGES,
    Resource,
    StageSettings,
    StageSpec,
)
from tasks.progress import StageProgress, stage_progress
from tasks.propagate import require_frames
from tasks.stage import StageTask, measured, stage_task

__all__ = ["Nap", "Naps", "read_naps", "sleeping"]

PARTS: Final[Mapping[str, float]] = MappingProxyType(
    {
        "decode": 0.2,
        "keyframe_flow": 0.1,
        "frame_flow": 0.3,
        "invert": 0.4,
        "edit": 0.5,
        "propagate": 0.1,
        "encode": 0.2,
        "assess": 0.2,
    }
)
"""Fraction of the seconds of a clip that each stage takes: of those on a GPU for the inversion, the edit and the
propagation, of those on a CPU for the others. They are assumed, not measured."""
_SECONDS_BETWEEN_REPORTS = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Naps:
    """How long the stages of a clip sleep, and where they note it."""

    gpu: float
    """Seconds of the stages on a GPU, together."""
    cpu: float
    """Seconds of the stages on a CPU, together."""
    log: str
    """File that each stage adds a line to, when it has ended."""

    def json(self) -> str:
        """Return it as one argument of a command."""
        return json.dumps(asdict(self))

    def seconds(self, stage: str, resource: Resource) -> float:
        """Return how long a stage sleeps."""
        return PARTS[stage] * (self.gpu if resource == "gpu" else self.cpu)


@dataclass(frozen=True, slots=True, kw_only=True)
class Nap:
    """A stage that has ended."""

    stage: str
    resource: str
    began: float
    """Seconds since 1970."""
    ended: float


def read_naps(log: Path) -> list[Nap]:
    """Return the stages that have ended so far, in that order."""
    if not log.exists():
        return []
    whole, _, _ = log.read_text().rpartition("\n")  # the last line may be half written
    return [Nap(**json.loads(line)) for line in whole.splitlines()]


def sleeping(stage: StageTask, naps: Naps) -> StageTask:
    """Return a task that is the stage's in everything but its function, which sleeps."""
    return stage_task(stage.spec, batches=stage.batches)(partial(_sleep, spec=stage.spec, naps=naps))


def _sleep(job: Job, *, spec: StageSpec[StageSettings], naps: Naps) -> None:
    plan, resource, began = job.plan, spec.runs_on(job.plan), time.time()
    artifact = open_artifact(plan[spec].ref)
    whole = spec.name == "propagate" and job.part is None  # which completes what the stretches have computed
    with measured() as cost, stage_progress(plan[spec], total=spec.units(plan), part=job.part or "") as progress:
        _rest(0 if whole else naps.seconds(spec.name, resource), progress)
        _WRITERS[spec.name](artifact, job, cost)
    nap = Nap(stage=spec.name, resource=resource, began=began, ended=time.time())
    with Path(naps.log).open("a") as log:  # a line at once: several processes add theirs
        log.write(json.dumps(asdict(nap)) + "\n")


def _rest(seconds: float, progress: StageProgress) -> None:
    """Sleep, and report progress as a stage does; a run that is cancelled ends it."""
    start = time.monotonic()
    while (passed := time.monotonic() - start) < seconds:
        progress.report(int(progress.total * passed / seconds))
        time.sleep(min(_SECONDS_BETWEEN_REPORTS, seconds - passed))


def _fill(artifact: Artifact, *names: str) -> None:
    for name in names:
        array = artifact.array(name)
        artifact.write_region(name, 0, np.zeros(array.shape, array.dtype))


def _images(artifact: Artifact, name: str, count: int, size: tuple[int, int], axis: str) -> None:
    require_pictures(artifact, (count, *size, 3), axis=axis, name=name)
    _fill(artifact, name)


def _vector(artifact: Artifact, name: str, shape: tuple[int, ...], dtype: str, *axes: str) -> None:
    artifact.require_array(name, shape=shape, chunks=shape, dtype=dtype, dimension_names=axes)
    _fill(artifact, name)


Cost: TypeAlias = Callable[[], dict[str, float]]
Writer: TypeAlias = Callable[[Artifact, Job, Cost], None]


def _write_decoded(artifact: Artifact, job: Job, cost: Cost) -> None:
    clip = job.plan.clip
    _images(artifact, "frames", clip.frame_count, clip.size, "time")
    _vector(artifact, "timestamps", (clip.frame_count,), "int64", "time")
    facts: dict[str, Any] = {"frame_count": clip.frame_count, "cuts": ()}
    artifact.complete({**facts, "has_audio": False, **cost()})
    remember_decoded_facts(job.plan[DECODE].ref, **facts)


def _write_keyframe_flow(artifact: Artifact, job: Job, cost: Cost) -> None:
    size = job.plan[KEYFRAME_FLOW].settings.size
    _fill(artifact, *require_flow(artifact, len(job.plan.pairs), size, masks=True))
    artifact.complete(cost())


def _write_frame_flow(artifact: Artifact, job: Job, cost: Cost) -> None:
    size = job.plan[FRAME_FLOW].settings.size
    _fill(artifact, *require_flow(artifact, len(job.plan.frames) - 1, size, masks=False))
    artifact.complete(cost())


def _write_latents(artifact: Artifact, plan: EditPlan) -> None:
    height, width = (side // plan.inputs.model.vae_factor for side in plan.size)
    require_latents(artifact, plan.request.steps, (len(plan.keyframes), 4, height, width))
    _fill(artifact, "latents")


def _write_inversion(artifact: Artifact, job: Job, cost: Cost) -> None:
    _write_latents(artifact, job.plan)
    shape = (job.plan.request.steps, len(job.plan.keyframes))
    _vector(artifact, "orders", shape, "int32", "step", "place")
    artifact.complete(cost())


def _write_keyframes(artifact: Artifact, job: Job, cost: Cost) -> None:
    _write_latents(artifact, job.plan)
    _images(artifact, "frames", len(job.plan.keyframes), job.plan.size, "keyframe")
    artifact.complete(cost())


def _write_frames(artifact: Artifact, job: Job, cost: Cost) -> None:
    if job.part is None or job.frames is None:
        artifact.complete(cost())
        return
    plan, (first, last) = job.plan, job.frames
    require_frames(artifact, plan)
    start, stop = first - plan.frames.start, last - plan.frames.start + (last == plan.frames[-1])
    artifact.write_region("frames", start, np.zeros((stop - start, *plan.size, 3), np.uint8))
    artifact.complete_part(job.part, cost(), regions={"frames": (start, stop)})


def _write_video(artifact: Artifact, job: Job, cost: Cost) -> None:
    artifact.write_bytes(EDITED, bytes(1000))
    artifact.complete(cost())


def _write_report(artifact: Artifact, job: Job, cost: Cost) -> None:
    plan = job.plan
    sheet = io.BytesIO()
    Image.new("RGB", plan.size).save(sheet, "PNG")
    artifact.write_bytes(CONTACT_SHEET, sheet.getvalue())
    artifact.write_bytes(SIDE_BY_SIDE, bytes(1000))
    costs = stage_costs(plan, [spec for spec in STAGES if spec.name != ASSESS.name])
    stages = {name: {"seconds": sum(each["seconds"] for each in found)} for name, found in costs.items()}
    artifact.write_json(REPORT, {"scores": {}, "stages": stages})
    artifact.complete(cost())
    record_costs(plan, costs | stage_costs(plan, [ASSESS]))


_WRITERS: Final[Mapping[str, Writer]] = MappingProxyType(
    {
        "decode": _write_decoded,
        "keyframe_flow": _write_keyframe_flow,
        "frame_flow": _write_frame_flow,
        "invert": _write_inversion,
        "edit": _write_keyframes,
        "propagate": _write_frames,
        "encode": _write_video,
        "assess": _write_report,
    }
)
