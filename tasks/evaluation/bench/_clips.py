"""An interval of a real clip, with an edit that can be done frame by frame, so that the right answer is known."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from storage.video import probe, read_frames
from tasks.errors import TaskInputError
from wave_ops.flow import dis_flow
from wave_ops.propagation import KeyframeInterval
from wave_ops.resize import resize_frames
from wave_ops.shot_detection import detect_cuts

__all__ = ["check_clips", "clip_interval", "restyled"]

Frames = NDArray[np.uint8]

_SEARCHED: Final = 4
"""How many lengths of an interval are read to choose one without a cut."""


def check_clips(paths: Sequence[Path]) -> None:
    """Check that every clip is a video.

    Raises:
        VideoError: one is not.
    """
    for path in paths:
        probe(path)


def clip_interval(path: Path, length: int, size: tuple[int, int]) -> tuple[KeyframeInterval, Frames]:
    """Take the busiest interval around the middle of a clip, keyframes restyled, and its frames restyled one by one.

    Flow is estimated by DIS.

    Args:
        path: a video.
        length: frames from keyframe to keyframe.
        size: height and width, pixels; frames are squeezed to it.

    Raises:
        TaskInputError: the clip has no stretch of that length without a cut around its middle.
        VideoError: it cannot be read.
    """
    frames = resize_frames(_stretch(path, length + 1), size)
    edited, estimate = np.stack([restyled(frame) for frame in frames]), dis_flow()
    flows = [estimate(before, after) for before, after in pairwise(frames)]
    interval = KeyframeInterval(
        frames=frames,
        first=edited[0],
        last=edited[-1],
        to_prev=np.stack([flow for flow, _ in flows]),
        to_cur=np.stack([flow for _, flow in flows]),
    )
    return interval, edited


def restyled(frame: Frames) -> Frames:
    """Paint a frame smoothly in other, lighter colours, with dark outlines: a strong edit that keeps what is where."""
    smooth = cv2.stylization(np.ascontiguousarray(frame[..., [1, 2, 0]]), sigma_s=40, sigma_r=0.45)
    grey = cv2.GaussianBlur(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), (0, 0), 1.5).astype(np.float32)
    slope = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    ink = np.clip(1.1 - slope / 200, 0.3, 1)
    light = 255 * (smooth.astype(np.float32) / 255) ** 0.75
    painted: Frames = np.rint(light * ink[..., None]).astype(np.uint8)
    return painted


def _stretch(path: Path, count: int) -> Frames:
    """Read the frames around the middle of a clip and choose those of one shot among which most changes."""
    total, wanted = probe(path).frame_count, _SEARCHED * count
    first = max(0, (total - wanted) // 2)
    frames = [frame for _, frame in islice(read_frames(path), first, first + wanted)]
    cuts = detect_cuts(frames)
    starts = [i for i in range(len(frames) - count + 1) if not any(i < cut < i + count for cut in cuts)]
    if not starts:
        raise TaskInputError(f"{path} has no {count} frames without a cut around its middle; name another clip.")
    changes = [float(cv2.absdiff(before, after).mean()) for before, after in pairwise(frames)]
    best = max(starts, key=lambda start: sum(changes[start : start + count - 1]))
    return np.stack(frames[best : best + count])
