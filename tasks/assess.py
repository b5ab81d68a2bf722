"""Assess: metrics, a contact sheet, and source and edit side by side."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from storage.artifact import Artifact
from storage.workspace import open_artifact
from tasks.artifacts import (
    CONTACT_SHEET,
    EDITED,
    REPORT,
    SIDE_BY_SIDE,
    frames_at,
    stream_flow,
    stream_frames,
    stream_shots,
)
from tasks.costs import record_costs, stage_costs
from tasks.encode import finished_frames, write_like
from tasks.planning.batches import Job
from tasks.planning.plan import EditPlan
from tasks.planning.stages import ASSESS, DECODE, ENCODE, PROPAGATE, STAGES, Stage, StageSettings
from tasks.progress import counted, stage_progress
from tasks.stage import measured, stage_task
from tasks.uniform_frames import noting_uniform, uniform_notes
from wave_ops.masks import occlusion_mask
from wave_ops.metrics import psnr, warp_error
from wave_ops.preview import contact_sheet, side_by_side
from wave_ops.resize import analysis_size, to_images
from wave_ops.warp import resize_flow

__all__ = ["assess_edit"]

COLUMNS = 6


@stage_task(ASSESS)
def assess_edit(job: Job) -> None:
    """Measure the edit against the source and draw both."""
    plan = job.plan
    artifact, source = open_artifact(plan[ASSESS].ref), open_artifact(plan[DECODE].ref)
    with measured() as cost:
        artifact.write_bytes(CONTACT_SHEET, _png(_contact_sheet(plan, source)))
        uniform = _write_side_by_side(artifact, plan, source)
        costs = stage_costs(plan, [spec for spec in STAGES if spec is not ASSESS])
        notes = [*(note for several in costs.values() for each in several for note in each["notes"]), *uniform]
        artifact.write_json(REPORT, _report(plan, _scores(plan, source), costs, notes))
        artifact.complete(cost())
        record_costs(plan, costs | stage_costs(plan, [ASSESS]))


def _contact_sheet(plan: EditPlan, source: Artifact) -> NDArray[np.uint8]:
    count = plan.clip.frame_count
    shown = np.linspace(0, count - 1, min(count, COLUMNS)).round().astype(int).tolist()
    request = plan.request
    edited = np.stack(list(stream_shots(plan, PROPAGATE, shown, size=plan.size)))
    rows = {request.source_prompt or "source": frames_at(source, shown, size=plan.size), request.prompt: edited}
    return contact_sheet(rows, frame_numbers=shown)


def _write_side_by_side(artifact: Artifact, plan: EditPlan, source: Artifact) -> list[str]:
    """Write both next to each other; return a note on edited frames of one colour where the source's are not."""
    size = analysis_size(plan.clip.size)
    shown = finished_frames(plan, source, size=size)
    pairs = zip(stream_frames(source, plan.frames, size=size), shown, strict=True)
    uniform = list[int]()
    with stage_progress(plan[ASSESS], total=len(plan.frames)) as progress, artifact.local_output(SIDE_BY_SIDE) as path:
        watched = noting_uniform(zip(plan.frames, pairs, strict=True), uniform)
        both = (side_by_side(left[None], right[None])[0] for left, right in watched)
        write_like(source, path, counted(both, progress), crf=20)
    return uniform_notes(uniform, total=len(plan.frames))


def _scores(plan: EditPlan, source: Artifact) -> dict[str, float | None]:
    """Compute metrics at the working size: how much changed, and the warp errors of source and edit."""
    similarity = [
        float(psnr(to_images(a[None]), to_images(b[None]))) for a, b in zip(*_both(plan, source), strict=True)
    ]
    warp_errors = [_warp_errors(frames, plan) for frames in _both(plan, source)]
    return {
        "psnr_to_source_db": _mean(similarity),
        "warp_error_source": _mean(warp_errors[0]),
        "warp_error_edited": _mean(warp_errors[1]),
    }


def _both(plan: EditPlan, source: Artifact) -> tuple[Iterator[NDArray[np.uint8]], Iterator[NDArray[np.uint8]]]:
    """Return the frames of source and edit at the working size."""
    return (
        stream_frames(source, plan.frames, size=plan.size),
        stream_shots(plan, PROPAGATE, plan.frames, size=plan.size),
    )


def _warp_errors(frames: Iterable[NDArray[np.uint8]], plan: EditPlan) -> list[float]:
    """Compute the occlusion-masked warp error of neighbouring frames, cuts left out."""
    return [
        float(warp_error(to_images(np.stack([prev, cur])), *_trusted_flow(flows, plan.size)))
        for (prev, cur), flows in zip(pairwise(frames), stream_flow(plan), strict=True)
        if flows is not None
    ]


def _trusted_flow(
    flows: tuple[NDArray[np.float32], NDArray[np.float32]], size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    to_prev, to_cur = (resize_flow(torch.from_numpy(flow)[None], size) for flow in flows)
    return to_prev, ~occlusion_mask(to_prev, to_cur)


def _mean(values: list[float]) -> float | None:
    """Return the mean of the finite values; None without any."""
    finite = [value for value in values if np.isfinite(value)]
    return round(float(np.mean(finite)), 6) if finite else None


def _report(
    plan: EditPlan,
    scores: dict[str, float | None],
    costs: Mapping[str, Sequence[Mapping[str, Any]]],
    notes: Sequence[str],
) -> dict[str, Any]:
    request, clip, video = plan.request, plan.clip, plan[ENCODE].ref
    return {
        "request": request.model_dump(mode="json"),
        "clip": {"name": clip.name, "frames": clip.frame_count, "size": clip.size, "cuts": clip.cuts},
        "model": {"name": plan.inputs.model.name, "digest": plan.inputs.model.digest},
        "working_size": plan.size,
        "full_resolution": request.full_resolution,
        "keyframes": plan.keyframes,
        "scores": scores,
        "video": f"{video.workspace}/{video.path}/{EDITED}",
        "notes": list(dict.fromkeys(notes)),
        "stages": {spec.name: _total(plan.stages_of(spec), costs[spec.name]) for spec in STAGES if spec is not ASSESS},
    }


def _total(stages: Sequence[Stage[StageSettings]], costs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the digest of a stage, or those of its shots, with the seconds of all and the largest peak memory."""
    digests = [stage.ref.digest for stage in stages]
    return {
        "digest": digests[0] if len(digests) == 1 else digests,
        "seconds": round(sum(each["seconds"] for each in costs), 2),
        "peak_memory_mib": max(each["peak_memory_mib"] for each in costs),
        "stored_bytes": sum(each["stored_bytes"] for each in costs),
    }


def _png(image: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()
