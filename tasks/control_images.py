"""What the ControlNets of an edit see of its keyframes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from storage.digest import digest_file_once
from storage.limits import using_limits
from storage.video import FrameReader
from tasks.errors import TaskInputError
from tasks.models.controlnets import ControlInput
from tasks.planning.input_video import clip_name, local_video
from tasks.planning.plan import EditPlan
from tasks.planning.stages import DECODE
from wave_ops.controls import Control
from wave_ops.edges import canny_edges
from wave_ops.resize import resize_frames, to_images

__all__ = ["edit_controls"]


def edit_controls(plan: EditPlan, sources: Callable[[], NDArray[np.uint8]]) -> tuple[Control, ...]:
    """Return the inputs of a plan's ControlNets at the size of the edit: canny edges, or frames of control videos.

    Args:
        plan: of a shot, or of a clip that is one.
        sources: reads the source's keyframes at that size.

    Raises:
        TaskInputError: if a control video changed, or has another number of frames than the clip.
    """
    controlnet, images = plan.inputs.controlnet, dict[ControlInput | None, Tensor]()
    for item in () if controlnet is None else controlnet.items:
        if item.video not in images:
            images[item.video] = canny_edges(sources()) if item.video is None else _keyframes(plan, item.video)
    return tuple(
        Control(images=images[item.video], weight=item.spec.weight, start=item.spec.start, stop=item.spec.stop)
        for item in (() if controlnet is None else controlnet.items)
    )


def _keyframes(plan: EditPlan, video: ControlInput) -> Tensor:
    settings, count, wanted = plan[DECODE].settings, 0, set(plan.keyframes)
    found: list[NDArray[np.uint8]] = []
    with using_limits(plan.execution.limits), local_video(video.location) as path:
        if digest_file_once(path) != video.digest:
            raise TaskInputError(f"The control video {path.name} changed after the edit was planned: start again.")
        for _, frame in FrameReader(path, deinterlace=settings.deinterlace, trim=settings.trim):
            if count in wanted:
                found.append(resize_frames(frame[None], plan.size)[0])
            count += 1
    if count != plan.clip.frame_count:
        raise TaskInputError(
            f"The control video {clip_name(video.location)} has {count} frames, and the clip {plan.clip.name} has "
            f"{plan.clip.frame_count}: there must be one for each."
        )
    return to_images(np.stack(found))
