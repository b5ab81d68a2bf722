"""Other methods of upsampling an edit to its source's size, written plainly; and edits with a known full-size truth.

Each upsampler takes the source frame (height, width, 3) and the small edited one, uint8, and returns uint8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates
from skimage import data

from wave_ops.resize import resize_frames
from wave_ops.scenes.rendering import render_frame
from wave_ops.scenes.specs import edit_spec, random_scene
from wave_ops.scenes.vocabulary import COLOURS, SHAPES, TEXTURES

__all__ = ["UPSAMPLERS", "cases", "cubic", "roughened", "shrunk"]

Frame = NDArray[np.uint8]
Array = NDArray[Any]
T = TypeVar("T")


def rounded(image: Array) -> Frame:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def shrunk(frame: Frame, factor: int = 4) -> Frame:
    height, width, _ = frame.shape
    return resize_frames(frame[None], (height // factor, width // factor))[0]


def small_of(source: Frame, edited: Frame) -> Array:
    return resize_frames(source[None], edited.shape[:2])[0].astype(np.float32)


def enlarged(image: Array, like: Frame, interpolation: int = cv2.INTER_CUBIC) -> Array:
    return cv2.resize(np.ascontiguousarray(image, np.float32), like.shape[1::-1], interpolation=interpolation)


def cubic(source: Frame, edited: Frame) -> Frame:
    return rounded(enlarged(edited, source))


def lanczos(source: Frame, edited: Frame) -> Frame:
    return rounded(enlarged(edited, source, cv2.INTER_LANCZOS4))


def change_added(source: Frame, edited: Frame) -> Frame:
    return rounded(source + enlarged(edited - small_of(source, edited), source))


def guided_filter(source: Frame, edited: Frame, *, side: int = 5, ridge: float = 4.0) -> Frame:
    """He and Sun, arXiv:1505.00996: per window an affine function of the source's colours, averaged over windows."""

    def mean(image: Array) -> Array:
        return cv2.blur(np.ascontiguousarray(image), (side, side), borderType=cv2.BORDER_REFLECT_101)

    small, edit = small_of(source, edited).astype(np.float64), edited.astype(np.float64)
    spread, joint = (
        np.stack([mean(a[..., c, None] * small) for c in range(3)], 2) - mean(a)[..., None] * mean(small)[:, :, None]
        for a in (small, edit)
    )
    gain = joint @ np.linalg.inv(spread + ridge * np.eye(3))
    offset = enlarged(mean(mean(edit) - (gain @ mean(small)[..., None])[..., 0]), source, cv2.INTER_LINEAR)
    parts = [(enlarged(mean(gain[:, :, c]), source, cv2.INTER_LINEAR) * source).sum(2) for c in range(3)]
    return rounded(np.stack(parts, 2) + offset)


def joint_bilateral(source: Frame, edited: Frame, *, radius: int = 2, tolerance: float = 20.0) -> Frame:
    """Kopf et al. (SIGGRAPH 2007): the change, averaged over small pixels of a near place and a near source colour."""
    small = small_of(source, edited)
    change, (rows, columns) = edited - small, edited.shape[:2]
    y, x = ((np.arange(n) + 0.5) * m / n - 0.5 for n, m in zip(source.shape[:2], (rows, columns), strict=True))
    total, weights = np.zeros(source.shape), np.full(source.shape[:2], 1e-12)
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            i, j = np.rint(y).astype(int) + dy, np.rint(x).astype(int) + dx
            near = np.exp(-((i - y) ** 2)[:, None] / 2 - ((j - x) ** 2)[None] / 2)
            taken = np.ix_(i.clip(0, rows - 1), j.clip(0, columns - 1))
            weight = near * np.exp(-((source - small[taken]) ** 2).sum(2) / (2 * tolerance**2))
            total += weight[..., None] * change[taken]
            weights += weight
    return rounded(source + total / weights[..., None])


