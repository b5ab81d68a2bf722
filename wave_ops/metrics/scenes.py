"""How right an edit of a drawn scene is: what was asked for has changed, all else has not.

Convention:
    Frames are uint8 RGB (time, height, width, 3), masks bool (time, height, width). A frame in which the mask covers
    under 1 % shows too little of the object: it is left out. Where nothing is left a figure is not a number.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, log10, nan
from typing import Any, Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from wave_ops.errors import WaveOpsError
from wave_ops.metrics.temporal import warp_error
from wave_ops.scenes.reading import find_object, read_attributes
from wave_ops.scenes.rendering import Scene
from wave_ops.scenes.vocabulary import COLOURS, SHAPES, TEXTURES, Colour

__all__ = [
    "attribute_hits",
    "attribute_shares",
    "object_overlap",
    "outside_objects",
    "preservation",
    "true_warp_error",
]

Frames = NDArray[np.uint8]
Masks = NDArray[np.bool_]

_VISIBLE_SHARE: Final = 0.01
_PEAK: Final = 255.0
_VALUES: Final[Mapping[str, tuple[str, ...]]] = {
    "colour": COLOURS,
    "shape": SHAPES,
    "background_colour": COLOURS,
    "background_texture": TEXTURES,
}


def attribute_shares(
    frames: Frames, masks: Masks, wanted: Mapping[str, str], *, readable: Mapping[str, NDArray[np.bool_]] | None = None
) -> dict[str, float]:
    """Return, per attribute, the share of frames in which the checker reads the wanted value.

    Source: ours; the checker is `read_attributes`, right on 99 % of true frames whose object is whole. Range [0, 1].

    Args:
        frames: the edited clip.
        masks: where the object truly is. Its shape is read from the frame, so the mask of the source will do for an
            object that was given another shape.
        wanted: values by the names of `Attributes`; only these are read.
        readable: per attribute, the frames (time) to count: `attribute_hits` of the clip after a perfect edit. An
            object that is cut off by the frame, or half hidden, has no shape that could be read, and no edit should
            be blamed for that; in hard scenes it is 4 frames of 10. By default every frame that shows the object.

    Raises:
        WaveOpsError: an unknown attribute or value, or arrays that do not belong together.
    """
    hits = attribute_hits(frames, masks, wanted)
    counted = dict.fromkeys(wanted, _visible(masks)) if readable is None else readable
    for name in wanted:
        if name not in counted or counted[name].shape != (len(frames),):
            raise WaveOpsError(f"expected the readable frames of {name}, one truth value for each of {len(frames)}")
    return {name: _mean(hits[name][counted[name]]) for name in wanted}


def attribute_hits(frames: Frames, masks: Masks, wanted: Mapping[str, str]) -> dict[str, NDArray[np.bool_]]:
    """Return, per attribute and frame (time), whether the checker reads the wanted value; False without an object.

    Args and errors are those of `attribute_shares`.
    """
    _check_wanted(wanted)
    _check_clip(frames, masks)
    hits = {name: np.zeros(len(frames), np.bool_) for name in wanted}
    for index in np.flatnonzero(_visible(masks)):
        found = read_attributes(frames[index], masks[index])
        for name, value in wanted.items():
            hits[name][index] = getattr(found, name) == value
    return hits


def object_overlap(frames: Frames, masks: Masks, *, colour: str, background: str) -> float:
    """Return how well the object found in the frames covers the true one: intersection over union, mean over frames.

    Source: Jaccard (1912). Range [0, 1]; 1 only where the outlines agree to the pixel: true frames of 64 px reach
    about 0.98, those of 128 px 0.99, since a soft edge belongs to one side or the other.

    Args:
        frames: the clip.
        masks: where the object should be.
        colour: the object's colour; of several regions of it the one that covers most of the mask is the object.
        background: the colour behind it.

    Raises:
        WaveOpsError: an unknown colour, or arrays that do not belong together.
    """
    _check_clip(frames, masks)
    near, ground = _colour(colour), _colour(background)
    shares = []
    for index in np.flatnonzero(_visible(masks)):
        found = find_object(frames[index], colour=near, background=ground, near=masks[index])
        shares.append((found & masks[index]).sum() / (found | masks[index]).sum())
    return _mean(np.array(shares))


def preservation(edited: Frames, source: Frames, outside_masks: Masks) -> float:
    """Return the PSNR in dB over the pixels that an edit should leave alone, of all frames together.

    Source: ours, after the background PSNR of image editing benchmarks (Ju et al., "PnP Inversion", ICLR 2024).
    Range [0, inf], infinite where nothing has changed; not a number where no pixel is to be left alone.

    Args:
        edited: the edited clip.
        source: the source clip.
        outside_masks: True where the edit has no business, as from `outside_objects`.

    Raises:
        WaveOpsError: the arrays do not belong together.
    """
    _check_clip(edited, outside_masks)
    _check_clip(source, outside_masks)
    if not outside_masks.any():
        return nan
    difference = edited[outside_masks].astype(np.float64) - source[outside_masks]
    error = float(np.square(difference).mean())
    return inf if error == 0 else 10 * log10(_PEAK**2 / error)


def outside_objects(object_masks: Masks, *, margin: int | None = None) -> Masks:
    """Return where no object is, nor comes near: (time, height, width).

    Args:
        object_masks: (time, object, height, width), those of the true edit beside those of the source where an edit
            changes the shape.
        margin: pixels by which the objects are grown to each side; a 32nd of the short side by default, which holds
            soft edges and half a cell of an 8-fold VAE at 128 px.

    Raises:
        WaveOpsError: the masks have no object axis, or the margin is negative.
    """
    if object_masks.ndim != 4:
        raise WaveOpsError(f"expected masks (time, object, height, width), got {object_masks.shape}")
    reach = max(1, round(min(object_masks.shape[2:]) / 32)) if margin is None else margin
    if reach < 0:
        raise WaveOpsError(f"expected a margin of at least 0 pixels, got {margin}")
    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    outside: Masks = np.logical_not(object_masks.any(axis=1))
    for frame_index, mask in enumerate(outside):
        outside[frame_index] = cv2.erode(mask.astype(np.uint8), kernel).astype(bool)
    return outside


def true_warp_error(frames: Frames, scene: Scene) -> float:
    """Return the warp error along the scene's true flow, where its true occlusion leaves something to compare.

    Source: `warp_error`; mean over pairs of frames, pairs across a cut left out. Range [0, 1]; lower is steadier. The
    scene's own frames do not reach 0: edges and textures are sampled anew in every frame.

    Raises:
        WaveOpsError: the frames are not of the scene's size and number.
    """
    if frames.shape != scene.frames.shape:
        raise WaveOpsError(f"expected frames like the scene's, {scene.frames.shape}, got {frames.shape}")
    errors = warp_error(
        torch.from_numpy(frames).permute(0, 3, 1, 2).float() / _PEAK,
        torch.from_numpy(scene.flow_to_prev),
        torch.from_numpy(~scene.occlusion_to_prev),
    )
    return float(errors.nanmean())


def _visible(masks: Masks) -> NDArray[np.bool_]:
    visible: NDArray[np.bool_] = masks.mean(axis=(1, 2)) >= _VISIBLE_SHARE
    return visible


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if len(values) else nan


def _colour(name: str) -> Colour:
    for colour in COLOURS:
        if colour == name:
            return colour
    raise WaveOpsError(f"expected a colour of {', '.join(COLOURS)}, got {name!r}")


def _check_wanted(wanted: Mapping[str, str]) -> None:
    for name, value in wanted.items():
        if name not in _VALUES:
            raise WaveOpsError(f"expected an attribute of {', '.join(_VALUES)}, got {name!r}")
        if value not in _VALUES[name]:
            raise WaveOpsError(f"expected a {name} of {', '.join(_VALUES[name])}, got {value!r}")


def _check_clip(frames: Frames, masks: Masks) -> None:
    if frames.dtype != np.uint8 or frames.shape != (*masks.shape, 3):
        raise WaveOpsError(
            f"expected uint8 frames (time, height, width, 3) with one mask each, "
            f"got {frames.dtype} {frames.shape} and masks {masks.shape}"
        )
