"""Small drawn clips for the embedded model, and the resources of its comparisons."""

from __future__ import annotations

from dataclasses import replace
from math import isqrt
from typing import Any

from tasks.evaluation.clips.clip import Edit, EvaluationClip
from tasks.evaluation.comparisons.comparison import Resources
from tasks.models.checkpoints import resolve_model
from tests._evaluation import RESOURCES
from wave_ops.scenes.geometry import Motion
from wave_ops.scenes.rendering import Scene, cut, render
from wave_ops.scenes.specs import SceneSpec, edit_spec, random_scene
from wave_ops.scenes.vocabulary import COLOURS

__all__ = ["EMBEDDED", "SIDE", "edited_clip", "recoloured", "sliding_clip"]

EMBEDDED: Resources = replace(RESOURCES, model=resolve_model("embedded"))
SIDE = isqrt(EMBEDDED.model.native_area)
"""Pixels along a side of the frames that the embedded model was trained on."""


def edited_clip(*shots: SceneSpec, kind: str = "colour", **change: Any) -> EvaluationClip:
    """Draw a clip of one or two shots, and the same edit of each."""
    edited = [edit_spec(spec, **change) for spec in shots]
    scene, truth = _drawn(shots), _drawn(edited)
    return EvaluationClip(
        name="clip",
        group="calm",
        frames=scene.frames,
        caption=scene.caption,
        edits=(Edit(kind=kind, prompt=truth.caption, truth=truth),),
        scene=scene,
        cuts=scene.cuts,
    )


def recoloured(*shots: SceneSpec) -> EvaluationClip:
    """Draw a clip with an edit of its first object to a colour that nothing else has."""
    taken = [item.colour for item in shots[0].objects] + [shots[0].background.colour]
    return edited_clip(*shots, colour=next(colour for colour in COLOURS if colour not in taken))


def sliding_clip(seed: int) -> EvaluationClip:
    """Draw two keyframes: the object moves by 3 latent cells, and a textured background by 1 in another direction.

    With the flow negated, the object is 6 cells off, and the background half a period of its texture.
    """
    spec = random_scene(seed, size=(SIDE, SIDE), frame_count=5)
    item, ground, cell = spec.objects[0], spec.background, 1 / 16
    direction = 1.0 if item.motion.start.x < 0 else -1.0
    poses = [replace(item.motion.start, x=1.5 * cell * end * direction, scale=0.25) for end in (-1, 1)]
    pan = Motion(start=ground.motion.start, end=replace(ground.motion.start, y=ground.motion.start.y + cell))
    texture = "checked" if ground.texture == "plain" else ground.texture
    return recoloured(
        replace(
            spec,
            objects=(replace(item, motion=Motion(start=poses[0], end=poses[1])),),
            background=replace(ground, motion=pan, texture=texture),
        )
    )


def _drawn(shots: Any) -> Scene:
    return render(shots[0]) if len(shots) == 1 else cut(*shots)