def bilateral_guided(source: Frame, edited: Frame, *, cell: int = 16, bins: int = 8, ridge: float = 4.0) -> Frame:
    """Chen et al. (SIGGRAPH Asia 2016), the fast variant: affine functions fitted in a blurred bilateral grid."""
    small, (rows, columns), luma = small_of(source, edited), edited.shape[:2], np.array([0.299, 0.587, 0.114])
    grid = (bins, max(2, rows // cell), max(2, columns // cell))

    def places(image: Array) -> Array:
        height, width, _ = image.shape
        y = np.repeat(((np.arange(height) + 0.5) * grid[1] / height - 0.5)[:, None], width, 1)
        x = np.repeat(((np.arange(width) + 0.5) * grid[2] / width - 0.5)[None], height, 0)
        return np.stack([image @ luma / 255 * (bins - 1), y, x])

    limits = np.array(grid)[:, None, None] - 1
    at = tuple(np.clip(np.rint(places(small)).astype(int), 0, limits))
    colours = np.concatenate([small, np.full((rows, columns, 1), 255.0)], 2)
    spread, joint = np.zeros((*grid, 4, 4)), np.zeros((*grid, 3, 4))
    np.add.at(spread, at, colours[..., :, None] * colours[..., None, :])
    np.add.at(joint, at, edited[..., :, None] * colours[..., None, :])
    spread, joint = (gaussian_filter(moment, (1, 1, 1, 0, 0)) for moment in (spread, joint))
    prior = ridge * (spread[..., 3:, 3:] / 255**2 + 1e-6) * np.diag([1, 1, 1, 1e-3])
    gain = (joint + np.eye(3, 4) @ prior) @ np.linalg.inv(spread + prior)
    point, full = places(source), np.concatenate([source, np.full((*source.shape[:2], 1), 255)], 2)
    planes = [
        sum(map_coordinates(gain[..., c, k], point, order=1, mode="nearest") * full[..., k] for k in range(4))
        for c in range(3)
    ]
    return rounded(np.stack(planes, 2))


UPSAMPLERS: Mapping[str, Callable[[Frame, Frame], Frame]] = {
    "cubic": cubic,
    "Lanczos": lanczos,
    "change added": change_added,
    "guided filter": guided_filter,
    "joint bilateral": joint_bilateral,
    "bilateral guided": bilateral_guided,
}


def cases() -> Iterator[tuple[str, Frame, Frame]]:
    """Yield the kind of edit, the source and the true edit at full size: drawn scenes, then photographs."""
    for seed in range(3):
        scene = random_scene(seed, size=(512, 512), objects=1 + seed % 2)
        colour = other(COLOURS, {scene.background.colour, *(item.colour for item in scene.objects)})
        for name, edited in {
            "object": edit_spec(scene, colour=colour),
            "background": edit_spec(scene, background_colour=colour),
            "texture": edit_spec(scene, background_texture=other(TEXTURES[1:], {scene.background.texture})),
            "shape": edit_spec(scene, shape=other(SHAPES, {scene.objects[0].shape})),
        }.items():
            yield name, render_frame(scene, 0.4), render_frame(edited, 0.4)
    for photograph in (data.astronaut(), data.coffee(), data.stereo_motorcycle()[0][:500, :740]):
        for name, change in {"grade": _graded, "hue": _rotated_hue, "painting": _painted}.items():
            yield name, photograph, change(photograph)


def other(words: Sequence[T], taken: set[T]) -> T:
    return next(word for word in words if word not in taken)


def roughened(edited: Frame) -> Frame:
    """Degrade an edit as a model does: half a pixel out of place, a little blurred, and noisy."""
    height, width, _ = edited.shape
    moved = cv2.warpAffine(
        edited.astype(np.float32),
        np.array([[1, 0, 0.4], [0, 1, -0.3]]),
        (width, height),
        borderMode=cv2.BORDER_REFLECT,
    )
    noise = np.random.default_rng(0).normal(0, 8, moved.shape)
    return rounded(cv2.GaussianBlur(moved, (0, 0), 0.5) + cv2.GaussianBlur(noise, (0, 0), 0.7))


def _graded(frame: Frame) -> Frame:
    """Brighten the shadows and mix the channels."""
    mixer = np.array([[1.1, 0.1, -0.1], [-0.05, 0.9, 0.1], [0.05, -0.1, 0.9]])
    return rounded(255 * (frame / 255) ** 0.8 @ mixer)


def _rotated_hue(frame: Frame) -> Frame:
    """Rotate the hue by 100 degrees inside a soft circle."""
    hsv = cv2.cvtColor(frame, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(int) + 50) % 180
    y, x = (np.linspace(-1, 1, side) for side in frame.shape[:2])
    inside = 1 / (1 + np.exp((np.hypot(y[:, None], x[None]) - 0.6) * 30))[..., None]
    return rounded(inside * cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) + (1 - inside) * frame)


def _painted(frame: Frame) -> Frame:
    """Flatten even regions and draw their contours."""
    flat = cv2.edgePreservingFilter(frame, flags=1, sigma_s=40, sigma_r=0.4)
    return cv2.stylization(flat, sigma_s=40, sigma_r=0.4)
