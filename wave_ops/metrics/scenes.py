"""Metrics of an edited drawn scene: whether the requested attributes have changed and all others have not.

Convention:
    Frames are uint8 RGB (time, height, width, 3), masks bool (time, height, width). Frames in which the mask covers
    less than 1 % are ignored, since they show too little of the object. Without any frame a metric is not a number.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, log10, nan
from typing import Any, Final, TypeAlias

import cv2
import numpy as np
import torch
from jaxtyping import Bool, UInt8
from numpy.typing import NDArray

from wave_ops.errors import WaveOpsError
from wave_ops.metrics.temporal import warp_error
from wave_ops.scenes.reading import find_object, read_attributes
from wave_ops.scenes.rendering import Scene
from wave_ops.scenes.vocabulary import COLOURS, SHAPES, TEXTURES, Colour

__all__ = [
    "attribute_fractions",
    "attribute_hits",
    "mixed_frames",
    "object_overlap",
    "outside_objects",
    "preservation",
    "true_warp_error",
]

Frames: TypeAlias = UInt8[np.ndarray, "time height width 3"]
Masks: TypeAlias = Bool[np.ndarray, "time height width"]
Times: TypeAlias = Bool[np.ndarray, "time"]

_VISIBLE_FRACTION: Final = 0.01
_PEAK: Final = 255.0
_DIFFERENT: Final = 25.0
"""Distance in RGB of 255 from which on a pixel of the true edit differs from the source."""
_MIXED: Final = (0.25, 0.75)
"""Fractions of the line from source to true edit between which a pixel is a mix of both."""
_OFF_LINE: Final = 0.35
"""Largest distance of a mix from that line, relative to its length."""
_MIXED_FRACTION: Final = 0.5
_VALUES: Final[Mapping[str, tuple[str, ...]]] = {
    "colour": COLOURS,
    "shape": SHAPES,
    "texture": TEXTURES,
    "background_colour": COLOURS,
    "background_texture": TEXTURES,
}


def attribute_fractions(
    frames: Frames, masks: Masks, wanted: Mapping[str, str], *, readable: Mapping[str, Times] | None = None
) -> dict[str, float]:
    """Return, per attribute, the fraction of frames that are classified as the wanted value.

    Source: ours; the classifier is `read_attributes`, correct on 99 % of true frames whose object is fully visible.
    Range [0, 1].

    Args:
        frames: the edited clip.
        masks: true object. The mask of the source also fits an object with another shape, since the shape is that of
            the object's region in the frame.
        wanted: values by the names of `Attributes`; only these are classified.
        readable: per attribute, the frames to count: `attribute_hits` of the clip after a perfect edit. The shape of
            an object that is partly outside the frame or occluded cannot be classified, which is not the edit's fault;
            in hard scenes that is 4 frames of 10. By default all frames that show the object.

    Raises:
        WaveOpsError: an attribute or a value is unknown, or the arrays do not fit together.
    """
    hits = attribute_hits(frames, masks, wanted)
    counted = dict.fromkeys(wanted, _visible(masks)) if readable is None else readable
    for name in wanted:
        if name not in counted or counted[name].shape != (len(frames),):
            raise WaveOpsError(f"expected the readable frames of {name}, one boolean for each of {len(frames)}")
    return {name: _mean(hits[name][counted[name]]) for name in wanted}


def attribute_hits(frames: Frames, masks: Masks, wanted: Mapping[str, str]) -> dict[str, Times]:
    """Return, per attribute and frame, whether the frame is classified as the wanted value; False without an object.

    Arguments and errors are those of `attribute_fractions`.
    """
    _check_wanted(wanted)
    _check_clip(frames, masks)
    hits = {name: np.zeros(len(frames), np.bool_) for name in wanted}
    for index in np.flatnonzero(_visible(masks)):
        found = read_attributes(frames[index], masks[index])
        for name, value in wanted.items():
            hits[name][index] = getattr(found, name) == value
    return hits


def mixed_frames(frames: Frames, source: Frames, truth: Frames) -> Times:
    """Return which frames are a mix of the source and the edit, such as a half-transparent edit.

    Source: ours. Of the pixels that the true edit changes, those count that have left the source. A pixel is a mix if
    its colour is near the line from the source's to the true edit's, between a quarter and three quarters of it; a
    frame is, if more than half of its pixels are. Unchanged frames and frames of quite another edit are not mixes.

    Args:
        frames: the edited clip.
        source: the source clip.
        truth: the source after a perfect edit.

    Raises:
        WaveOpsError: the clips differ in shape, or are not uint8.
    """
    if len({(clip.shape, clip.dtype.name) for clip in (frames, source, truth)} | {(frames.shape, "uint8")}) > 1:
        raise WaveOpsError(
            f"expected three uint8 clips of one shape, got {frames.shape}, {source.shape} and {truth.shape}"
        )
    return np.array([_is_mixed(*clips) for clips in zip(frames, source, truth, strict=True)], np.bool_)


def _is_mixed(frame: NDArray[np.uint8], source: NDArray[np.uint8], truth: NDArray[np.uint8]) -> bool:
    change, made = (image.astype(np.float32) - source for image in (truth, frame))
    length = np.linalg.norm(change, axis=-1)
    changed = length > _DIFFERENT
    change, made, length = change[changed], made[changed], length[changed]
    position = (made * change).sum(axis=-1) / length**2
    off_line = np.linalg.norm(made - position[:, None] * change, axis=-1) / length
    left = position > _MIXED[0]
    mixed = left & (position < _MIXED[1]) & (off_line < _OFF_LINE)
    return bool(mixed.sum() > _MIXED_FRACTION * left.sum())


def object_overlap(frames: Frames, masks: Masks, *, colour: str, background: str) -> float:
    """Return the intersection over union of the object found in the frames and the true one, mean over frames.

    Source: Jaccard (1912). Range [0, 1]; 1 only if the outlines agree to the pixel. True frames of 64 px have about
    0.98, those of 128 px 0.99, since each pixel of an antialiased edge is assigned to one side.

    Args:
        frames: the clip.
        masks: true object.
        colour: the object's colour; of several regions with it the one that covers most of the mask is the object.
        background: colour of the background.

    Raises:
        WaveOpsError: a colour is unknown, or the arrays do not fit together.
    """
    _check_clip(frames, masks)
    near, ground = _colour(colour), _colour(background)
    overlaps = []
    for index in np.flatnonzero(_visible(masks)):
        found = find_object(frames[index], colour=near, background=ground, near=masks[index])
        overlaps.append((found & masks[index]).sum() / (found | masks[index]).sum())
    return _mean(np.array(overlaps))


def preservation(edited: Frames, source: Frames, outside_masks: Masks) -> float:
    """Return the PSNR in dB over all pixels, of all frames, that an edit should not change.

    Source: ours, after the background PSNR of image editing benchmarks (Ju et al., "PnP Inversion", ICLR 2024).
    Range [0, inf], infinite if nothing has changed; not a number if the mask is empty.

    Args:
        edited: the edited clip.
        source: the source clip.
        outside_masks: True where the edit should change nothing, for example from `outside_objects`.

    Raises:
        WaveOpsError: the arrays do not fit together.
    """
    _check_clip(edited, outside_masks)
    _check_clip(source, outside_masks)
    if not outside_masks.any():
        return nan
    difference = edited[outside_masks].astype(np.float64) - source[outside_masks]
    error = float(np.square(difference).mean())
    return inf if error == 0 else 10 * log10(_PEAK**2 / error)


def outside_objects(object_masks: Bool[np.ndarray, "time object height width"], *, margin: int | None = None) -> Masks:
    """Return True for pixels outside all objects and a margin around them.

    Args:
        object_masks: objects of the source and, if an edit changes the shape, of the true edit.
        margin: pixels by which the objects are dilated; by default 1/32 of the short side, which covers antialiased
            edges and, at 128 px, half a latent of a VAE of factor 8.

    Raises:
        WaveOpsError: the masks have no object axis, or the margin is negative.
    """
    if object_masks.ndim != 4:
        raise WaveOpsError(f"expected masks (time, object, height, width), got {object_masks.shape}")
    radius = max(1, round(min(object_masks.shape[2:]) / 32)) if margin is None else margin
    if radius < 0:
        raise WaveOpsError(f"expected a margin of at least 0 pixels, got {margin}")
    kernel = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    outside: Masks = np.logical_not(object_masks.any(axis=1))
    for frame_index, mask in enumerate(outside):
        outside[frame_index] = cv2.erode(mask.astype(np.uint8), kernel).astype(bool)
    return outside


def true_warp_error(frames: Frames, scene: Scene) -> float:
    """Return the warp error along the scene's true flow, over pixels that are not occluded.

    Source: `warp_error`; mean over pairs of frames, without pairs across a cut. Range [0, 1]; lower is steadier. The
    error of the scene's own frames is above 0, since edges and textures are sampled independently in every frame.

    Args:
        frames: the edited clip.
        scene: the scene of which it should have the motion.

    Raises:
        WaveOpsError: the frames differ from the scene's in size or number.
    """
    if frames.shape != scene.frames.shape:
        raise WaveOpsError(f"expected frames like the scene's, {scene.frames.shape}, got {frames.shape}")
    errors = warp_error(
        torch.from_numpy(frames).permute(0, 3, 1, 2).float() / _PEAK,
        torch.from_numpy(scene.flow_to_prev),
        torch.from_numpy(~scene.occlusion_to_prev),
    )
    return float(errors.nanmean())


def _visible(masks: Masks) -> Times:
    visible: NDArray[np.bool_] = masks.mean(axis=(1, 2)) >= _VISIBLE_FRACTION
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


def _check_clip(frames: NDArray[Any], masks: NDArray[Any]) -> None:
    if frames.dtype != np.uint8 or frames.shape != (*masks.shape, 3):
        raise WaveOpsError(
            f"expected uint8 frames (time, height, width, 3) with one mask each, "
            f"got {frames.dtype} {frames.shape} and masks {masks.shape}"
        )
