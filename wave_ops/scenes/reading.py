"""Reading what a frame shows: the automatic check of edits, at 99 % or better on true frames."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from wave_ops.errors import WaveOpsError
from wave_ops.scenes.rendering import BACKGROUND_SHADES, OBJECT_SHADES, shade
from wave_ops.scenes.vocabulary import COLOURS, Colour, Shape, Texture

__all__ = ["Attributes", "find_object", "name_colours", "read_attributes", "read_shape", "read_texture"]

Mask = npt.NDArray[np.bool_]

_WEIGHT: Final = np.array([0.5, 1, 1], np.float32)
"""Of L, a and b. Light and dark shades share a name, so lightness counts less than hue."""

_PRESENT_SHARE: Final = 0.04
_OBJECT_SHARE: Final = 0.01
_BORDER: Final = 0.08
_HOLE_SHARE: Final = 0.08
_ROUND: Final = 0.045
_PLAIN_SPREAD: Final = 2.5
_ONE_DIRECTION: Final = 0.5
_DOTTED_SHARE: Final = 0.385
_RAYS: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """What was read in a frame; `shape` is None where no object was found."""

    colour: Colour
    shape: Shape | None
    background_colour: Colour
    background_texture: Texture


def read_attributes(frame: npt.NDArray[np.uint8], mask: Mask | None = None) -> Attributes:
    """The colour and shape of an object, and the colour and texture of the background.

    Args:
        frame: (height, width, 3) RGB.
        mask: (height, width) where the object is looked for: its colour is the commonest one there, the background's
            aside. Its shape is read from the frame, so a reshaped object is seen as what it has become. Without a mask
            the object is what differs from the frame's border. Where there is no object its colour is the background's.

    Raises:
        WaveOpsError: if the frame is not uint8 RGB, or the mask has another size or is empty.
    """
    _check(frame, mask)
    distances = _distances(frame)
    names = distances.argmin(axis=-1)
    outside = _border(names.shape) if mask is None or _grown(mask).all() else ~_grown(mask)
    ground = _commonest(names[outside])
    searched = np.ones_like(outside) if mask is None else mask
    where = searched & (names != ground)
    colour = _commonest(names[where]) if where.sum() > _OBJECT_SHARE * searched.sum() else ground
    found = np.zeros(names.shape, np.bool_)
    if colour != ground:
        found = _find_object(distances, colour=COLOURS[colour], background=COLOURS[ground], near=mask)
    return Attributes(
        colour=COLOURS[colour],
        shape=read_shape(found) if found.any() else None,
        background_colour=COLOURS[ground],
        background_texture=read_texture(frame, ~_grown(found) & (names == ground)),
    )


def name_colours(frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.intp]:
    """The index into `COLOURS` of the named colour nearest to each pixel, by hue more than by lightness."""
    names: npt.NDArray[np.intp] = _distances(frame).argmin(axis=-1)
    return names


def find_object(frame: npt.NDArray[np.uint8], *, colour: Colour, background: Colour, near: Mask | None = None) -> Mask:
    """The connected region of a colour that is largest, or that covers most of `near`, with its holes left open."""
    return _find_object(_distances(frame), colour=colour, background=background, near=near)


def _find_object(distances: npt.NDArray[np.float32], *, colour: Colour, background: Colour, near: Mask | None) -> Mask:
    names = distances.argmin(axis=-1)
    shares = np.bincount(names.ravel(), minlength=len(COLOURS)) / names.size
    present = [i for i, name in enumerate(COLOURS) if shares[i] > _PRESENT_SHARE or name in (colour, background)]
    # Only colours that the frame holds compete: a soft edge between two of them is often nearest to a third.
    nearest = np.array(present)[distances[..., present].argmin(axis=-1)]
    count, regions = cv2.connectedComponents((nearest == COLOURS.index(colour)).astype(np.uint8), connectivity=4)
    weights = np.bincount(regions[near] if near is not None else regions.ravel(), minlength=count)
    weights[0] = 0
    best: Mask = (regions == weights.argmax()) & bool(weights.any())
    return best


def read_shape(region: Mask) -> Shape:
    """The shape of a region: a ring by its hole, the others by how its outline's distance varies around the centre."""
    outlines, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = cv2.drawContours(np.zeros(region.shape, np.uint8), outlines, -1, 1, cv2.FILLED).astype(bool)
    if 1 - region.sum() / filled.sum() > _HOLE_SHARE:
        return "ring"
    strengths = _outline_harmonics(filled)
    if strengths.max() < _ROUND:
        return "circle"
    corners: tuple[Shape, ...] = ("triangle", "square", "star")
    return corners[int(strengths.argmax())]


