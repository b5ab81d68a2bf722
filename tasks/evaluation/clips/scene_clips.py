"""Drawn clips that comparisons run on, with a known difficulty and a known perfect edit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from storage.digest import digest_of
from tasks.errors import TaskInputError
from tasks.evaluation.clips.clip import Edit, EvaluationClip
from wave_ops.scenes.geometry import Motion, Pose
from wave_ops.scenes.rendering import Scene, cut, render
from wave_ops.scenes.sampling import HELD_OUT_SEED
from wave_ops.scenes.specs import SceneSpec, edit_spec, random_scene
from wave_ops.scenes.vocabulary import COLOURS, SHAPES, TEXTURES

__all__ = ["EDITED_ATTRIBUTE", "EDIT_KINDS", "GROUPS", "UNIQUE_KINDS", "scene_clips"]

EDIT_KINDS: Final = ("colour", "shape", "background colour", "background texture")
GROUPS: Final = ("calm", "hard motion", "occlusion", "cut", "two objects")
EDITED_ATTRIBUTE: Final[Mapping[str, str]] = {kind: kind.replace(" ", "_") for kind in EDIT_KINDS}
"""The attribute that each kind of edit changes, named as in `Attributes`."""

UNIQUE_KINDS: Final = ("colour", "background colour")
"""Kinds of which only one result is right: a prompt says neither where a texture starts nor how a shape is turned."""

_SEEDS_APART: Final = 1_000
_SECOND_SHOT: Final = 500
"""Offset of the second shot's seed from the first one's, in clips with a cut."""


def scene_clips(
    count: int,
    *,
    seed: int,
    frame_count: int = 17,
    size: tuple[int, int] = (128, 128),
    kinds: Sequence[str] = EDIT_KINDS,
) -> tuple[EvaluationClip, ...]:
    """Draw clips of held-out scenes, each with one edit of its first object or its background.

    Groups and kinds of edit both cycle. There are five groups and four kinds, so 20 clips contain every kind in every
    group, and 16 contain at least three kinds in each.

    Args:
        count: how many clips.
        seed: another seed gives other clips.
        frame_count: frames of each clip, at least 2.
        size: height and width, pixels.
        kinds: the kinds of edit to cycle through.

    Raises:
        TaskInputError: if count is below 1 or above 500, for clips of one frame, or for an unknown kind.
    """
    if not 1 <= count <= _SECOND_SHOT:
        raise TaskInputError(f"A comparison takes from 1 to {_SECOND_SHOT} scene clips, got {count}.")
    if frame_count < 2:
        raise TaskInputError(f"A scene clip needs at least 2 frames, one for each shot of a cut, got {frame_count}.")
    if not kinds or set(kinds) - set(EDIT_KINDS):
        raise TaskInputError(f"Unknown kinds of edit {list(kinds)}; choose from {', '.join(EDIT_KINDS)}.")
    return tuple(
        _clip(
            GROUPS[i % len(GROUPS)],
            kind=kinds[i % len(kinds)],
            seed=HELD_OUT_SEED + _SEEDS_APART * seed + i,
            drawn={"frame_count": frame_count, "size": size},
        )
        for i in range(count)
    )


def _clip(group: str, *, kind: str, seed: int, drawn: Mapping[str, Any]) -> EvaluationClip:
    shots = _SHOTS[group](seed, drawn)
    edited = tuple(
        edit_spec(spec, **_change(spec, kind, np.random.default_rng([seed + _SECOND_SHOT * i, EDIT_KINDS.index(kind)])))
        for i, spec in enumerate(shots)
    )
    truth = _drawn(edited)
    edit = Edit(kind=kind, prompt=truth.caption, truth=truth)
    scene, name = _drawn(shots), f"{group.replace(' ', '-')}-{seed - HELD_OUT_SEED:05d}"
    return EvaluationClip(
        name=name,
        group=group,
        frames=scene.frames,
        caption=scene.caption,
        edits=(edit,),
        scene=scene,
        cuts=scene.cuts,
        digest=digest_of(name, group, repr(shots), kind, edit.prompt, repr(edited)),
    )


def _calm(seed: int, drawn: Mapping[str, Any]) -> tuple[SceneSpec, ...]:
    return (random_scene(seed, **drawn),)


def _hard(seed: int, drawn: Mapping[str, Any]) -> tuple[SceneSpec, ...]:
    return (random_scene(seed, hard=True, **drawn),)


def _two_objects(seed: int, drawn: Mapping[str, Any]) -> tuple[SceneSpec, ...]:
    return (random_scene(seed, objects=2, **drawn),)


def _crossing(seed: int, drawn: Mapping[str, Any]) -> tuple[SceneSpec, ...]:
    """Draw two objects that change sides; in the middle of the clip the second one covers a part of the first."""
    spec = random_scene(seed, objects=2, **drawn)
    above = float(np.random.default_rng([seed, 1]).choice((-1.0, 1.0)))
    objects = tuple(
        replace(item, motion=_passing(item.motion, side=side, height=0.5 * side * above * item.motion.start.scale))
        for item, side in zip(spec.objects, (-1, 1), strict=True)
    )
    return (replace(spec, objects=objects),)


def _passing(motion: Motion, *, side: int, height: float) -> Motion:
    """Keep rotation and zoom, and move in a straight line from one side to the other."""
    edge = 0.27 * side
    start, end = (
        Pose(x=x, y=height, angle=pose.angle, scale=pose.scale)
        for x, pose in ((edge, motion.start), (-edge, motion.end))
    )
    return Motion(start=start, end=end)


def _two_shots(seed: int, drawn: Mapping[str, Any]) -> tuple[SceneSpec, ...]:
    """Draw two shots of different scenes without a colour in common, so that mixing them is seen."""
    count = drawn["frame_count"]
    first = random_scene(seed, **{**drawn, "frame_count": count - count // 2})
    second = random_scene(seed + _SECOND_SHOT, **{**drawn, "frame_count": count // 2})
    taken = (first.objects[0].colour, first.background.colour)
    free = [colour for colour in COLOURS if colour not in taken]
    colour, ground = (free[i] for i in np.random.default_rng([seed, 2]).permutation(len(free))[:2])
    return first, edit_spec(second, colour=colour, background_colour=ground)


_SHOTS: Final[dict[str, Callable[[int, Mapping[str, Any]], tuple[SceneSpec, ...]]]] = {
    "calm": _calm,
    "hard motion": _hard,
    "occlusion": _crossing,
    "cut": _two_shots,
    "two objects": _two_objects,
}


def _change(spec: SceneSpec, kind: str, rng: np.random.Generator) -> dict[str, Any]:
    """Choose the argument of `edit_spec`: a value that nothing else in the scene has."""
    colours = [item.colour for item in spec.objects] + [spec.background.colour]
    choices: dict[str, tuple[Sequence[str], Sequence[str]]] = {
        "colour": (colours, COLOURS),
        "shape": ([item.shape for item in spec.objects], SHAPES),
        "background colour": (colours, COLOURS),
        "background texture": ([spec.background.texture], TEXTURES),
    }
    taken, known = choices[kind]
    free = [value for value in known if value not in taken]
    return {EDITED_ATTRIBUTE[kind]: free[rng.integers(len(free))]}


def _drawn(shots: Sequence[SceneSpec]) -> Scene:
    return render(shots[0]) if len(shots) == 1 else cut(*shots)
