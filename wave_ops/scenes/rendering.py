"""Scenes drawn as pixels, with the truth about every pixel's motion.

Convention: `flow_to_prev[i]` lies on the grid of frame i + 1 and points to frame i, `flow_to_cur[i]` lies on the grid
of frame i and points to frame i + 1; both in pixels, x then y. The motion of a pixel is that of the layer on top at its
centre.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from wave_ops.errors import WaveOpsError
from wave_ops.scenes.geometry import REACH, Motion, Points, Pose, dark_half, inside
from wave_ops.scenes.specs import SceneObject, SceneSpec
from wave_ops.scenes.vocabulary import PALETTE, Colour

__all__ = ["BACKGROUND_SHADES", "OBJECT_SHADES", "Scene", "cut", "match_frames", "render", "render_frame", "shade"]

OBJECT_SHADES: Final = (1.0, 0.78)
BACKGROUND_SHADES: Final = (0.84, 0.6)
"""Lighter and darker factor on a named colour. Backgrounds are darker, so that objects stand out from them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A clip and the truth about it; `cuts` are the first frames of new shots, across which nothing matches."""

    frames: npt.NDArray[np.uint8]
    """(time, height, width, 3)."""
    flow_to_prev: npt.NDArray[np.float32]
    """(time - 1, 2, height, width); zero across a cut."""
    flow_to_cur: npt.NDArray[np.float32]
    occlusion_to_prev: npt.NDArray[np.bool_]
    """(time - 1, height, width), on the grid of `flow_to_prev`: True where the matched point shows another layer or
    lies outside the frame; True everywhere across a cut."""
    occlusion_to_cur: npt.NDArray[np.bool_]
    object_masks: npt.NDArray[np.bool_]
    """(time, object, height, width): True where that object is on top at the pixel's centre."""
    caption: str
    cuts: tuple[int, ...] = ()
    shots: tuple[SceneSpec, ...] = ()
    """What was drawn: one spec per shot."""


def shade(colour: Colour, factor: float) -> npt.NDArray[np.float32]:
    """A named colour darkened to a factor, 0 to 255; white less than the rest, which would otherwise be called grey."""
    kept = factor if colour != "white" else 1 - 0.6 * (1 - factor)
    return np.array(PALETTE[colour], np.float32) * np.float32(kept)


def render(spec: SceneSpec) -> Scene:
    """The frames, both flows, both occlusion masks and the object masks of a scene."""
    count = spec.frame_count
    to_prev = [_match(spec, i + 1, i) for i in range(count - 1)]
    to_cur = [_match(spec, i, i + 1) for i in range(count - 1)]
    tops = np.stack([_top_layer(spec, i, _pixel_centres(spec.size)) for i in range(count)])
    layers = np.arange(1, len(spec.objects) + 1)
    return Scene(
        frames=np.stack([render_frame(spec, spec.progress(i)) for i in range(count)]),
        flow_to_prev=_stack([flow for flow, _ in to_prev], (2, *spec.size), np.float32),
        flow_to_cur=_stack([flow for flow, _ in to_cur], (2, *spec.size), np.float32),
        occlusion_to_prev=_stack([hidden for _, hidden in to_prev], spec.size, np.bool_),
        occlusion_to_cur=_stack([hidden for _, hidden in to_cur], spec.size, np.bool_),
        object_masks=tops[:, None] == layers[:, None, None],
        caption=spec.caption,
        shots=(spec,),
    )


