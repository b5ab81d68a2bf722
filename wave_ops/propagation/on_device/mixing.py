"""Selection, blend and gradient fusion of two candidates on a torch device.

The twin of `wave_ops.propagation.selection`, `.blending` and `.fusion`, where each step is explained. Images are
float32 (3, height, width), RGB in 8-bit units or Lab as `rgb_to_lab` scales it.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from wave_ops.propagation.blending import KNEE, TO_RGB, TO_XYZ
from wave_ops.propagation.selection import UNSEEN

__all__ = ["blend", "blend_weights", "fuse_gradients", "lab_to_rgb", "rgb_to_lab", "selected_gradients"]

Image = Float[Tensor, "3 height width"]
Map = Float[Tensor, "height width"]


def rgb_to_lab(image: Image) -> Image:
    """Convert sRGB in 0..255 to Lab in 8-bit units: L scaled to 0..255, a and b moved by 128."""
    encoded = image.clamp(0, 255) / 255
    linear = torch.where(encoded > 0.04045, ((encoded + 0.055) / 1.055) ** 2.4, encoded / 12.92)
    xyz = _mix(TO_XYZ, linear)
    x, y, z = torch.where(xyz > KNEE**3, xyz.clamp(min=0) ** (1 / 3), xyz / (3 * KNEE**2) + 4 / 29)
    return torch.stack(((116 * y - 16) * 2.55, 500 * (x - y) + 128, 200 * (y - z) + 128))


def lab_to_rgb(lab: Image) -> Image:
    """Invert `rgb_to_lab`; colours outside sRGB are cut to 0..255."""
    y = (lab[0] / 2.55 + 16) / 116
    root = torch.stack((y + (lab[1] - 128) / 500, y, y - (lab[2] - 128) / 200))
    xyz = torch.where(root > KNEE, root**3, (root - 4 / 29) * (3 * KNEE**2))
    linear = _mix(TO_RGB, xyz).clamp_(0, 1)
    return torch.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, linear * 12.92) * 255


def blend(first: Image, last: Image, chosen: Image, *, weight: float | Map) -> Image:
    """Mix two Lab candidates with 1 - `weight` and `weight`, with the contrast of `chosen`."""
    mix = (1 - weight) * _with_statistics(first, 128.0, 256 / 36) + weight * _with_statistics(last, 128.0, 256 / 36)
    return _with_statistics(mix, chosen.mean(dim=(1, 2), keepdim=True), _deviation(chosen))


def blend_weights(first_error: Map, last_error: Map, *, weight: float) -> Map:
    """Return the share of the later keyframe's candidate at each pixel of the blend, 0 to 1."""
    errors = F.pad(torch.stack((first_error, last_error))[:, None], [4] * 4, mode="replicate")
    first, last = F.avg_pool2d(errors, 9, stride=1)[:, 0] + UNSEEN
    share: Tensor = weight * first / (weight * first + (1 - weight) * last)
    return share


def selected_gradients(
    first: Float[Tensor, "channel height width"],
    last: Float[Tensor, "channel height width"],
    from_last: Bool[Tensor, "height width"],
) -> tuple[Float[Tensor, "channel height width-1"], Float[Tensor, "channel height-1 width"]]:
    """Return the forward differences, each taken inside the candidate selected at its left or upper pixel."""
    gradient_x = torch.where(from_last[:, :-1], last.diff(dim=2), first.diff(dim=2))
    gradient_y = torch.where(from_last[:-1], last.diff(dim=1), first.diff(dim=1))
    return gradient_x, gradient_y


def fuse_gradients(
    values: Float[Tensor, "channel height width"],
    gradient_x: Float[Tensor, "channel height width-1"],
    gradient_y: Float[Tensor, "channel height-1 width"],
    *,
    weights: tuple[float, ...],
) -> Float[Tensor, "channel height width"]:
    """Return the image nearest to `values` whose gradients are nearest to those given; g of each channel in `weights`.

    The cosine transform is a product with its matrix, in double precision, which no setting of the host turns down.
    """
    squares = torch.tensor(weights, dtype=torch.float64, device=values.device).square().view(-1, 1, 1)
    across = F.pad(gradient_x, (1, 1)).diff(dim=2)
    down = F.pad(gradient_y, (0, 0, 1, 1)).diff(dim=1)
    rows, columns = (_cosines(side, values.device) for side in values.shape[1:])
    waves = rows @ (values - squares * (across + down)) @ columns.T
    waves = waves / (1 + squares * (_eigenvalues(rows)[:, None] + _eigenvalues(columns)))
    return (rows.T @ waves @ columns).to(values.dtype)


def _cosines(count: int, device: torch.device) -> Float[Tensor, "count count"]:
    """Return the orthonormal DCT-II as a matrix, one wave a row."""
    number = torch.arange(count, dtype=torch.float64, device=device)
    waves: Tensor = torch.cos(torch.pi / count * number[:, None] * (number + 0.5)) * (2 / count) ** 0.5
    waves[0] = (1 / count) ** 0.5
    return waves


def _eigenvalues(cosines: Float[Tensor, "count count"]) -> Float[Tensor, " count"]:
    """Eigenvalues of minus the Laplacian with free borders along one side."""
    count = len(cosines)
    number = torch.arange(count, dtype=torch.float64, device=cosines.device)
    eigenvalues: Tensor = 2 - 2 * torch.cos(torch.pi / count * number)
    return eigenvalues


def _mix(matrix: np.ndarray, image: Image) -> Image:
    """Multiply every colour by a matrix; in plain sums, since the host may have products done in half precision."""
    weights = torch.from_numpy(matrix).to(image)
    return (weights[..., None, None] * image).sum(dim=1)


def _with_statistics(image: Image, mean: float | Tensor, deviation: float | Tensor) -> Image:
    """Move and stretch each channel to a mean and a standard deviation."""
    centred = image - image.mean(dim=(1, 2), keepdim=True)
    own = _deviation(centred)
    flat = own < 1e-3  # of 255 levels: rounding, not contrast
    return centred * torch.where(flat, 0, deviation / own.where(~flat, 1)) + mean


def _deviation(image: Image) -> Float[Tensor, "channel 1 1"]:
    return image.std(dim=(1, 2), keepdim=True, correction=0)
