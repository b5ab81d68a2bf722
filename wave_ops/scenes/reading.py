"""Classification of a drawn frame's object and background; at least 99 % of unedited frames are classified correctly.

Convention:
    Frames are uint8 RGB (height, width, 3), masks bool (height, width).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float32, Float64, Int, Shaped, UInt8

from wave_ops.errors import WaveOpsError
from wave_ops.scenes.rendering import BACKGROUND_SHADES, OBJECT_SHADES, shade
from wave_ops.scenes.vocabulary import COLOURS, Colour, Shape, Texture

__all__ = ["Attributes", "find_object", "name_colours", "read_attributes", "read_shape", "read_texture"]

Frame: TypeAlias = UInt8[np.ndarray, "height width 3"]
Mask: TypeAlias = Bool[np.ndarray, "height width"]

_WEIGHT: Final = np.array([0.5, 1, 1], np.float32)
"""Weights of L, a and b. Light and dark shades have one name, so lightness counts less than hue."""

_PRESENT_FRACTION: Final = 0.04
_OBJECT_FRACTION: Final = 0.01
_COVERED_FRACTION: Final = 0.6
"""Fraction of an object's mask that its colour must cover. Of unedited objects it covers more than 80 %."""
_BORDER: Final = 0.08
_HOLE_FRACTION: Final = 0.08
_ROUND: Final = 0.045
_PLAIN_STD: Final = 2.5
_ONE_DIRECTION: Final = 0.5
_DOTTED_FRACTION: Final = 0.385
_RAYS: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """Attributes of a frame's object and background."""

    colour: Colour | None
    """None if no object was found, or no colour but the background's covers 60 % of the mask."""
    shape: Shape | None
    """None if no object was found."""
    texture: Texture | None
    """The object's; None if no object was found."""
    background_colour: Colour
    background_texture: Texture


def read_attributes(frame: Frame, mask: Mask | None = None) -> Attributes:
    """Classify colour, shape and texture of an object, and colour and texture of the background.

    Args:
        frame: a drawn frame, edited or not.
        mask: region in which the object is searched: its colour is the most frequent one there, except for the
            background's, and is reached only if it covers 60 % of the mask. Shape and texture are those of the region
            with this colour in the whole frame, so for these the mask of the source also fits an object with another
            shape. Without a mask the object is what differs from the frame's border.

    Raises:
        WaveOpsError: if the frame is not uint8 RGB, or the mask has another size or is empty.
    """
    _check(frame, mask)
    distances = _distances(frame)
    names = distances.argmin(axis=-1)
    outside = _border(names.shape) if mask is None or _grown(mask).all() else ~_grown(mask)
    ground = _most_frequent(names[outside])
    searched = np.ones_like(outside) if mask is None else mask
    where = searched & (names != ground)
    colour = _most_frequent(names[where]) if where.sum() > _OBJECT_FRACTION * searched.sum() else ground
    found = np.zeros(names.shape, np.bool_)
    if colour != ground:
        found = _find_object(distances, colour=COLOURS[colour], background=COLOURS[ground], near=mask)
    reached = found.any() and (mask is None or (names[mask] == colour).mean() >= _COVERED_FRACTION)
    return Attributes(
        colour=COLOURS[colour] if reached else None,
        shape=read_shape(found) if found.any() else None,
        texture=read_texture(frame, found) if found.any() else None,
        background_colour=COLOURS[ground],
        background_texture=read_texture(frame, ~_grown(found) & (names == ground)),
    )


def name_colours(frame: Frame) -> Int[np.ndarray, "height width"]:
    """Return the index into `COLOURS` of the colour nearest to each pixel, by hue more than by lightness."""
    names: npt.NDArray[np.intp] = _distances(frame).argmin(axis=-1)
    return names


def find_object(frame: Frame, *, colour: Colour, background: Colour, near: Mask | None = None) -> Mask:
    """Return the largest connected region of a colour, or the one that covers most of `near`; holes stay open."""
    return _find_object(_distances(frame), colour=colour, background=background, near=near)


def _find_object(
    distances: Float32[np.ndarray, "height width colour"], *, colour: Colour, background: Colour, near: Mask | None
) -> Mask:
    names = distances.argmin(axis=-1)
    fractions = np.bincount(names.ravel(), minlength=len(COLOURS)) / names.size
    present = [i for i, name in enumerate(COLOURS) if fractions[i] > _PRESENT_FRACTION or name in (colour, background)]
    # Only colours that the frame contains compete: a soft edge between two of them is often nearest to a third
    nearest = np.array(present)[distances[..., present].argmin(axis=-1)]
    count, regions = cv2.connectedComponents((nearest == COLOURS.index(colour)).astype(np.uint8), connectivity=4)
    weights = np.bincount(regions[near] if near is not None else regions.ravel(), minlength=count)
    weights[0] = 0
    best: Mask = (regions == weights.argmax()) & bool(weights.any())
    return best


