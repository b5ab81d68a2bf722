"""Compositing of two candidates into one frame: selection, Lab colours, blend and gradient-domain fusion.

Convention:
    "First" is the candidate painted from the earlier keyframe, "last" the one from the later keyframe. Images are
    (..., 3, height, width), any number of leading axes: RGB in 0..255, or Lab as scaled by `rgb_to_lab`.
"""

from __future__ import annotations

from math import pi
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from wave_ops.errors import WaveOpsError
from wave_ops.propagation.settings import Blend, SelectionWeight
from wave_ops.warp import backward_warp

__all__ = [
    "blend",
    "blend_weights",
    "composite",
    "fuse_gradients",
    "lab_to_rgb",
    "rgb_to_lab",
    "select",
    "selected_gradients",
    "selection_weight",
    "warp_selection",
]

Image = Float[Tensor, "*batch 3 height width"]
Map = Float[Tensor, "*batch height width"]
Mask = Bool[Tensor, "*batch height width"]

_INVISIBLE_ERROR: Final = 100.0  # roughly the patch error of one level in every style and colour channel
_BLUR_SIDE: Final = 9
# sRGB primaries and white D65 (IEC 61966-2-1); each row is scaled to a sum of 1, so that white has X = Y = Z = 1.
_PRIMARIES = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
_TO_XYZ: Final = _PRIMARIES / _PRIMARIES.sum(axis=1, keepdims=True)
_TO_RGB: Final = np.linalg.inv(_TO_XYZ)
_KNEE: Final = 6 / 29  # where CIE's cube root becomes linear


def selection_weight(index: int, length: int, *, kind: SelectionWeight = "symmetric") -> float:
    """Return how far frame `index` of an interval leans to its later keyframe, 0 to 1.

    Source: WAVE (ECCV 2024) ran (i - 1)/(K - 1), which gives the earlier keyframe one frame more than the later one.
    Deviates by default: i/K treats both alike, and a clip played backwards has the same result.

    Args:
        index: place in the interval, 1 to `length` - 1.
        length: frames from keyframe to keyframe, K.
        kind: "symmetric" or "published".

    Raises:
        WaveOpsError: the frame is a keyframe or outside the interval.
    """
    if not 0 < index < length:
        raise WaveOpsError(f"only the frames 1 to {length - 1} between the keyframes are selected, got {index}")
    return index / length if kind == "symmetric" else (index - 1) / (length - 1)


def select(first_error: Map, last_error: Map, *, weight: float, switched: Mask | None = None) -> Mask:
    """Return True where a pixel is taken from the candidate of the later keyframe.

    These are the pixels where `weight` times the first error is at least 1 - `weight` times the last error, and the
    pixels that have switched before.

    Source: WAVE (ECCV 2024).

    Args:
        first_error: patch error of the candidate from the earlier keyframe, at this frame.
        last_error: patch error of the candidate from the later keyframe, at this frame.
        weight: see `selection_weight`.
        switched: the selection of the frame before, warped to this frame.
    """
    chosen = weight * first_error >= (1 - weight) * last_error
    return chosen if switched is None else chosen | switched


def warp_selection(
    chosen: Bool[Tensor, "batch height width"],
    flow_to_prev: Float[Tensor, "batch 2 height width"],
    disoccluded: Bool[Tensor, "batch height width"] | None,
) -> Bool[Tensor, "batch height width"]:
    """Return the selection of the frame before, warped to this frame without interpolation.

    Pixels without a match in the frame before (`disoccluded`) are not selected; None selects wherever the flow leads.
    """
    warped = backward_warp(chosen[:, None].float(), flow_to_prev, mode="nearest")[:, 0] > 0
    return warped if disoccluded is None else warped & ~disoccluded


