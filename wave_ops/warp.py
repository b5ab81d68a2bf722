"""Backward warping by optical flow, on pixel centres.

Convention:
    Flow is ``(batch, 2, height, width)``, x then y, in pixels of its own grid. ``flow_to_prev`` is on the grid of
    the current frame: the pixel p of the current frame was at ``p + flow_to_prev[p]`` in the previous one.
    Coordinates count pixel centres from 0, so the frame extends from -0.5 to width - 0.5; this is
    ``align_corners=False``, and zero flow is the identity.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wave_ops.errors import WaveOpsError

__all__ = ["Mode", "Padding", "backward_warp", "flow_positions", "inside_frame", "resize_flow"]

Mode = Literal["bilinear", "nearest"]
Padding = Literal["border", "reflection", "zeros"]


def backward_warp(
    x: Float[Tensor, "batch channel height width"],
    flow_to_prev: Float[Tensor, "batch 2 height width"],
    *,
    mode: Mode = "bilinear",
    padding: Padding = "border",
) -> Float[Tensor, "batch channel height width"]:
    """Warp the previous frame's values to the current frame: ``out[p] = x[p + flow_to_prev[p]]``.

    Source: the operator W of WAVE (ECCV 2024). Deviates from the published code, which mixes two
    pixel conventions. Positions are computed in float32 (float64 only for a float64 flow) whatever the dtype
    of ``x``, and values are gathered rather than sampled at normalised coordinates: a whole-pixel flow moves
    values bit for bit, at any image size and in half precision.

    Args:
        x: values of the previous frame, any floating dtype.
        flow_to_prev: pixels, x then y, on the grid of the current frame.
        mode: ``nearest`` rounds positions half to even; ``bilinear`` mixes the four neighbours.
        padding: beyond the frame ``border`` takes the nearest edge pixel, ``reflection`` mirrors about the
            pixel *edges* -0.5 and width - 0.5 (so the edge pixel is repeated once), ``zeros`` counts every
            pixel outside as 0. All three agree with ``grid_sample(align_corners=False)``.

    Returns:
        Values on the current frame's grid, with the dtype and device of ``x``. Linear in ``x``.

    Raises:
        WaveOpsError: the batches or the grids of the two differ, or mode or padding is unknown.
    """
    _check_options(mode, padding)
    _check_flow(flow_to_prev)
    if (x.shape[:1], x.shape[2:]) != (flow_to_prev.shape[:1], flow_to_prev.shape[2:]):
        shapes = f"{tuple(x.shape)} and {tuple(flow_to_prev.shape)}"
        raise WaveOpsError(f"expected features and flow of one batch and one grid, got {shapes}")
    positions = _pad_positions(flow_positions(flow_to_prev), padding)
    if mode == "nearest":
        return _take(x, positions.round().long(), zeros=padding == "zeros")
    return _bilinear(x, positions, zeros=padding == "zeros")


def flow_positions(
    flow: Float[Tensor, "batch 2 height width"],
) -> Float[Tensor, "batch 2 height width"]:
    """Return ``p + flow[p]``, the position (x, y) that each pixel is taken from, in pixels, at least float32.

    Raises:
        WaveOpsError: the flow is not (batch, 2, height, width).
    """
    _check_flow(flow)
    dtype = torch.promote_types(flow.dtype, torch.float32)
    height, width = flow.shape[2:]
    x = torch.arange(width, device=flow.device, dtype=dtype).expand(height, width)
    y = torch.arange(height, device=flow.device, dtype=dtype)[:, None].expand(height, width)
    return torch.stack((x, y)) + flow


def inside_frame(
    positions: Float[Tensor, "batch 2 height width"],
) -> Bool[Tensor, "batch height width"]:
    """Return True where a position is on the frame, pixel edges included: -0.5 <= x <= width - 0.5."""
    x, y = positions.unbind(1)
    height, width = positions.shape[2:]
    return (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)


def resize_flow(
    flow: Float[Tensor, "batch 2 height width"],
    size: tuple[int, int],
) -> Float[Tensor, "batch 2 new_height new_width"]:
    """Resample a flow bilinearly on another grid and rescale its values by the ratio of the sizes.

    Without antialiasing: an average over a motion edge would be a motion that no object has. Resized positions
    ``p + flow`` thus equal the positions of the resized flow.

    Args:
        flow: pixels of its own grid, x then y.
        size: the new (height, width).

    Returns:
        The flow in pixels of the new grid, in the flow's dtype; the same object where the size is unchanged.

    Raises:
        WaveOpsError: the flow is not (batch, 2, height, width), or a side of the size is below 1.
    """
    _check_flow(flow)
    if min(size) < 1:
        raise WaveOpsError(f"expected a size (height, width) of at least 1 pixel each, got {size}")
    height, width = flow.shape[2:]
    if (height, width) == tuple(size):
        return flow
    working = flow.to(torch.promote_types(flow.dtype, torch.float32))
    resized = F.interpolate(working, size=size, mode="bilinear", align_corners=False)
    ratio = resized.new_tensor([size[1] / width, size[0] / height]).view(1, 2, 1, 1)
    return (resized * ratio).to(flow.dtype)


def _check_options(mode: str, padding: str) -> None:
    if mode not in get_args(Mode):
        raise WaveOpsError(f"expected a mode of {', '.join(get_args(Mode))}, got {mode!r}")
    if padding not in get_args(Padding):
        raise WaveOpsError(f"expected a padding of {', '.join(get_args(Padding))}, got {padding!r}")


def _check_flow(flow: Tensor) -> None:
    if flow.ndim != 4 or flow.shape[1] != 2 or not flow.is_floating_point():
        raise WaveOpsError(
            f"expected a floating flow (batch, 2, height, width), got {tuple(flow.shape)} of {flow.dtype}"
        )


def _pad_positions(
    positions: Float[Tensor, "batch 2 height width"], padding: Padding
) -> Float[Tensor, "batch 2 height width"]:
    if padding == "zeros":
        return positions
    height, width = positions.shape[2:]
    extent = positions.new_tensor([width, height]).view(1, 2, 1, 1)
    if padding == "reflection":
        # Mirroring at both edges, again and again, is a triangle wave of period 2 * extent from the pixel edge.
        phase = torch.remainder(positions + 0.5, 2 * extent)
        positions = extent - (phase - extent).abs() - 0.5
    return torch.minimum(positions.clamp(min=0), extent - 1)


def _bilinear(
    x: Float[Tensor, "batch channel height width"],
    positions: Float[Tensor, "batch 2 height width"],
    *,
    zeros: bool,
) -> Float[Tensor, "batch channel height width"]:
    # Four gathers instead of grid_sample: normalised coordinates would round, and whole-pixel flow would blur.
    low = positions.floor()
    weight = positions - low
    right, down = weight[:, :1], weight[:, 1:]
    near = low.long()
    far = near + 1
    columns_rows = [(near, near), (far, near), (near, far), (far, far)]
    corners = [torch.stack((column[:, 0], row[:, 1]), dim=1) for column, row in columns_rows]
    here, across, below, opposite = (_take(x, corner, zeros=zeros) for corner in corners)
    upper = here * (1 - right) + across * right
    lower = below * (1 - right) + opposite * right
    return (upper * (1 - down) + lower * down).to(x.dtype)


def _take(
    x: Float[Tensor, "batch channel height width"],
    index: Int[Tensor, "batch 2 height width"],
    *,
    zeros: bool,
) -> Float[Tensor, "batch channel height width"]:
    """Gather whole pixels; outside the frame the nearest edge pixel, or 0."""
    batch, channel, height, width = x.shape
    # Clamped for every padding: a flow that is not finite has arbitrary positions, far outside the frame
    column, row = index[:, 0].clamp(0, width - 1), index[:, 1].clamp(0, height - 1)
    flat = (row * width + column).view(batch, 1, -1).expand(-1, channel, -1)
    taken = x.reshape(batch, channel, -1).gather(2, flat).view(x.shape)
    if not zeros:
        return taken
    inside = (index[:, 0] == column) & (index[:, 1] == row)
    return taken * inside[:, None]
