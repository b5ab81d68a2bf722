"""Lab colours and the contrast-preserving blend of two candidates."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

__all__ = ["KNEE", "TO_RGB", "TO_XYZ", "blend", "lab_to_rgb", "rgb_to_lab"]

Image = Float[np.ndarray, "height width 3"]

# sRGB primaries and white D65 (IEC 61966-2-1); each row is scaled to a sum of 1, so that white has X = Y = Z = 1.
_PRIMARIES = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
TO_XYZ = _PRIMARIES / _PRIMARIES.sum(axis=1, keepdims=True)
TO_RGB = np.linalg.inv(TO_XYZ)
KNEE = 6 / 29  # where CIE's cube root turns into a line


def rgb_to_lab(image: Image) -> Image:
    """Convert sRGB in 0..255 to Lab in 8-bit units: L scaled to 0..255, a and b moved by 128.

    Source: CIE 1976. In float and invertible (to about 1e-3 of a level), so nothing is lost on the way.
    """
    encoded = np.clip(image, 0, 255) / np.float32(255)
    linear = np.where(encoded > 0.04045, ((encoded + 0.055) / 1.055) ** 2.4, encoded / 12.92)
    xyz = linear @ TO_XYZ.T.astype(linear.dtype)
    root = np.where(xyz > KNEE**3, np.cbrt(xyz), xyz / (3 * KNEE**2) + 4 / 29)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack(((116 * y - 16) * 2.55, 500 * (x - y) + 128, 200 * (y - z) + 128), axis=-1)


def lab_to_rgb(lab: Image) -> Image:
    """Invert `rgb_to_lab`; colours outside sRGB are cut to 0..255."""
    y = (lab[..., 0] / 2.55 + 16) / 116
    root = np.stack((y + (lab[..., 1] - 128) / 500, y, y - (lab[..., 2] - 128) / 200), axis=-1)
    xyz = np.where(root > KNEE, root**3, (root - 4 / 29) * (3 * KNEE**2))
    linear = np.clip(xyz @ TO_RGB.T.astype(xyz.dtype), 0, 1)
    encoded = np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, linear * 12.92)
    rgb: Image = encoded * 255
    return rgb


def blend(first: Image, last: Image, chosen: Image, *, weight: float | Float[np.ndarray, "height width"]) -> Image:
    """Mix two Lab candidates without the loss of contrast that a plain average has.

    Both candidates are brought to mean 128 and standard deviation 256/36 per channel and mixed with 1 - `weight` and
    `weight`, one number or a map; the mix is given the mean and standard deviation of `chosen`, the min-error image.
    A channel without contrast takes the mean of `chosen`.

    Source: WAVE (ECCV 2024). In float the common mean and deviation cancel; they are kept as published.
    """
    share = np.asarray(weight, first.dtype)[..., None]
    mix = (1 - share) * _with_statistics(first, 128.0, 256 / 36) + share * _with_statistics(last, 128.0, 256 / 36)
    return _with_statistics(mix, chosen.mean(axis=(0, 1)), chosen.std(axis=(0, 1)))


def _with_statistics(image: Image, mean: float | np.ndarray, deviation: float | np.ndarray) -> Image:
    """Move and stretch each channel to a mean and a standard deviation."""
    centred = image - image.mean(axis=(0, 1))
    own = centred.std(axis=(0, 1))
    flat = own < 1e-3  # of 255 levels: rounding, not contrast
    scaled: Image = centred * np.where(flat, 0, deviation / np.where(flat, 1, own)) + mean
    return scaled.astype(image.dtype)