def blend_weights(first_error: Map, last_error: Map, *, weight: float) -> Map:
    """Return the weight of the later keyframe's candidate at each pixel of the blend, 0 to 1.

    The soft form of `select`: weight E0 / (weight E0 + (1 - weight) EK), which is `weight` where both fit equally well,
    and approaches 0 or 1 where only one keyframe shows the pixel's surroundings. Errors are averaged over 9 x 9 pixels
    first, because the weights should follow regions, and raised by an error too small to see.

    Deviates from WAVE (ECCV 2024), where the weight is `weight` everywhere and half of a wrong candidate shows through.
    """
    margin = [_BLUR_SIDE // 2] * 4
    errors = F.pad(torch.stack((first_error, last_error)).flatten(0, -3)[:, None], margin, mode="replicate")
    means = F.avg_pool2d(errors, _BLUR_SIDE, stride=1).view(2, *first_error.shape)
    first, last = means + _INVISIBLE_ERROR
    weights: Tensor = weight * first / (weight * first + (1 - weight) * last)
    return weights


def composite(
    first: Image,
    last: Image,
    from_last: Mask,
    *,
    weight: float | Map,
    kind: Blend = "mix",
    gradient_weights: tuple[float, ...] | None = None,
) -> Image:
    """Blend two candidates in Lab, and optionally fuse the blend with the gradients of the selected candidate.

    Args:
        first: RGB candidate from the earlier keyframe.
        last: RGB candidate from the later keyframe.
        from_last: see `select`.
        weight: of the later candidate in the blend, one number or a map (see `blend_weights`).
        kind: "mix" for the weighted mean, "contrast" for `blend`.
        gradient_weights: see `fuse_gradients`; for L, a and b. None for no fusion.

    Returns:
        RGB in 0..255, not rounded.
    """
    lab_first, lab_last = rgb_to_lab(torch.stack((first, last)))
    if kind == "mix":
        mix = _mixed(lab_first, lab_last, weight)
    else:
        least_error = torch.where(from_last.unsqueeze(-3), lab_last, lab_first)
        mix = blend(lab_first, lab_last, least_error, weight=weight)
    if gradient_weights is not None:
        gradients = selected_gradients(lab_first, lab_last, from_last)
        mix = fuse_gradients(mix, *gradients, weights=gradient_weights)
    return lab_to_rgb(mix)


def rgb_to_lab(image: Image) -> Image:
    """Convert sRGB in 0..255 to Lab in 8-bit units: L scaled to 0..255, a and b shifted by 128.

    Source: CIE 1976. In float, and invertible to about 1e-3 of a level.
    """
    encoded = image.clamp(0, 255) / 255
    linear = torch.where(encoded > 0.04045, ((encoded + 0.055) / 1.055) ** 2.4, encoded / 12.92)
    xyz = _mix_channels(_TO_XYZ, linear)
    root = torch.where(xyz > _KNEE**3, xyz.clamp(min=0) ** (1 / 3), xyz / (3 * _KNEE**2) + 4 / 29)
    x, y, z = root.unbind(-3)
    return torch.stack(((116 * y - 16) * 2.55, 500 * (x - y) + 128, 200 * (y - z) + 128), dim=-3)


def lab_to_rgb(lab: Image) -> Image:
    """Invert `rgb_to_lab`; colours outside sRGB are clipped to 0..255."""
    lightness, a, b = lab.unbind(-3)
    y = (lightness / 2.55 + 16) / 116
    root = torch.stack((y + (a - 128) / 500, y, y - (b - 128) / 200), dim=-3)
    xyz = torch.where(root > _KNEE, root**3, (root - 4 / 29) * (3 * _KNEE**2))
    linear = _mix_channels(_TO_RGB, xyz).clamp_(0, 1)
    return torch.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, linear * 12.92) * 255


def _mix_channels(matrix: np.ndarray, image: Image) -> Image:
    """Multiply the colour of each pixel by a matrix.

    As plain sums: a matrix product in single precision is rounded to TF32 on GPUs where the process allows it.
    """
    weights = torch.from_numpy(matrix).to(image)
    red, green, blue = (image.narrow(-3, channel, 1) for channel in range(3))
    return weights[:, :1, None] * red + weights[:, 1:2, None] * green + weights[:, 2:, None] * blue


def blend(first: Image, last: Image, chosen: Image, *, weight: float | Map) -> Image:
    """Mix two Lab candidates without the loss of contrast of a plain average.

    Both candidates are shifted and scaled to mean 128 and standard deviation 256/36 per channel and mixed with
    1 - `weight` and `weight`; the mix is shifted and scaled to the mean and standard deviation of `chosen`.
    A channel without contrast takes the mean of `chosen`.

    Source: WAVE (ECCV 2024). In float the common mean and deviation cancel; they are kept as published.

    Args:
        first: Lab candidate from the earlier keyframe.
        last: Lab candidate from the later keyframe.
        chosen: the image selected from both by the smaller error.
        weight: of `last`, one number or a map.
    """
    mix = _mixed(_with_statistics(first, 128.0, 256 / 36), _with_statistics(last, 128.0, 256 / 36), weight)
    return _with_statistics(mix, chosen.mean(dim=(-2, -1), keepdim=True), _deviation(chosen))


def _mixed(first: Image, last: Image, weight: float | Map) -> Image:
    if isinstance(weight, Tensor):
        weight = weight.unsqueeze(-3)
    return (1 - weight) * first + weight * last


def _with_statistics(image: Image, mean: float | Tensor, deviation: float | Tensor) -> Image:
    """Shift and scale each channel to a mean and a standard deviation."""
    centred = image - image.mean(dim=(-2, -1), keepdim=True)
    own = _deviation(centred)
    flat = own < 1e-3  # of 255 levels: rounding, not contrast
    return centred * torch.where(flat, 0, deviation / own.where(~flat, 1)) + mean


def _deviation(image: Image) -> Float[Tensor, "*batch 3 1 1"]:
    return image.std(dim=(-2, -1), keepdim=True, correction=0)


def selected_gradients(
    first: Float[Tensor, "*batch channel height width"],
    last: Float[Tensor, "*batch channel height width"],
    from_last: Mask,
) -> tuple[Float[Tensor, "*batch channel height width-1"], Float[Tensor, "*batch channel height-1 width"]]:
    """Return the forward differences along x and y, each inside the candidate selected at its left or upper pixel.

    Both pixels of a difference come from one candidate, so the step between two candidates never becomes an edge.
    """
    chosen = from_last.unsqueeze(-3)
    gradient_x = torch.where(chosen[..., :-1], last.diff(dim=-1), first.diff(dim=-1))
    gradient_y = torch.where(chosen[..., :-1, :], last.diff(dim=-2), first.diff(dim=-2))
    return gradient_x, gradient_y


