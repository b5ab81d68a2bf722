"""Rendering of scenes, with exact flow, occlusion and object masks.

Convention:
    `flow_to_prev[i]` is on the grid of frame i + 1 and points to frame i, `flow_to_cur[i]` is on the grid of frame i
    and points to frame i + 1; both in pixels, x then y. The motion of a pixel is that of the top layer at its centre.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float32, UInt8

from wave_ops.errors import WaveOpsError
from wave_ops.scenes.geometry import MAX_RADIUS, Motion, Points, Pose, dark_half, inside
from wave_ops.scenes.specs import SceneObject, SceneSpec
from wave_ops.scenes.vocabulary import PALETTE, Colour

__all__ = [
    "BACKGROUND_SHADES",
    "OBJECT_SHADES",
    "Scene",
    "cut",
    "match_frames",
    "render",
    "render_frame",
    "shade",
    "split_shots",
]

Flow: TypeAlias = Float32[np.ndarray, "2 height width"]
Mask: TypeAlias = Bool[np.ndarray, "height width"]

OBJECT_SHADES: Final = (1.0, 0.78)
BACKGROUND_SHADES: Final = (0.84, 0.6)
"""Lighter and darker factor on a colour. Backgrounds are darker, so that objects stand out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A rendered clip with its ground truth."""

    frames: UInt8[np.ndarray, "time height width 3"]
    flow_to_prev: Float32[np.ndarray, "time-1 2 height width"]
    """Pixels; zero across a cut."""
    flow_to_cur: Float32[np.ndarray, "time-1 2 height width"]
    occlusion_to_prev: Bool[np.ndarray, "time-1 height width"]
    """On the grid of `flow_to_prev`: True where the flow points to another layer or out of the frame, and everywhere
    across a cut."""
    occlusion_to_cur: Bool[np.ndarray, "time-1 height width"]
    object_masks: Bool[np.ndarray, "time object height width"]
    """True where that object is the top layer at the pixel's centre."""
    caption: str
    cuts: tuple[int, ...] = ()
    """First frames of the shots after the first one."""
    shots: tuple[SceneSpec, ...] = ()
    """Spec of each shot."""


def shade(colour: Colour, factor: float) -> Float32[np.ndarray, "3"]:
    """Return a colour times a factor, RGB from 0 to 255; white is darkened less, since dark white is grey."""
    kept = factor if colour != "white" else 1 - 0.6 * (1 - factor)
    return np.array(PALETTE[colour], np.float32) * np.float32(kept)


def render(spec: SceneSpec) -> Scene:
    """Render a scene with its flows, occlusion and object masks."""
    count = spec.frame_count
    to_prev = [_match(spec, i + 1, i) for i in range(count - 1)]
    to_cur = [_match(spec, i, i + 1) for i in range(count - 1)]
    tops = np.stack([_top_layer(spec, i, _pixel_centres(spec.size)) for i in range(count)])
    layers = np.arange(1, len(spec.objects) + 1)
    return Scene(
        frames=np.stack([render_frame(spec, spec.progress(i)) for i in range(count)]),
        flow_to_prev=_stack([flow for flow, _ in to_prev], (2, *spec.size), np.float32),
        flow_to_cur=_stack([flow for flow, _ in to_cur], (2, *spec.size), np.float32),
        occlusion_to_prev=_stack([occluded for _, occluded in to_prev], spec.size, np.bool_),
        occlusion_to_cur=_stack([occluded for _, occluded in to_cur], spec.size, np.bool_),
        object_masks=tops[:, None] == layers[:, None, None],
        caption=spec.caption,
        shots=(spec,),
    )


def match_frames(scene: Scene, here: int, there: int) -> tuple[Flow, Mask]:
    """Return the true flow from any frame to any other, and where its target is occluded.

    Args:
        scene: from `render` or `cut`.
        here: index of the frame on the grid of which the results are.
        there: index of the frame to which the flow points.

    Returns:
        Flow in pixels and occlusion, as in `Scene` for neighbours. Across a cut the flow is zero and every pixel is
        occluded.

    Raises:
        WaveOpsError: if the scene does not contain a frame, or has no specs.
    """
    found = [_locate(scene, frame_index) for frame_index in (here, there)]
    (shot, first), (other, second) = found
    if shot != other:
        return np.zeros((2, *scene.shots[0].size), np.float32), np.ones(scene.shots[0].size, np.bool_)
    return _match(scene.shots[shot], first, second)


