"""What the ControlNets of an edit see of its keyframes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from tempfile import SpooledTemporaryFile
from typing import IO, Final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from storage.digest import digest_file_once
from storage.limits import using_limits
from storage.video import FrameReader
from storage.workspace import open_artifact
from tasks.artifacts import stream_frames
from tasks.cancel import raise_if_stopped
from tasks.errors import TaskInputError
from tasks.full_disk import named_full_temporary_folder
from tasks.models.controlnets import ControlInput
from tasks.planning.input_video import clip_name, local_video
from tasks.planning.plan import EditPlan
from tasks.planning.stages import DECODE
from wave_ops.controls import Control
from wave_ops.edges import canny_edges
from wave_ops.resize import resize_frames, to_images

__all__ = ["edit_controls"]

_IN_MEMORY: Final = 32 * 2**20
"""Bytes of images that stay in memory: edges of some hundred keyframes, so that few edits write a file."""


@contextmanager
def edit_controls(plan: EditPlan) -> Iterator[tuple[Control, ...]]:
    """Yield the inputs of a plan's ControlNets at the size of the edit: canny edges, or frames of control videos.

    They are read when asked for; those of a long shot are in a temporary file that ends with the context.

    Args:
        plan: of a shot, or of a clip that is one.

    Raises:
        TaskInputError: if a control video changed, or has another number of frames than the clip.
        WorkspaceError: if the disk of temporary files is full.
    """
    items = () if plan.inputs.controlnet is None else plan.inputs.controlnet.items
    with ExitStack() as stack:
        images = {
            video: stack.enter_context(_stored(plan, video)) for video in dict.fromkeys(item.video for item in items)
        }
        yield tuple(
            Control(images=images[item.video], weight=item.spec.weight, start=item.spec.start, stop=item.spec.stop)
            for item in items
        )


class _Images:
    """Images of keyframes as bytes; see `wave_ops.controls.KeyframeImages`."""

    def __init__(self, file: IO[bytes]) -> None:
        """Write to an empty file."""
        self._file = file
        self._shape: tuple[int, ...] = (0, 0, 0)
        self._count = 0

    def append(self, image: NDArray[np.uint8]) -> None:
        """Add the next keyframe's image (height, width, channel), one channel for three equal ones."""
        self._file.write(image.tobytes())
        self._shape, self._count = image.shape, self._count + 1

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, keyframes: list[int], /) -> Float[Tensor, "keyframe 3 height width"]:
        height, width, _ = self._shape
        images, size = np.empty((len(keyframes), height, width, 3), np.uint8), math.prod(self._shape)
        for image, index in zip(images, keyframes, strict=True):
            self._file.seek(index * size)
            image[...] = np.frombuffer(self._file.read(size), np.uint8).reshape(self._shape)
        return to_images(images)


@contextmanager
def _stored(plan: EditPlan, video: ControlInput | None) -> Iterator[_Images]:
    with SpooledTemporaryFile(max_size=_IN_MEMORY, prefix="wave-") as file:
        images = _Images(file)
        with named_full_temporary_folder():
            for image in _edges(plan) if video is None else _keyframes(plan, video):
                images.append(image)
            file.flush()
        yield images


def _edges(plan: EditPlan) -> Iterator[NDArray[np.uint8]]:
    """Yield the canny edges of the source's keyframes at the size at which they are edited, 0 or 255."""
    for frame in stream_frames(open_artifact(plan[DECODE].ref), plan.keyframes, size=plan.size):
        edges = canny_edges(frame[None])[0, :1].permute(1, 2, 0)
        yield (255 * edges).to(torch.uint8).numpy()


def _keyframes(plan: EditPlan, video: ControlInput) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames of a control video that belong to the keyframes, at the size at which these are edited."""
    settings, count, wanted = plan[DECODE].settings, 0, set(plan.keyframes)
    with using_limits(plan.execution.limits), local_video(video.location) as path:
        if digest_file_once(path) != video.digest:
            raise TaskInputError(f"The control video {path.name} changed after the edit was planned: start again.")
        for _, frame in FrameReader(path, deinterlace=settings.deinterlace, trim=settings.trim):
            if count in wanted:
                raise_if_stopped()
                yield resize_frames(frame[None], plan.size)[0]
            count += 1
    if count != plan.clip.frame_count:
        raise TaskInputError(
            f"The control video {clip_name(video.location)} has {count} frames, and the clip {plan.clip.name} has "
            f"{plan.clip.frame_count}: there must be one for each."
        )
