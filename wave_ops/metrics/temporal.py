"""Temporal consistency of a video along its flow."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor

from wave_ops.errors import WaveOpsError
from wave_ops.metrics._arrays import masked_mean, wide
from wave_ops.warp import backward_warp

__all__ = ["warp_error"]


def warp_error(
    frames: Float[Tensor, "frame channel height width"],
    flows_to_prev: Float[Tensor, "pair 2 height width"],
    valid: Bool[Tensor, "pair height width"],
) -> Float[Tensor, "pair"]:
    """Return, per pair of neighbouring frames, the mean squared difference to the warped previous frame.

    Source: Lai et al., "Learning Blind Video Temporal Consistency" (ECCV 2018), averaged over channels instead of
    summed. Mean over the valid pixels; lower is steadier. Range [0, 1]; not a number if no pixel is valid.

    Args:
        frames: in [0, 1].
        flows_to_prev: entry i is on the grid of frame i + 1 and points to frame i, in pixels.
        valid: True where entry i of the flow is valid, that is, not occluded.

    Raises:
        WaveOpsError: the number of flows or masks is not that of the pairs.
    """
    pairs = (len(frames) - 1, len(flows_to_prev), len(valid))
    if len(set(pairs)) != 1:
        raise WaveOpsError(f"expected one flow and one mask for each of {pairs[0]} pairs, got {pairs[1:]}")
    if not len(valid):
        return wide(frames).new_zeros(0)
    difference = backward_warp(wide(frames[:-1]), flows_to_prev) - frames[1:]
    return masked_mean(difference.square().mean(dim=1), valid)