def match_frames(scene: Scene, here: int, there: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """The true flow from any frame to any other, and where the matched point is not to be seen there.

    Args:
        scene: as `render` or `cut` gives it.
        here: the frame on whose grid both lie.
        there: the frame that the flow points to.

    Returns:
        Flow (2, height, width) and hidden (height, width), as `Scene` has them for neighbours. Across a cut the flow
        is zero and everything is hidden.

    Raises:
        WaveOpsError: if a frame lies outside the scene, or the scene does not know what was drawn.
    """
    places = [_place(scene, frame_index) for frame_index in (here, there)]
    (shot, first), (other, second) = places
    if shot != other:
        return np.zeros((2, *scene.shots[0].size), np.float32), np.ones(scene.shots[0].size, np.bool_)
    return _match(scene.shots[shot], first, second)


def render_frame(spec: SceneSpec, progress: float) -> npt.NDArray[np.uint8]:
    """One frame (height, width, 3) at a point of the clip, 0 its start and 1 its end, antialiased by supersampling."""
    height, width = (side * spec.supersampling for side in spec.size)
    ground = spec.background
    xs, ys = _axes(spec.size, samples=spec.supersampling)
    codes = np.zeros((height, width), np.uint8)
    points = ground.motion.at(progress).to_layer((xs, ys[:, None]))
    dark = dark_half(ground.texture, _scaled(points, ground.period))
    codes[:] = 0 if dark is None else dark
    for index, item in enumerate(spec.objects):
        _paint(codes, item, pose=item.motion.at(progress), axes=(xs, ys), code=2 * index + 2)
    shades = [shade(ground.colour, factor) for factor in BACKGROUND_SHADES]
    shades += [shade(item.colour, factor) for item in spec.objects for factor in OBJECT_SHADES]
    return _pooled(codes, np.stack(shades), spec.supersampling)


def cut(first: SceneSpec, second: SceneSpec) -> Scene:
    """A clip that shows one scene, then another; flows across the cut are zero and every pixel there is occluded.

    Raises:
        WaveOpsError: if the two scenes differ in size.
    """
    if first.size != second.size:
        raise WaveOpsError(f"both scenes of a cut need one size, got {first.size} and {second.size}")
    a, b = render(first), render(second)
    still = np.zeros((1, 2, *first.size), np.float32)
    hidden = np.ones((1, *first.size), np.bool_)
    objects = max(a.object_masks.shape[1], b.object_masks.shape[1])
    return Scene(
        frames=np.concatenate([a.frames, b.frames]),
        flow_to_prev=np.concatenate([a.flow_to_prev, still, b.flow_to_prev]),
        flow_to_cur=np.concatenate([a.flow_to_cur, still, b.flow_to_cur]),
        occlusion_to_prev=np.concatenate([a.occlusion_to_prev, hidden, b.occlusion_to_prev]),
        occlusion_to_cur=np.concatenate([a.occlusion_to_cur, hidden, b.occlusion_to_cur]),
        object_masks=np.concatenate([_widened(a.object_masks, objects), _widened(b.object_masks, objects)]),
        caption=f"{a.caption}, then {b.caption}",
        cuts=(first.frame_count,),
        shots=(first, second),
    )


def _place(scene: Scene, frame_index: int) -> tuple[int, int]:
    """A frame's shot, and its place in it."""
    first = 0
    for shot, spec in enumerate(scene.shots):
        if 0 <= frame_index - first < spec.frame_count:
            return shot, frame_index - first
        first += spec.frame_count
    raise WaveOpsError(f"the scene has {first} frames whose specs are known, there is no frame {frame_index}")


def _axes(size: tuple[int, int], *, samples: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    short = min(size)
    ys, xs = (
        ((np.arange(side * samples) + 0.5) / samples - side / 2).astype(np.float32) / np.float32(short) for side in size
    )
    return xs, ys


def _pixel_centres(size: tuple[int, int]) -> Points:
    height, width = size
    y, x = np.meshgrid(np.arange(height) + 0.5, np.arange(width) + 0.5, indexing="ij")
    return (x - width / 2) / min(size), (y - height / 2) / min(size)


def _scaled(points: Points, period: float) -> Points:
    return points[0] / period, points[1] / period


def _paint(
    codes: npt.NDArray[np.uint8],
    item: SceneObject,
    *,
    pose: Pose,
    axes: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]],
    code: int,
) -> None:
    """Write an object's codes (`code` light, `code` + 1 dark) over the samples that it covers."""
    xs, ys = axes
    reach = REACH * pose.scale
    left, right = np.searchsorted(xs, [pose.x - reach, pose.x + reach])
    top, bottom = np.searchsorted(ys, [pose.y - reach, pose.y + reach])
    points = pose.to_layer((xs[left:right], ys[top:bottom, None]))
    covered = inside(item.shape, points)
    dark = dark_half(item.texture, _scaled(points, item.period))
    box = codes[top:bottom, left:right]
    box[covered] = code if dark is None else code + dark[covered]


def _pooled(codes: npt.NDArray[np.uint8], shades: npt.NDArray[np.float32], samples: int) -> npt.NDArray[np.uint8]:
    """The mean colour of the samples of each pixel."""
    # One sample of every pixel at a time: many times quicker than a mean over two short inner axes.
    offsets = [(i, j) for i in range(samples) for j in range(samples)]
    total = sum(shades[codes[i::samples, j::samples]] for i, j in offsets)
    return np.asarray(total / np.float32(samples**2) + np.float32(0.5)).astype(np.uint8)


def _motions(spec: SceneSpec) -> tuple[Motion, ...]:
    return (spec.background.motion, *(item.motion for item in spec.objects))


def _top_layer(spec: SceneSpec, frame_index: int, points: Points) -> npt.NDArray[np.intp]:
    """Which layer is on top at points of a frame: 0 the background, i + 1 the object i."""
    top = np.zeros(points[0].shape, np.intp)
    for index, item in enumerate(spec.objects):
        pose = item.motion.at(spec.progress(frame_index))
        top[inside(item.shape, pose.to_layer(points))] = index + 1
    return top


def _match(spec: SceneSpec, here: int, there: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Flow from one frame to another, and where the matched point is not to be seen there."""
    points = _pixel_centres(spec.size)
    top = _top_layer(spec, here, points)
    x, y = (np.empty(spec.size) for _ in range(2))
    for layer, motion in enumerate(_motions(spec)):
        on = top == layer
        local = motion.at(spec.progress(here)).to_layer((points[0][on], points[1][on]))
        x[on], y[on] = motion.at(spec.progress(there)).to_frame(local)
    height, width = spec.size
    short = min(spec.size)
    left = (np.abs(x) > width / 2 / short) | (np.abs(y) > height / 2 / short)
    flow = np.stack([x - points[0], y - points[1]]) * short
    return flow.astype(np.float32), left | (_top_layer(spec, there, (x, y)) != top)


def _stack(items: list[Any], shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
    return np.stack(items) if items else np.empty((0, *shape), dtype)


def _widened(masks: npt.NDArray[np.bool_], objects: int) -> npt.NDArray[np.bool_]:
    return np.pad(masks, ((0, 0), (0, objects - masks.shape[1]), (0, 0), (0, 0)))
