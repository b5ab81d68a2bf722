"""What a trained model can do, in figures: on scenes that it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.train_drawing import decode, generate, load_parts, swap_prompts
from tasks.train_frames import HELD_OUT_SEED
from tasks.train_latents import encode_frames
from wave_ops.edges import canny_edges
from wave_ops.scenes.reading import Attributes, find_object, read_attributes
from wave_ops.scenes.rendering import render_frame
from wave_ops.scenes.specs import SceneSpec, edit_spec, random_scene
from wave_ops.scenes.vocabulary import COLOURS

__all__ = ["measure_model"]

_Frames = npt.NDArray[np.uint8]


@task(name="Measure the model", cache_policy=NO_CACHE, persist_result=False)
def measure_model(folder: str, *, scenes: int = 100, steps: int = 50, guidance_scale: float = 5.0) -> dict[str, float]:
    """Round trip and inversion in dB; how often drawing and prompt-swap edits show what was asked for, 0 to 1.

    Overlaps are those of the object's region with where it should be, intersection over union.
    """
    parts = load_parts(folder)
    specs = [random_scene(HELD_OUT_SEED + index) for index in range(scenes)]
    edited = [_recoloured(spec, index) for index, spec in enumerate(specs)]
    frames, targets = _drawn(specs), _drawn(edited)
    captions, wishes = [spec.caption for spec in specs], [spec.caption for spec in edited]
    latents = encode_frames(parts.vae, torch.from_numpy(frames))
    round_trip = decode(parts, latents)
    free = generate(parts, captions, steps=steps, guidance_scale=guidance_scale)
    steered = generate(parts, captions, steps=steps, guidance_scale=guidance_scale, edges=canny_edges(frames))
    rebuilt = swap_prompts(parts, latents, source=captions, target=captions, steps=steps, guidance_scale=1.0)
    swapped = swap_prompts(parts, latents, source=captions, target=wishes, steps=steps, guidance_scale=guidance_scale)
    return {
        "round_trip_psnr": _psnr(round_trip, frames),
        "inversion_psnr": _psnr(rebuilt, frames),
        "inversion_psnr_against_round_trip": _psnr(rebuilt, round_trip),
        **{f"generation_{name}": share for name, share in _accuracy(free, specs).items()},
        "generation_overlap": _overlap(free, frames, specs),
        "steered_overlap": _overlap(steered, frames, specs),
        **{f"recolouring_{name}": share for name, share in _accuracy(swapped, edited).items()},
        "recolouring_overlap": _overlap(swapped, targets, edited),
    }


def _drawn(specs: Sequence[SceneSpec]) -> _Frames:
    return np.stack([render_frame(spec, 0.5) for spec in specs])


def _recoloured(spec: SceneSpec, index: int) -> SceneSpec:
    taken = (spec.objects[0].colour, spec.background.colour)
    free = [colour for colour in COLOURS if colour not in taken]
    return edit_spec(spec, colour=free[index % len(free)])


def _accuracy(frames: _Frames, specs: Sequence[SceneSpec]) -> dict[str, float]:
    wanted = [
        Attributes(
            colour=spec.objects[0].colour,
            shape=spec.objects[0].shape,
            background_colour=spec.background.colour,
            background_texture=spec.background.texture,
        )
        for spec in specs
    ]
    found = [read_attributes(frame) for frame in frames]
    names = ("colour", "shape", "background_colour", "background_texture")
    return {
        name: float(np.mean([getattr(a, name) == getattr(b, name) for a, b in zip(found, wanted, strict=True)]))
        for name in names
    }


def _overlap(frames: _Frames, truth: _Frames, specs: Sequence[SceneSpec]) -> float:
    """Mean intersection over union of the objects found in frames and in the true ones."""
    shares = []
    for frame, true, spec in zip(frames, truth, specs, strict=True):
        colour, ground = spec.objects[0].colour, spec.background.colour
        found, wanted = (find_object(picture, colour=colour, background=ground) for picture in (frame, true))
        shares.append((found & wanted).sum() / (found | wanted).sum())
    return float(np.mean(shares))


def _psnr(a: _Frames, b: _Frames) -> float:
    squared = np.square(a.astype(np.float64) - b).mean(axis=(1, 2, 3))
    return float(np.mean(10 * np.log10(255**2 / np.maximum(squared, 1e-9))))