def read_texture(frame: npt.NDArray[np.uint8], mask: Mask) -> Texture:
    """The texture of the surface that a mask covers: by contrast, directions and the share of the rarer shade."""
    lightness = cv2.GaussianBlur(_lab(frame)[..., 0], (0, 0), min(mask.shape) / 128)
    sure = _shrunk(mask)
    if sure.sum() < 16 or lightness[sure].std() < _PLAIN_SPREAD:
        return "plain"
    dx, dy = (cv2.Sobel(lightness, cv2.CV_32F, *order) for order in ((1, 0), (0, 1)))
    gradient = (dx + 1j * dy)[sure]
    if abs((gradient**2).sum()) / (np.abs(gradient) ** 2).sum() > _ONE_DIRECTION:
        return "striped"
    middle = lightness[sure].min() / 2 + lightness[sure].max() / 2
    share = float((lightness[sure] > middle).mean())
    return "dotted" if min(share, 1 - share) < _DOTTED_SHARE else "checked"


def _check(frame: npt.NDArray[Any], mask: Mask | None) -> None:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise WaveOpsError(f"expected a uint8 frame (height, width, 3), got {frame.dtype} {frame.shape}")
    if mask is not None and (mask.shape != frame.shape[:2] or not mask.any()):
        raise WaveOpsError(
            f"expected a mask of size {frame.shape[:2]} that holds a pixel, got {mask.shape} with {int(mask.sum())}"
        )


def _lab(pixels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    converted: npt.NDArray[np.float32] = cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    return converted


def _distances(frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """(height, width, colour) squared distance to the nearest shade of each named colour."""
    pixels, known = _lab(frame).reshape(-1, 3) * _WEIGHT, _known_shades()
    # |a - b|^2 multiplied out: one matrix product instead of an array of all differences
    squared = (known**2).sum(axis=1) - 2 * (pixels @ known.T) + (pixels**2).sum(axis=1, keepdims=True)
    nearest: npt.NDArray[np.float32] = squared.reshape(*frame.shape[:2], len(COLOURS), -1).min(axis=-1)
    return nearest


@cache
def _known_shades() -> npt.NDArray[np.float32]:
    """(colour shade, 3) weighted Lab of five shades of each named colour."""
    factors = np.linspace(min(BACKGROUND_SHADES), max(OBJECT_SHADES), 5)
    shades = np.array([[shade(name, factor) for factor in factors] for name in COLOURS], np.float32)
    known: npt.NDArray[np.float32] = (_lab(shades) * _WEIGHT).reshape(-1, 3)
    return known


def _commonest(names: npt.NDArray[np.intp]) -> int:
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


def _outline_harmonics(filled: Mask) -> npt.NDArray[np.float64]:
    """How strongly the distance from the centre to the outline varies 3, 4 and 5 times around, relative to its mean."""
    rows, columns = np.nonzero(filled)
    y, x = rows.mean(), columns.mean()
    steps = np.arange(0, np.hypot(*filled.shape), 0.25)
    angles = np.arange(_RAYS) * 2 * np.pi / _RAYS
    across = np.rint(x + steps * np.cos(angles)[:, None]).astype(int)
    down = np.rint(y + steps * np.sin(angles)[:, None]).astype(int)
    seen = (across >= 0) & (across < filled.shape[1]) & (down >= 0) & (down < filled.shape[0])
    covered = seen & filled[np.where(seen, down, 0), np.where(seen, across, 0)]
    spectrum: npt.NDArray[np.float64] = np.abs(np.fft.rfft(covered.sum(axis=1)))
    return spectrum[3:6] / max(float(spectrum[0]), 1.0)
