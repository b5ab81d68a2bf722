"""The embedded model: its size, and the quality that its card states."""

from __future__ import annotations

import numpy as np

from tasks.evaluation.clips.model_clips import model_clips
from tasks.evaluation.comparisons.comparison import Resources
from tasks.evaluation.comparisons.model_probe import Probe, drawing_scores
from tasks.models.checkpoints import EMBEDDED, resolve_model
from tasks.models.flow_estimators import resolve_flow
from tasks.models.loading import loaded_model
from wave_ops.diffusion import decode_latents, encode_frames
from wave_ops.scenes.rendering import render_frame
from wave_ops.scenes.specs import random_scene

HELD_OUT = 1_000_005_000


def test_it_is_small_and_contains_no_pickles() -> None:
    files = [path for path in EMBEDDED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 25e6
    assert {path.suffix for path in files} == {".json", ".txt", ".safetensors", ".md"}


def test_decoding_its_latents_restores_a_frame() -> None:
    with loaded_model(resolve_model("embedded"), device="cpu", dtype="float32") as model:
        side = round(model.native_area**0.5)
        specs = [random_scene(HELD_OUT + index, size=(side, side)) for index in range(8)]
        frames = np.stack([render_frame(spec, 0.5) for spec in specs])
        rebuilt = decode_latents(model, encode_frames(model, frames))
    noise = np.square(frames.astype(float) - rebuilt).mean()
    assert 10 * np.log10(255**2 / noise) > 30


def test_it_generates_the_colours_of_a_caption() -> None:
    resources = Resources(
        model=resolve_model("embedded"),
        controlnet=None,
        flow=resolve_flow("dis"),
        device="cpu",
        dtype="float32",
        seed=0,
    )
    found = [
        drawing_scores(Probe(clip, clip.scene, resources=resources, steps=12).draw(), clip.scene.shots[0])
        for clip in model_clips(4, seed=5)
        if clip.scene is not None
    ]
    assert np.mean([scores["generation, colour"] for scores in found]) >= 7 / 8
    assert np.mean([scores["generation, background colour"] for scores in found]) >= 7 / 8
