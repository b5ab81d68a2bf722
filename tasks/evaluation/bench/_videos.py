"""An interval of a real video, with an edit that can be applied to every frame, so that the true edit is known."""

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

__all__ = ["check_videos", "restyle", "video_interval"]

Frames = NDArray[np.uint8]

_SEARCHED: Final = 4
"""How many times the length of an interval is read, to choose one without a cut."""


def check_videos(paths: Sequence[Path]) -> None:
    """Check that every file is a video.

    Raises:
        VideoError: if one is not.
    """
    for path in paths:
        probe(path)


def video_interval(path: Path, length: int, size: tuple[int, int]) -> tuple[KeyframeInterval, Frames]:
    """Return the interval with most motion around the middle of a video, keyframes restyled, and all frames restyled.

    Flow is estimated by DIS.

    Args:
        path: a video.
        length: frames from keyframe to keyframe.
        size: height and width, pixels; frames are resized to it without keeping their aspect ratio.

    Raises:
        TaskInputError: if the video has no interval of that length without a cut around its middle.
        VideoError: if it cannot be read.
    """
    frames = resize_frames(_busiest_frames(path, length + 1), size)
    edited, estimate = np.stack([restyle(frame) for frame in frames]), dis_flow()
    flows = [estimate(before, after) for before, after in pairwise(frames)]
    interval = KeyframeInterval(
        frames=frames,
        first=edited[0],
        last=edited[-1],
        to_prev=np.stack([flow for flow, _ in flows]),
        to_cur=np.stack([flow for _, flow in flows]),
    )
    return interval, edited


def restyle(frame: Frames) -> Frames:
    """Paint a frame smoothly in other, lighter colours, with dark outlines: a strong edit that keeps all shapes."""
    smooth = cv2.stylization(np.ascontiguousarray(frame[..., [1, 2, 0]]), sigma_s=40, sigma_r=0.45)
    grey = cv2.GaussianBlur(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), (0, 0), 1.5).astype(np.float32)
    slope = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    ink = np.clip(1.1 - slope / 200, 0.3, 1)
    light = 255 * (smooth.astype(np.float32) / 255) ** 0.75
    painted: Frames = np.rint(light * ink[..., None]).astype(np.uint8)
    return painted


def _busiest_frames(path: Path, count: int) -> Frames:
    """Read the frames around the middle of a video, and choose those of one shot that change most."""
    total, searched = probe(path).frame_count, _SEARCHED * count
    first = max(0, (total - searched) // 2)
    frames = [frame for _, frame in islice(read_frames(path), first, first + searched)]
    cuts = detect_cuts(frames)
    starts = [i for i in range(len(frames) - count + 1) if not any(i < cut < i + count for cut in cuts)]
    if not starts:
        raise TaskInputError(f"{path} has no {count} frames without a cut around its middle; choose another video.")
    changes = [float(cv2.absdiff(before, after).mean()) for before, after in pairwise(frames)]
    best = max(starts, key=lambda start: sum(changes[start : start + count - 1]))
    return np.stack(frames[best : best + count])