def fuse_gradients(
    values: Float[Tensor, "*batch channel height width"],
    gradient_x: Float[Tensor, "*batch channel height less_width"],
    gradient_y: Float[Tensor, "*batch channel less_height width"],
    *,
    weights: tuple[float, ...],
) -> Float[Tensor, "*batch channel height width"]:
    """Return the image nearest to `values` with gradients nearest to those given.

    Minimises |x - values|^2 + g^2 |grad x - gradient|^2 in each channel, with forward differences and free borders.
    The normal equations (1 - g^2 Laplacian) x = values - g^2 div gradient are diagonal under the DCT-II: its k-th
    basis function is an eigenvector of the free-border Laplacian with eigenvalue 2 cos(pi k / n) - 2.

    Source: Bhat et al., "GradientShop" (2010), as in Rerender A Video (2023); in WAVE's code an option that its authors
    did not switch on. The solver here is direct.

    Args:
        values: the image to stay near to, any unit.
        gradient_x: wanted x[..., 1:] - x[..., :-1], same unit.
        gradient_y: wanted x[..., 1:, :] - x[..., :-1, :].
        weights: g of each channel, 0 or more.

    Raises:
        WaveOpsError: the shapes do not belong together.
    """
    *batch, channel, height, width = values.shape
    wanted = (*batch, channel, height, width - 1), (*batch, channel, height - 1, width)
    if (tuple(gradient_x.shape), tuple(gradient_y.shape)) != wanted or len(weights) != channel:
        raise WaveOpsError(
            f"fusion of a {tuple(values.shape)} image needs gradients of shapes {wanted[0]} and {wanted[1]} and "
            f"{channel} weights, got {tuple(gradient_x.shape)}, {tuple(gradient_y.shape)} and {len(weights)}"
        )
    squares = values.new_tensor(weights).square().view(-1, 1, 1)
    divergence = F.pad(gradient_x, (1, 1)).diff(dim=-1) + F.pad(gradient_y, (0, 0, 1, 1)).diff(dim=-2)
    waves = _cosine_transform(_cosine_transform(values - squares * divergence).mT)  # width before height
    waves /= 1 + squares * (_eigenvalues(width, values)[:, None] + _eigenvalues(height, values))
    return _inverse_cosine_transform(_inverse_cosine_transform(waves).mT)


def _eigenvalues(count: int, like: Tensor) -> Float[Tensor, " {count}"]:
    """Return the eigenvalues of minus the free-border Laplacian along one axis, in the order of the DCT-II."""
    number = torch.arange(count, dtype=torch.float64, device=like.device)
    return (2 - 2 * torch.cos(pi / count * number)).to(like.dtype)


def _cosine_transform(x: Float[Tensor, "*batch count"]) -> Float[Tensor, "*batch count"]:
    """Return the orthonormal DCT-II along the last axis.

    Source: Makhoul (1980): one FFT of the even samples followed by the reversed odd samples. torch has no cosine
    transform; a product with its matrix takes ten times as long at 512 pixels and may be rounded to TF32 on a GPU.
    """
    count = x.shape[-1]
    waves = torch.fft.rfft(torch.cat((x[..., ::2], x[..., 1::2].flip(-1)), dim=-1)) * _phases(x, -1, (2 / count) ** 0.5)
    cosines = torch.cat((waves.real, -waves.imag[..., 1 : (count + 1) // 2].flip(-1)), dim=-1)
    cosines[..., 0] *= 0.5**0.5
    return cosines


def _inverse_cosine_transform(cosines: Float[Tensor, "*batch count"]) -> Float[Tensor, "*batch count"]:
    """Invert `_cosine_transform`."""
    count = cosines.shape[-1]
    real = cosines[..., : count // 2 + 1].clone()
    real[..., 0] *= 2**0.5
    imaginary = torch.cat((torch.zeros_like(real[..., :1]), -cosines[..., count - count // 2 :].flip(-1)), dim=-1)
    waves = torch.complex(real, imaginary) * _phases(cosines, 1, (count / 2) ** 0.5)
    samples = torch.fft.irfft(waves, n=count)
    x = torch.empty_like(samples)
    x[..., ::2], x[..., 1::2] = samples[..., : (count + 1) // 2], samples[..., (count + 1) // 2 :].flip(-1)
    return x


def _phases(like: Tensor, sign: int, scale: float) -> Tensor:
    """Return scale exp(sign i pi k / 2n) for the k of `rfft`: half a sample of shift."""
    count = like.shape[-1]
    angle = torch.arange(count // 2 + 1, dtype=torch.float64, device=like.device) * (sign * pi / (2 * count))
    return torch.polar(torch.full_like(angle, scale), angle).to(torch.promote_types(like.dtype, torch.complex64))