def read_shape(region: Mask) -> Shape:
    """Classify the shape of a region: a ring by its hole, others by how the outline's radius varies with the angle."""
    outlines, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = cv2.drawContours(np.zeros(region.shape, np.uint8), outlines, -1, 1, cv2.FILLED).astype(bool)
    if 1 - region.sum() / filled.sum() > _HOLE_FRACTION:
        return "ring"
    strengths = _outline_harmonics(filled)
    if strengths.max() < _ROUND:
        return "circle"
    corners: tuple[Shape, ...] = ("triangle", "square", "star")
    return corners[int(strengths.argmax())]


def read_texture(frame: Frame, mask: Mask) -> Texture:
    """Classify the texture inside a mask, by contrast, directions of edges and the fraction of the rarer shade."""
    lightness = cv2.GaussianBlur(_lab(frame)[..., 0], (0, 0), min(mask.shape) / 128)
    sure = _shrunk(mask)
    if sure.sum() < 16 or lightness[sure].std() < _PLAIN_STD:
        return "plain"
    dx, dy = (cv2.Sobel(lightness, cv2.CV_32F, *order) for order in ((1, 0), (0, 1)))
    gradient = (dx + 1j * dy)[sure]
    if abs((gradient**2).sum()) / (np.abs(gradient) ** 2).sum() > _ONE_DIRECTION:
        return "striped"
    middle = lightness[sure].min() / 2 + lightness[sure].max() / 2
    fraction = float((lightness[sure] > middle).mean())
    return "dotted" if min(fraction, 1 - fraction) < _DOTTED_FRACTION else "checked"


def _check(frame: npt.NDArray[Any], mask: npt.NDArray[Any] | None) -> None:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise WaveOpsError(f"expected a uint8 frame (height, width, 3), got {frame.dtype} {frame.shape}")
    if mask is not None and (mask.shape != frame.shape[:2] or not mask.any()):
        raise WaveOpsError(
            f"expected a mask of size {frame.shape[:2]} that is not empty, "
            f"got {mask.shape} with {int(mask.sum())} pixels"
        )


def _lab(pixels: Shaped[np.ndarray, "rows columns 3"]) -> Float32[np.ndarray, "rows columns 3"]:
    converted: npt.NDArray[np.float32] = cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    return converted


def _distances(frame: Frame) -> Float32[np.ndarray, "height width colour"]:
    """Return the squared distance of each pixel to the nearest shade of each colour, in weighted Lab."""
    pixels, known = _lab(frame).reshape(-1, 3) * _WEIGHT, _known_shades()
    # |a - b|^2 multiplied out: one matrix product instead of an array of all differences
    squared = (known**2).sum(axis=1) - 2 * (pixels @ known.T) + (pixels**2).sum(axis=1, keepdims=True)
    nearest: npt.NDArray[np.float32] = squared.reshape(*frame.shape[:2], len(COLOURS), -1).min(axis=-1)
    return nearest


@cache
def _known_shades() -> Float32[np.ndarray, "shade 3"]:
    """Return the weighted Lab of five shades of each colour, colour by colour."""
    factors = np.linspace(min(BACKGROUND_SHADES), max(OBJECT_SHADES), 5)
    shades = np.array([[shade(name, factor) for factor in factors] for name in COLOURS], np.float32)
    known: npt.NDArray[np.float32] = (_lab(shades) * _WEIGHT).reshape(-1, 3)
    return known


def _most_frequent(names: npt.NDArray[np.intp]) -> int:
    return int(np.bincount(names.ravel(), minlength=len(COLOURS)).argmax())


def _border(shape: tuple[int, ...]) -> Mask:
    width = max(1, round(_BORDER * min(shape)))
    border = np.ones(shape, np.bool_)
    border[width:-width, width:-width] = False
    return border


def _kernel(shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    side = 2 * max(1, min(shape) // 64) + 1
    return np.ones((side, side), np.uint8)


def _grown(mask: Mask) -> Mask:
    grown: Mask = cv2.dilate(mask.astype(np.uint8), _kernel(mask.shape)).astype(bool)
    return grown


def _shrunk(mask: Mask) -> Mask:
    shrunk: Mask = cv2.erode(mask.astype(np.uint8), _kernel(mask.shape)).astype(bool)
    return shrunk


def _outline_harmonics(filled: Mask) -> Float64[np.ndarray, "3"]:
    """Return the 3rd, 4th and 5th Fourier amplitude of the outline's radius over the angle, relative to its mean."""
    rows, columns = np.nonzero(filled)
    y, x = rows.mean(), columns.mean()
    steps = np.arange(0, np.hypot(*filled.shape), 0.25)
    angles = np.arange(_RAYS) * 2 * np.pi / _RAYS
    across = np.rint(x + steps * np.cos(angles)[:, None]).astype(int)
    down = np.rint(y + steps * np.sin(angles)[:, None]).astype(int)
    inside = (across >= 0) & (across < filled.shape[1]) & (down >= 0) & (down < filled.shape[0])
    covered = inside & filled[np.where(inside, down, 0), np.where(inside, across, 0)]
    spectrum: npt.NDArray[np.float64] = np.abs(np.fft.rfft(covered.sum(axis=1)))
    return spectrum[3:6] / max(float(spectrum[0]), 1.0)
