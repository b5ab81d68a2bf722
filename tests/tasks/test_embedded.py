"""The model that is shipped: whole, small, and able to do what its card says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tasks.train_drawing import Parts, decode, generate, load_parts
from tasks.train_frames import HELD_OUT_SEED
from tasks.train_latents import encode_frames
from wave_ops.scenes.reading import read_attributes
from wave_ops.scenes.rendering import render_frame
from wave_ops.scenes.specs import random_scene

EMBEDDED = Path(__file__).parents[2] / "tasks" / "embedded"
SPECS = [random_scene(HELD_OUT_SEED + 5_000 + index) for index in range(8)]


@pytest.fixture(scope="module")
def parts() -> Parts:
    return load_parts(EMBEDDED)


def test_it_is_small_and_holds_no_pickles() -> None:
    files = [path for path in EMBEDDED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 25e6
    assert {path.suffix for path in files} == {".json", ".txt", ".safetensors", ".md"}


def test_its_latents_carry_a_frame(parts: Parts) -> None:
    frames = np.stack([render_frame(spec, 0.5) for spec in SPECS])
    rebuilt = decode(parts, encode_frames(parts.vae, torch.from_numpy(frames)))
    noise = np.square(frames.astype(float) - rebuilt).mean()
    assert 10 * np.log10(255**2 / noise) > 33


def test_it_draws_what_a_caption_says(parts: Parts) -> None:
    drawn = generate(parts, [spec.caption for spec in SPECS], steps=12, guidance_scale=5.0)
    right = 0
    for frame, spec in zip(drawn, SPECS, strict=True):
        found = read_attributes(frame)
        right += (found.colour, found.background_colour) == (spec.objects[0].colour, spec.background.colour)
    assert right >= 7
