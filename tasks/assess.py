"""Assess: metrics, a contact sheet, and source and edit side by side."""

from __future__ import annotations

import io
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from storage.artifact import Artifact
from storage.reference import ArtifactRef
from storage.workspace import open_artifact
from tasks.artifacts import CONTACT_SHEET, EDITED, REPORT, SIDE_BY_SIDE, frames_at, stream_frames
from tasks.costs import record_costs, stage_cost
from tasks.encode import finished_frames, write_like
from tasks.planning.plan import EditPlan
from tasks.planning.stages import ASSESS, Stage, StageSettings
from tasks.progress import counted, stage_progress
from tasks.stage import measured, stage_task
from wave_ops.masks import occlusion_mask
from wave_ops.metrics import psnr, warp_error
from wave_ops.preview import contact_sheet, side_by_side
from wave_ops.resize import analysis_size, to_images
from wave_ops.warp import resize_flow

__all__ = ["assess_edit"]

COLUMNS = 6


@stage_task(ASSESS)
def assess_edit(
    plan: EditPlan, clip: ArtifactRef, flow: ArtifactRef, frames: ArtifactRef, video: ArtifactRef
) -> ArtifactRef:
    """Measure the edit against the source and draw both."""
    artifact, source, edited = (open_artifact(ref) for ref in (plan[ASSESS].ref, clip, frames))
    if artifact.is_complete():
        return plan[ASSESS].ref
    with measured() as cost:
        artifact.write_bytes(CONTACT_SHEET, _png(_contact_sheet(plan, source, edited)))
        _write_side_by_side(artifact, plan, source, edited)
        scores = _scores(plan, source, edited, open_artifact(flow))
        report = _report(plan, scores, video)
        artifact.write_json(REPORT, report)
        ref = artifact.complete(cost())
        record_costs(plan, {**report["stages"], ASSESS.name: stage_cost(artifact)})
        return ref


def _contact_sheet(plan: EditPlan, source: Artifact, edited: Artifact) -> NDArray[np.uint8]:
    count = plan.clip.frame_count
    shown = np.linspace(0, count - 1, min(count, COLUMNS)).round().astype(int).tolist()
    request = plan.request
    clips = {request.source_prompt or "source": source, request.prompt: edited}
    rows = {label: frames_at(artifact, shown, size=plan.size) for label, artifact in clips.items()}
    return contact_sheet(rows, frame_numbers=shown)


def _write_side_by_side(artifact: Artifact, plan: EditPlan, source: Artifact, edited: Artifact) -> None:
    size, every = analysis_size(plan.clip.size), range(plan.clip.frame_count)
    shown = finished_frames(plan, source, edited, size=size)
    pairs = zip(stream_frames(source, every, size=size), shown, strict=True)
    with stage_progress(plan[ASSESS], total=len(every)) as progress, artifact.local_output(SIDE_BY_SIDE) as path:
        both = (side_by_side(left[None], right[None])[0] for left, right in pairs)
        write_like(source, path, counted(both, progress), crf=20)


def _scores(plan: EditPlan, source: Artifact, edited: Artifact, flow: Artifact) -> dict[str, float | None]:
    """Compute metrics at the working size: how much changed, and the warp errors of source and edit."""
    every = range(plan.clip.frame_count)
    clips = [stream_frames(artifact, every, size=plan.size) for artifact in (source, edited)]
    similarity = [float(psnr(to_images(a[None]), to_images(b[None]))) for a, b in zip(*clips, strict=True)]
    warp_errors = [_warp_errors(artifact, plan, flow) for artifact in (source, edited)]
    return {
        "psnr_to_source_db": _mean(similarity),
        "warp_error_source": _mean(warp_errors[0]),
        "warp_error_edited": _mean(warp_errors[1]),
    }


def _warp_errors(artifact: Artifact, plan: EditPlan, flow: Artifact) -> list[float]:
    """Compute the occlusion-masked warp error of neighbouring frames, cuts left out."""
    neighbours = pairwise(stream_frames(artifact, range(plan.clip.frame_count), size=plan.size))
    cuts = set(plan.clip.cuts or ())
    return [
        float(warp_error(to_images(np.stack([prev, cur])), *_trusted_flow(flow, i, plan.size)))
        for i, (prev, cur) in enumerate(neighbours)
        if i + 1 not in cuts
    ]


def _trusted_flow(flow: Artifact, i: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    to_prev, to_cur = (
        resize_flow(torch.from_numpy(flow.read_region(name, i, i + 1)).float(), size) for name in ("to_prev", "to_cur")
    )
    return to_prev, ~occlusion_mask(to_prev, to_cur)


def _mean(values: list[float]) -> float | None:
    """Return the mean of the finite values; None without any."""
    finite = [value for value in values if np.isfinite(value)]
    return round(float(np.mean(finite)), 6) if finite else None


def _report(plan: EditPlan, scores: dict[str, float | None], video: ArtifactRef) -> dict[str, Any]:
    request, clip = plan.request, plan.clip
    return {
        "request": request.model_dump(mode="json"),
        "clip": {"name": clip.name, "frames": clip.frame_count, "size": clip.size, "cuts": clip.cuts},
        "model": {"name": plan.inputs.model.name, "digest": plan.inputs.model.digest},
        "working_size": plan.size,
        "full_resolution": request.full_resolution,
        "keyframes": plan.keyframes,
        "scores": scores,
        "video": f"{video.workspace}/{video.path}/{EDITED}",
        "stages": {stage.name: _stage_cost(stage) for stage in plan.stages if stage.name != "assess"},
    }


def _stage_cost(stage: Stage[StageSettings]) -> dict[str, Any]:
    return {"digest": stage.ref.digest, **stage_cost(open_artifact(stage.ref))}


def _png(image: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()
