"""Gradient-domain fusion, solved exactly by a cosine transform."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.fft import dctn, idctn

from wave_ops.errors import WaveOpsError

__all__ = ["fuse_gradients", "selected_gradients"]


def fuse_gradients(
    values: Float[np.ndarray, "height width channel"],
    gradient_x: Float[np.ndarray, "height width-1 channel"],
    gradient_y: Float[np.ndarray, "height-1 width channel"],
    *,
    weights: tuple[float, ...],
) -> Float[np.ndarray, "height width channel"]:
    """Return the image nearest to `values` whose gradients are nearest to those given.

    Minimises |x - values|^2 + g^2 |grad x - gradient|^2 in each channel, with forward differences and free borders.
    The normal equations (1 - g^2 Laplacian) x = values - g^2 div gradient are diagonal under the DCT-II, whose k-th
    basis function is an eigenvector of the free-border Laplacian with eigenvalue 2 cos(pi k / n) - 2.

    Source: WAVE (ECCV 2024), the last step of propagation. Deviates in the solver, there an iterative least squares.

    Args:
        values: the image to stay near to, any unit.
        gradient_x: wanted x[:, 1:] - x[:, :-1], same unit.
        gradient_y: wanted x[1:] - x[:-1].
        weights: g of each channel, 0 or more.

    Raises:
        WaveOpsError: the shapes do not belong together.
    """
    height, width, channel = values.shape
    wanted = (height, width - 1, channel), (height - 1, width, channel)
    if (gradient_x.shape, gradient_y.shape) != wanted or len(weights) != channel:
        raise WaveOpsError(
            f"fusion of a {values.shape} image needs gradients of shapes {wanted[0]} and {wanted[1]} and {channel} "
            f"weights, got {gradient_x.shape}, {gradient_y.shape} and {len(weights)}"
        )
    squares = np.square(np.asarray(weights, values.dtype))
    right = values + squares * _transposed_gradient(gradient_x, gradient_y)
    waves = dctn(right, axes=(0, 1), norm="ortho")
    waves /= 1 + squares * _eigenvalues(height, width).astype(values.dtype)[..., None]
    fused: Float[np.ndarray, "height width channel"] = idctn(waves, axes=(0, 1), norm="ortho", overwrite_x=True)
    return fused


def _eigenvalues(height: int, width: int) -> Float[np.ndarray, "height width"]:
    """Eigenvalues of minus the Laplacian with free borders, in the order of the DCT-II."""
    rows = 2 - 2 * np.cos(np.pi * np.arange(height) / height)
    columns = 2 - 2 * np.cos(np.pi * np.arange(width) / width)
    eigenvalues: Float[np.ndarray, "height width"] = rows[:, None] + columns
    return eigenvalues


def _transposed_gradient(
    gradient_x: Float[np.ndarray, "height less_width channel"],
    gradient_y: Float[np.ndarray, "less_height width channel"],
) -> Float[np.ndarray, "height width channel"]:
    """Minus the divergence: what each pixel is asked to gain or lose."""
    zero = gradient_x.dtype.type(0)  # a plain 0 would widen single precision to double
    across = np.diff(gradient_x, axis=1, prepend=zero, append=zero)
    return -across - np.diff(gradient_y, axis=0, prepend=zero, append=zero)


def selected_gradients(
    first: Float[np.ndarray, "height width channel"],
    last: Float[np.ndarray, "height width channel"],
    from_last: np.ndarray,
) -> tuple[Float[np.ndarray, "height width-1 channel"], Float[np.ndarray, "height-1 width channel"]]:
    """Return the forward differences, each taken inside the candidate selected at its left or upper pixel.

    Within one candidate, so the step between two candidates never becomes an edge.
    """
    chosen = from_last[..., None]
    gradient_x = np.where(chosen[:, :-1], np.diff(last, axis=1), np.diff(first, axis=1))
    gradient_y = np.where(chosen[:-1], np.diff(last, axis=0), np.diff(first, axis=0))
    return gradient_x, gradient_y
