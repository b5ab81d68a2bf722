"""A clip of a comparison, and the edits requested of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from storage.digest import digest_of
from wave_ops.scenes import rendering
from wave_ops.scenes.rendering import Scene

__all__ = ["Edit", "EvaluationClip", "Frames", "split_shots"]

Frames: TypeAlias = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """One requested change of a clip."""

    kind: str
    """colour, shape, background colour or background texture on scenes; "prompt" on real clips."""
    prompt: str
    """Of a drawn clip of several shots: the prompt of each shot, joined by "then"."""
    truth: Scene | None = None
    """The clip as it would look after a perfect edit; None on real clips."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationClip:
    """A source clip with its edits, and the ground truth if it was drawn."""

    name: str
    group: str
    """The kind of difficulty: calm, hard motion, occlusion, two objects, cut; "real" for given videos."""
    frames: Frames
    """Source frames (time, height, width, 3), uint8."""
    caption: str
    """Of a drawn clip of several shots: the caption of each shot, joined by "then"."""
    edits: tuple[Edit, ...]
    scene: Scene | None = None
    cuts: tuple[int, ...] = ()
    """Indices of the first frame of each shot but the first."""
    mask: NDArray[np.bool_] | None = None
    """(time, height, width), at any size: what an edit of a real clip may change; None where it is not known."""
    digest: str = ""
    """Identity of all of the above."""


def split_shots(clip: EvaluationClip) -> tuple[EvaluationClip, ...]:
    """Return each shot as a clip of its own, as an edit sees it; the clip itself where it is one shot.

    A shot of a drawn clip has its own caption and prompts, a shot of a real one those of the clip.
    """
    if not clip.cuts:
        return (clip,)
    ends = list(zip((0, *clip.cuts), (*clip.cuts, len(clip.frames)), strict=True))
    scenes = [None] * len(ends) if clip.scene is None else list(rendering.split_shots(clip.scene))
    return tuple(
        replace(
            clip,
            name=f"{clip.name}, shot {number}",
            frames=clip.frames[start:stop],
            caption=clip.caption if scene is None else scene.caption,
            edits=tuple(_edit_of_shot(edit, number - 1) for edit in clip.edits),
            scene=scene,
            cuts=(),
            mask=None if clip.mask is None else clip.mask[start:stop],
            digest=clip.digest and digest_of(clip.digest, number),
        )
        for number, ((start, stop), scene) in enumerate(zip(ends, scenes, strict=True), start=1)
    )


def _edit_of_shot(edit: Edit, shot: int) -> Edit:
    if edit.truth is None:
        return edit
    truth = rendering.split_shots(edit.truth)[shot]
    return replace(edit, prompt=truth.caption, truth=truth)
