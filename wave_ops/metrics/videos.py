"""Temporal metrics of plain arrays: a video as it is decoded, and its source.

Convention:
    Videos are uint8 RGB (time, height, width, 3). A cut is the index of the first frame of a shot; no metric looks
    across a cut.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Shaped, UInt8

from wave_ops.errors import WaveOpsError
from wave_ops.flow import FlowEstimator, dis_flow
from wave_ops.masks import occlusion_mask
from wave_ops.metrics.clip import temporal_consistency
from wave_ops.metrics.temporal import warp_error
from wave_ops.resize import to_images

__all__ = ["SourceMotion", "source_motion", "video_consistency", "video_warp_error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceMotion:
    """Flow between neighbouring frames in both directions: entry i is between frame i and frame i + 1."""

    to_prev: Float32[np.ndarray, "pair 2 height width"]
    """On the grid of frame i + 1, pointing to frame i; pixels, x then y."""
    to_cur: Float32[np.ndarray, "pair 2 height width"]
    """On the grid of frame i, pointing to frame i + 1."""
    valid: Bool[np.ndarray, "pair height width"]
    """On the grid of frame i + 1: where the target of `to_prev` is visible; nowhere across a cut."""


def source_motion(
    source: UInt8[np.ndarray, "time height width 3"],
    *,
    estimate: FlowEstimator | None = None,
    cuts: Collection[int] = (),
) -> SourceMotion:
    """Estimate the motion of a source once, for all of its edits.

    An edit's own flow would excuse an edit that moves where the source does not.

    Args:
        source: the source video.
        estimate: from two frames to flow in both directions; DIS by default (`dis_flow`).
        cuts: indices of the first frame of each shot but the first.
    """
    estimate = estimate or dis_flow()
    nothing = np.zeros((2, *source.shape[1:3]), np.float32)
    pairs = [(nothing, nothing) if i in cuts else estimate(source[i - 1], source[i]) for i in range(1, len(source))]
    # The zero flow in front is there for a video of one frame, which has no pairs
    to_prev, to_cur = (np.stack([nothing, *(pair[side] for pair in pairs)]) for side in (0, 1))
    hidden = occlusion_mask(torch.from_numpy(to_prev), torch.from_numpy(to_cur)).numpy()[1:]
    hidden[[cut - 1 for cut in cuts]] = True
    return SourceMotion(to_prev=to_prev[1:], to_cur=to_cur[1:], valid=~hidden)


def video_warp_error(
    edited: UInt8[np.ndarray, "time height width 3"], motion: SourceMotion
) -> Float64[np.ndarray, "pair"]:
    """Return `warp_error` of each pair of neighbouring frames, along the motion of the source.

    Range [0, 1], lower is steadier; not a number if no pixel of a pair has a match. Report it next to that of the
    source itself: a method that does nothing has the source's, and a blurred or grey video has less.

    Args:
        edited: the edited video, at the size of the source.
        motion: from `source_motion`.

    Raises:
        WaveOpsError: the video does not fit the motion.
    """
    expected = (len(motion.valid) + 1, *motion.valid.shape[1:], 3)
    if edited.dtype != np.uint8 or edited.shape != expected:
        raise WaveOpsError(f"expected an uint8 video {expected}, as the source, got {edited.dtype} {edited.shape}")
    errors = warp_error(to_images(edited), torch.from_numpy(motion.to_prev), torch.from_numpy(motion.valid))
    return errors.double().numpy()


def video_consistency(embeddings: Shaped[np.ndarray, "time embedding"], *, cuts: Collection[int] = ()) -> float:
    """Return the mean of `temporal_consistency` over the shots, of embeddings of any network, such as CLIP.

    Range [-1, 1]; not a number if no shot has two frames. Shots count by their pairs of frames.

    Args:
        embeddings: one vector per frame; their lengths do not matter.
        cuts: indices of the first frame of each shot but the first.
    """
    values = torch.from_numpy(np.asarray(embeddings, np.float32))
    shots = [slice(*ends) for ends in pairwise((0, *sorted(cuts), len(values)))]
    weights = [max(0, shot.stop - shot.start - 1) for shot in shots]
    if not sum(weights):
        return float("nan")
    found = [temporal_consistency(values[shot]) if weight else 0.0 for shot, weight in zip(shots, weights, strict=True)]
    return float(np.average(found, weights=weights))
