"""Calm scenes for the comparison of a model, each with an edit of every kind."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import numpy as np

from storage.digest import digest_of
from tasks.errors import TaskInputError
from tasks.evaluation.clips.clip import Edit, EvaluationClip
from tasks.evaluation.clips.scene_clips import EDIT_KINDS, EDITED_ATTRIBUTE
from wave_ops.scenes.rendering import render
from wave_ops.scenes.sampling import HELD_OUT_SEED
from wave_ops.scenes.specs import SceneSpec, edit_spec, random_scene
from wave_ops.scenes.vocabulary import COLOURS, SHAPES, TEXTURES

__all__ = ["ONE_OBJECT", "model_clips"]

ONE_OBJECT: Final = "one object"
_TWO_OBJECTS_EVERY: Final = 9
_FRAMES: Final = 3
"""All of them keyframes, as far apart as the three keyframes of a clip of 17 frames."""
_SIZE: Final = (128, 128)
_SEEDS_APART: Final = 1_000


def model_clips(count: int, *, seed: int, batch: int = 0) -> tuple[EvaluationClip, ...]:
    """Draw held-out scenes, the ninth of every nine with two objects.

    Args:
        count: how many.
        seed: another seed gives other scenes.
        batch: another batch gives other scenes for any seed, so that settings chosen on one are measured on another.

    Raises:
        TaskInputError: if count is below 1 or above 1000.
    """
    if not 1 <= count <= _SEEDS_APART:
        raise TaskInputError(f"A model is measured on 1 to {_SEEDS_APART} scenes, got {count}.")
    first = HELD_OUT_SEED + (seed + (batch << 32)) * _SEEDS_APART
    return tuple(_clip(first + i, name=f"{i:03d}", two=i % _TWO_OBJECTS_EVERY == 8) for i in range(count))


def _clip(seed: int, *, name: str, two: bool) -> EvaluationClip:
    spec = random_scene(seed, size=_SIZE, frame_count=_FRAMES, objects=2 if two else 1)
    scene, edits = render(spec), tuple(_edit(spec, kind, seed) for kind in EDIT_KINDS)
    group = "two objects" if two else ONE_OBJECT
    return EvaluationClip(
        name=f"{group.replace(' ', '-')}-{name}",
        group=group,
        frames=scene.frames,
        caption=spec.caption,
        edits=edits,
        scene=scene,
        digest=digest_of("model clip", repr(spec), [edit.prompt for edit in edits]),
    )


def _edit(spec: SceneSpec, kind: str, seed: int) -> Edit:
    """Change one attribute of the first object or the background to a value that nothing else in the scene has."""
    colours = {item.colour for item in spec.objects} | {spec.background.colour}
    choices: dict[str, tuple[Collection[str], Collection[str]]] = {
        "colour": (COLOURS, colours),
        "shape": (SHAPES, {item.shape for item in spec.objects}),
        "background colour": (COLOURS, colours),
        "background texture": (TEXTURES, {spec.background.texture}),
    }
    known, taken = choices[kind]
    free = [value for value in known if value not in taken]
    place = np.random.default_rng([seed, EDIT_KINDS.index(kind)]).integers(len(free))
    chosen: dict[str, Any] = {EDITED_ATTRIBUTE[kind]: free[place]}
    edited = edit_spec(spec, **chosen)
    return Edit(kind=kind, prompt=edited.caption, truth=render(edited))