def render_frame(spec: SceneSpec, progress: float) -> UInt8[np.ndarray, "height width 3"]:
    """Render a frame at a fraction of the clip, 0 at the start and 1 at the end, antialiased by supersampling."""
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
    """Render one scene followed by another; across the cut flows are zero and every pixel is occluded.

    Raises:
        WaveOpsError: if the two scenes differ in size.
    """
    if first.size != second.size:
        raise WaveOpsError(f"both scenes of a cut need one size, got {first.size} and {second.size}")
    a, b = render(first), render(second)
    no_motion = np.zeros((1, 2, *first.size), np.float32)
    occluded = np.ones((1, *first.size), np.bool_)
    objects = max(a.object_masks.shape[1], b.object_masks.shape[1])
    return Scene(
        frames=np.concatenate([a.frames, b.frames]),
        flow_to_prev=np.concatenate([a.flow_to_prev, no_motion, b.flow_to_prev]),
        flow_to_cur=np.concatenate([a.flow_to_cur, no_motion, b.flow_to_cur]),
        occlusion_to_prev=np.concatenate([a.occlusion_to_prev, occluded, b.occlusion_to_prev]),
        occlusion_to_cur=np.concatenate([a.occlusion_to_cur, occluded, b.occlusion_to_cur]),
        object_masks=np.concatenate([_widened(a.object_masks, objects), _widened(b.object_masks, objects)]),
        caption=f"{a.caption}, then {b.caption}",
        cuts=(first.frame_count,),
        shots=(first, second),
    )


def split_shots(scene: Scene) -> tuple[Scene, ...]:
    """Return each shot of a scene as a scene of its own; the scene itself where it is one shot."""
    if not scene.cuts:
        return (scene,)
    ends = zip((0, *scene.cuts), (*scene.cuts, len(scene.frames)), scene.shots, strict=True)
    return tuple(
        Scene(
            frames=scene.frames[start:stop],
            flow_to_prev=scene.flow_to_prev[start : stop - 1],
            flow_to_cur=scene.flow_to_cur[start : stop - 1],
            occlusion_to_prev=scene.occlusion_to_prev[start : stop - 1],
            occlusion_to_cur=scene.occlusion_to_cur[start : stop - 1],
            object_masks=scene.object_masks[start:stop, : len(spec.objects)],
            caption=spec.caption,
            shots=(spec,),
        )
        for start, stop, spec in ends
    )


def _locate(scene: Scene, frame_index: int) -> tuple[int, int]:
    """Return the index of a frame's shot, and the frame's index in it."""
    first = 0
    for shot, spec in enumerate(scene.shots):
        if 0 <= frame_index - first < spec.frame_count:
            return shot, frame_index - first
        first += spec.frame_count
    raise WaveOpsError(f"the scene has specs of {first} frames, there is no frame {frame_index}")


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
    radius = MAX_RADIUS * pose.scale
    left, right = np.searchsorted(xs, [pose.x - radius, pose.x + radius])
    top, bottom = np.searchsorted(ys, [pose.y - radius, pose.y + radius])
    points = pose.to_layer((xs[left:right], ys[top:bottom, None]))
    covered = inside(item.shape, points)
    dark = dark_half(item.texture, _scaled(points, item.period))
    box = codes[top:bottom, left:right]
    box[covered] = code if dark is None else code + dark[covered]


def _pooled(codes: npt.NDArray[np.uint8], shades: npt.NDArray[np.float32], samples: int) -> npt.NDArray[np.uint8]:
    """Return the mean colour of each pixel's samples."""
    # One sample of every pixel at a time: many times faster than a mean over two short inner axes
    offsets = [(i, j) for i in range(samples) for j in range(samples)]
    total = sum(shades[codes[i::samples, j::samples]] for i, j in offsets)
    return np.asarray(total / np.float32(samples**2) + np.float32(0.5)).astype(np.uint8)


def _motions(spec: SceneSpec) -> tuple[Motion, ...]:
    return (spec.background.motion, *(item.motion for item in spec.objects))


def _top_layer(spec: SceneSpec, frame_index: int, points: Points) -> npt.NDArray[np.intp]:
    """Return the top layer at points of a frame: 0 for the background, i + 1 for object i."""
    top = np.zeros(points[0].shape, np.intp)
    for index, item in enumerate(spec.objects):
        pose = item.motion.at(spec.progress(frame_index))
        top[inside(item.shape, pose.to_layer(points))] = index + 1
    return top


def _match(spec: SceneSpec, here: int, there: int) -> tuple[Flow, Mask]:
    """Return the flow from one frame to another, and where its target is occluded."""
    points = _pixel_centres(spec.size)
    top = _top_layer(spec, here, points)
    x, y = (np.empty(spec.size) for _ in range(2))
    for layer, motion in enumerate(_motions(spec)):
        on = top == layer
        local = motion.at(spec.progress(here)).to_layer((points[0][on], points[1][on]))
        x[on], y[on] = motion.at(spec.progress(there)).to_frame(local)
    height, width = spec.size
    short = min(spec.size)
    outside = (np.abs(x) > width / 2 / short) | (np.abs(y) > height / 2 / short)
    flow = np.stack([x - points[0], y - points[1]]) * short
    return flow.astype(np.float32), outside | (_top_layer(spec, there, (x, y)) != top)


def _stack(items: list[Any], shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
    return np.stack(items) if items else np.empty((0, *shape), dtype)


def _widened(masks: npt.NDArray[np.bool_], objects: int) -> npt.NDArray[np.bool_]:
    return np.pad(masks, ((0, 0), (0, objects - masks.shape[1]), (0, 0), (0, 0)))
