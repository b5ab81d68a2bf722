"""Masks of optical flow: occlusion, colour residual and the warp mask B.

Convention:
    ``flow_to_prev`` is on the current frame's grid and points to the previous frame, ``flow_to_cur`` is on the
    previous frame's grid and points to the current one. Every mask is on the current grid.
    ``occlusion_mask`` is True where the flow is *invalid*, ``warp_mask`` where the warped value is *taken*.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wave_ops.errors import WaveOpsError
from wave_ops.settings import ToleranceAt, WarpMaskSettings
from wave_ops.warp import backward_warp, flow_positions, inside_frame

__all__ = ["ToleranceAt", "WarpMaskSettings", "colour_residual", "occlusion_mask", "warp_mask"]


def occlusion_mask(
    flow_to_prev: Float[Tensor, "batch 2 height width"],
    flow_to_cur: Float[Tensor, "batch 2 height width"],
    *,
    relative: float = 0.01,
    absolute: float = 0.5,
    squared: bool = False,
    tolerance_at: ToleranceAt = "match",
) -> Bool[Tensor, "batch height width"]:
    """Return True where a pixel of the current frame has no match in the previous one.

    A pixel p is occluded where following both flows does not lead back to it,
    ``|f_to_prev(p) + f_to_cur(q)| > relative (|f_to_prev(p)| + |f_to_cur(q)|) + absolute`` with
    ``q = p + f_to_prev(p)``, and where q is outside the frame (beyond the pixel edges -0.5 and width - 0.5).

    Source: Sundaram, Brox, Keutzer (ECCV 2010), with the plain norms and constants that WAVE's authors ran;
    ``squared=True`` is the paper's form, with |.|^2 for each norm.

    Args:
        flow_to_prev: pixels, on the current grid.
        flow_to_cur: pixels, on the previous grid; sampled bilinearly at q.
        relative: allowed distance from p as a fraction of the two lengths.
        absolute: distance that is always allowed, pixels (pixels squared where ``squared``).
        squared: compare squared norms.
        tolerance_at: "match" takes the length of the return flow at q, "pixel" at p.

    Raises:
        WaveOpsError: the two flows differ in shape, or a threshold is negative.
    """
    if relative < 0 or absolute < 0:
        raise WaveOpsError(f"expected thresholds of at least 0, got {relative} and {absolute}")
    back = backward_warp(flow_to_cur, flow_to_prev)
    power = 2 if squared else 1
    returning = back if tolerance_at == "match" else flow_to_cur
    distance, there, back_again = (_norm(flow) ** power for flow in (flow_to_prev + back, flow_to_prev, returning))
    # Negated, because comparisons with NaN are false: a flow that is not a number counts as occluded.
    returns = distance <= relative * (there + back_again) + absolute
    return ~(returns & inside_frame(flow_positions(flow_to_prev)))


def colour_residual(
    prev: Float[Tensor, "batch channel height width"],
    cur: Float[Tensor, "batch channel height width"],
    flow_to_prev: Float[Tensor, "batch 2 height width"],
) -> Float[Tensor, "batch height width"]:
    """Return the mean over channels of ``|W(prev) - cur|``, in [0, 1] for images in [0, 1].

    Source: WAVE (ECCV 2024), the colour part of the mask. Bilinear, border padding.

    Args:
        prev: the previous image.
        cur: the current image.
        flow_to_prev: pixels, on the current grid.

    Raises:
        WaveOpsError: the images differ in shape.
    """
    if prev.shape != cur.shape:
        raise WaveOpsError(f"expected two images of one shape, got {tuple(prev.shape)} and {tuple(cur.shape)}")
    return (backward_warp(prev, flow_to_prev) - cur).abs().mean(dim=1)


def warp_mask(
    prev: Float[Tensor, "batch channel height width"],
    cur: Float[Tensor, "batch channel height width"],
    flow_to_prev: Float[Tensor, "batch 2 height width"],
    flow_to_cur: Float[Tensor, "batch 2 height width"],
    *,
    settings: WarpMaskSettings | None = None,
) -> Bool[Tensor, "batch height width"]:
    """Return B: True where a pixel is not occluded and its warped colour is similar, so the warped value is taken.

    A scene transition makes the residual large everywhere, which switches warping off.

    Source: WAVE (ECCV 2024); its authors ran ``(1 - occluded) - 5 residual > 0.6`` on [-1, 1], which is 0.04 on [0, 1].

    Args:
        prev: the previous image, in [0, 1].
        cur: the current image, in [0, 1].
        flow_to_prev: pixels, on the current grid.
        flow_to_cur: pixels, on the previous grid.
        settings: constants; by default those of `WarpMaskSettings`.

    Raises:
        WaveOpsError: the grids of images and flows differ.
    """
    constants = settings or WarpMaskSettings()
    occluded = occlusion_mask(
        flow_to_prev,
        flow_to_cur,
        relative=constants.relative,
        absolute=constants.absolute,
        squared=constants.squared,
        tolerance_at=constants.tolerance_at,
    )
    return ~occluded & (colour_residual(prev, cur, flow_to_prev) < constants.residual_threshold)


def _norm(flow: Float[Tensor, "batch 2 height width"]) -> Float[Tensor, "batch height width"]:
    # Half precision would overflow at 256 px squared.
    return flow.to(torch.promote_types(flow.dtype, torch.float32)).square().sum(dim=1).sqrt()
