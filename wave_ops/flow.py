"""Optical flow estimators with one interface, for both directions at once.

Convention:
    An estimator takes two uint8 RGB frames (height, width, 3), ``prev`` and ``cur``, and returns
    ``(flow_to_prev, flow_to_cur)``, each float32 (2, height, width), x then y, in pixels of the frames' grid.
    ``flow_to_prev`` is on the grid of ``cur``, ``flow_to_cur`` on the grid of ``prev``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from typing import Literal, TypeAlias

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models import optical_flow

from wave_ops.errors import WaveOpsError
from wave_ops.warp import backward_warp, resize_flow

__all__ = [
    "DisPreset",
    "FlowEstimator",
    "RaftSize",
    "build_raft",
    "compose_flows",
    "dis_flow",
    "raft_flow",
    "refine_flow",
]

Frame: TypeAlias = NDArray[np.uint8]
Flow: TypeAlias = NDArray[np.float32]
FlowEstimator: TypeAlias = Callable[[Frame, Frame], tuple[Flow, Flow]]
DisPreset = Literal["ultrafast", "fast", "medium"]
RaftSize = Literal["small", "large"]

_DIS_PRESETS: dict[str, int] = {
    "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}
# On smaller frames, the presets' half or quarter resolution has too few patches: search at full resolution.
_DIS_SMALL = 128
# The search needs a few patches of 8 px per side; smaller frames are enlarged first.
_DIS_SMALLEST = 32
# RAFT's correlation has four levels of a grid of 1/8; the coarsest one must have 2 cells per side.
_RAFT_SMALLEST = 128
_RAFT_MULTIPLE = 8


def dis_flow(preset: DisPreset = "medium") -> FlowEstimator:
    """Return the estimator of dense inverse search (DIS), which needs no weights.

    Source: Kroeger et al., "Fast Optical Flow using Dense Inverse Search" (ECCV 2016), OpenCV's implementation, on
    grey frames. Deviates from its presets if the shorter side is under 128 px: the search is at full resolution, with
    patches of 8 px every 3 px. Frames under 32 px are enlarged first by a whole factor. The result does not depend on
    OpenCV's number of threads.

    Args:
        preset: OpenCV's balance of speed and quality.

    Raises:
        WaveOpsError: the preset is unknown; from the estimator, the frames are not two uint8 RGB frames of one size.
    """
    if preset not in _DIS_PRESETS:
        raise WaveOpsError(f"expected a DIS preset of {', '.join(_DIS_PRESETS)}, got {preset!r}")

    def estimate(prev: Frame, cur: Frame) -> tuple[Flow, Flow]:
        _check_frames(prev, cur)
        factor = ceil(_DIS_SMALLEST / min(prev.shape[:2]))
        before, after = (_enlarge(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), factor) for frame in (prev, cur))
        search = _dis(preset, shorter_side=min(before.shape))
        # Flow is on the grid of the first frame and points to the second, so (after, before) is the flow to prev
        flows = np.stack((search.calc(after, before, None), search.calc(before, after, None)))
        return _split(torch.from_numpy(flows).permute(0, 3, 1, 2), prev.shape[:2])

    return estimate


def compose_flows(flows: Sequence[Float[Tensor, "2 height width"]]) -> Float[Tensor, "2 height width"]:
    """Compose flows from frame to frame into one flow over all of them.

    Args:
        flows: flows[i] is on the grid of frame i and points to frame i + 1, in pixels.

    Returns:
        The flow on the grid of frame 0 that points to the last frame.
    """
    total = flows[-1]
    for flow in reversed(flows[:-1]):
        total = flow + backward_warp(total[None], flow[None])[0]
    return total


def refine_flow(
    prev: Frame, cur: Frame, start: tuple[Flow, Flow], *, preset: DisPreset = "medium"
) -> tuple[Flow, Flow]:
    """Refine flows between two frames far apart by dense inverse search from a start, to the finest scale.

    Alone, the search finds motions of a fraction of the frame only, and mistakes one period of a pattern for another.

    Args:
        prev: the earlier frame.
        cur: the later frame.
        start: (flow_to_prev, flow_to_cur), as `compose_flows` computes them from neighbouring frames.
        preset: OpenCV's balance of speed and quality.

    Returns:
        (flow_to_prev, flow_to_cur).

    Raises:
        WaveOpsError: the frames are not two uint8 RGB frames of one size, or the flows are not of that size.
    """
    _check_frames(prev, cur)
    size = prev.shape[:2]
    if any(flow.shape != (2, *size) for flow in start):
        raise WaveOpsError(
            f"expected flows of shape {(2, *size)}, got {' and '.join(str(flow.shape) for flow in start)}"
        )
    factor = ceil(_DIS_SMALLEST / min(size))
    before, after = (_enlarge(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), factor) for frame in (prev, cur))
    enlarged = resize_flow(torch.from_numpy(np.stack(start)), (before.shape[0], before.shape[1]))
    to_prev, to_cur = (np.ascontiguousarray(flow) for flow in enlarged.permute(0, 2, 3, 1).numpy())
    search = _dis(preset, shorter_side=min(before.shape))
    search.setFinestScale(0)
    flows = np.stack((search.calc(after, before, to_prev), search.calc(before, after, to_cur)))
    return _split(torch.from_numpy(flows).permute(0, 3, 1, 2), size)


def raft_flow(model: nn.Module, *, device: torch.device | str = "cpu") -> FlowEstimator:
    """Return the estimator of a RAFT network, which computes both directions in one batch.

    Source: Teed and Deng, "RAFT" (ECCV 2020), torchvision's networks. Frames under 128 px, the least that the
    network accepts, are enlarged first by a whole factor; sides are padded to multiples of 8 by repeating the edge.

    Args:
        model: a network of `build_raft` with weights loaded; it is moved to ``device`` and set to evaluation mode.
        device: the device to compute on.

    Raises:
        WaveOpsError: from the estimator, the frames are not two uint8 RGB frames of one size.
    """
    model = model.to(device).eval()

    @torch.inference_mode()
    def estimate(prev: Frame, cur: Frame) -> tuple[Flow, Flow]:
        _check_frames(prev, cur)
        factor = ceil(_RAFT_SMALLEST / min(prev.shape[:2]))
        images = np.stack([_enlarge(frame, factor) for frame in (cur, prev)])
        height, width = images.shape[1:3]
        padded = _pad(torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1)
        flows = model(padded, padded.flip(0))[-1][..., :height, :width]  # the last of RAFT's iterations
        return _split(flows.float().cpu(), prev.shape[:2])

    return estimate


def build_raft(size: RaftSize) -> nn.Module:
    """Return torchvision's RAFT network with random weights, without a download.

    Raises:
        WaveOpsError: the size is neither small nor large.
    """
    builders: dict[str, Callable[..., nn.Module]] = {
        "small": optical_flow.raft_small,
        "large": optical_flow.raft_large,
    }
    if size not in builders:
        raise WaveOpsError(f"expected a RAFT of {' or '.join(builders)}, got {size!r}")
    return builders[size](weights=None, progress=False)


def _dis(preset: str, *, shorter_side: int) -> cv2.DISOpticalFlow:
    search: cv2.DISOpticalFlow = cv2.DISOpticalFlow.create(_DIS_PRESETS[preset])
    if shorter_side < _DIS_SMALL:
        search.setFinestScale(0)
        search.setPatchSize(8)
        search.setPatchStride(3)
    return search


def _check_frames(prev: Frame, cur: Frame) -> None:
    shape = prev.shape
    if shape != cur.shape or len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise WaveOpsError(f"expected two frames (height, width, 3) of one size, got {prev.shape} and {cur.shape}")
    if prev.dtype != np.uint8 or cur.dtype != np.uint8:
        raise WaveOpsError(f"expected two uint8 frames, got {prev.dtype} and {cur.dtype}")


def _enlarge(image: Frame, factor: int) -> Frame:
    if factor <= 1:
        return image
    enlarged: Frame = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    return enlarged


def _pad(images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 padded_height padded_width"]:
    down, right = (-side % _RAFT_MULTIPLE for side in images.shape[2:])
    return F.pad(images, (0, right, 0, down), mode="replicate")


def _split(flows: Float[Tensor, "2 2 height width"], size: tuple[int, ...]) -> tuple[Flow, Flow]:
    """Resize both directions to the frames' size, and return them as separate arrays."""
    height, width = size
    to_prev, to_cur = (np.ascontiguousarray(flow) for flow in resize_flow(flows, (height, width)).numpy())
    return to_prev, to_cur
