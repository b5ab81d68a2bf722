"""What a trained model can do, in figures: on scenes that it was not trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from prefect import task
from prefect.cache_policies import NO_CACHE
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from tasks.train_frames import HELD_OUT_SEED
from tasks.train_latents import encode_frames
from wave_ops.scenes.reading import Attributes, read_attributes
from wave_ops.scenes.rendering import render_frame
from wave_ops.scenes.specs import SceneSpec, edit_spec, random_scene
from wave_ops.scenes.vocabulary import COLOURS
from wave_ops.training.sampling import ddim_walk

__all__ = ["Parts", "generate", "load_parts", "measure_model", "swap_prompts"]

_BATCH: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A model's parts, loaded for inference in float32."""

    tokenizer: Any
    text_encoder: Any
    vae: Any
    unet: Any
    alphas_cumprod: Tensor


def load_parts(folder: str | Path) -> Parts:
    """The parts of a folder in the diffusers layout."""
    root = str(folder)
    return Parts(
        tokenizer=CLIPTokenizer.from_pretrained(root, subfolder="tokenizer"),
        text_encoder=CLIPTextModel.from_pretrained(root, subfolder="text_encoder").float().eval(),
        vae=AutoencoderKL.from_pretrained(root, subfolder="vae").float().eval(),
        unet=UNet2DConditionModel.from_pretrained(root, subfolder="unet").float().eval(),
        alphas_cumprod=DDIMScheduler.from_pretrained(root, subfolder="scheduler").alphas_cumprod,
    )


@task(name="Measure the model", cache_policy=NO_CACHE, persist_result=False)
def measure_model(folder: str, *, scenes: int = 100, steps: int = 50, guidance_scale: float = 5.0) -> dict[str, float]:
    """Round trip and inversion in dB; how often generation and prompt-swap edits show what was asked for, 0 to 1."""
    parts = load_parts(folder)
    specs = [random_scene(HELD_OUT_SEED + index) for index in range(scenes)]
    frames = np.stack([render_frame(spec, 0.5) for spec in specs])
    latents = encode_frames(parts.vae, torch.from_numpy(frames))
    round_trip = decode(parts, latents)
    captions = [spec.caption for spec in specs]
    drawn = generate(parts, captions, steps=steps, guidance_scale=guidance_scale)
    rebuilt = swap_prompts(parts, latents, source=captions, target=captions, steps=steps, guidance_scale=1.0)
    edited = [_recoloured(spec, index) for index, spec in enumerate(specs)]
    targets = [spec.caption for spec in edited]
    swapped = swap_prompts(parts, latents, source=captions, target=targets, steps=steps, guidance_scale=guidance_scale)
    return {
        "round_trip_psnr": _psnr(round_trip, frames),
        "inversion_psnr": _psnr(rebuilt, frames),
        "inversion_psnr_against_round_trip": _psnr(rebuilt, round_trip),
        **{f"generation_{name}": share for name, share in _accuracy(drawn, specs).items()},
        **{f"recolouring_{name}": share for name, share in _accuracy(swapped, edited).items()},
    }


@torch.no_grad()
def generate(
    parts: Parts, captions: Sequence[str], *, steps: int, guidance_scale: float, seed: int = 0
) -> npt.NDArray[np.uint8]:
    """Frames drawn from noise for captions."""
    side, channels = parts.unet.config.sample_size, parts.unet.config.in_channels
    noise = torch.randn((len(captions), channels, side, side), generator=torch.Generator().manual_seed(seed))
    return decode(parts, _walk(parts, noise, captions, steps=steps, guidance_scale=guidance_scale))


def swap_prompts(
    parts: Parts,
    latents: Tensor,
    *,
    source: Sequence[str],
    target: Sequence[str],
    steps: int,
    guidance_scale: float,
) -> npt.NDArray[np.uint8]:
    """Frames inverted under one caption and drawn again under another: the plainest edit there is."""
    noise = _walk(parts, latents, source, steps=steps, guidance_scale=1.0, invert=True)
    return decode(parts, _walk(parts, noise, target, steps=steps, guidance_scale=guidance_scale))


@torch.no_grad()
def decode(parts: Parts, latents: Tensor) -> npt.NDArray[np.uint8]:
    """uint8 frames (frame, height, width, 3) of scaled latents."""
    scaled = latents / parts.vae.config.scaling_factor
    pixels = torch.cat([parts.vae.decode(part).sample for part in scaled.split(_BATCH)])
    levels = (pixels.clamp(-1, 1) + 1) * 127.5
    frames: npt.NDArray[np.uint8] = levels.round().byte().permute(0, 2, 3, 1).numpy()
    return frames


def _walk(
    parts: Parts, latents: Tensor, captions: Sequence[str], *, steps: int, guidance_scale: float, invert: bool = False
) -> Tensor:
    walked = []
    for first in range(0, len(captions), _BATCH):
        predict = _guided(parts, captions[first : first + _BATCH], guidance_scale)
        part = latents[first : first + _BATCH]
        walked.append(ddim_walk(predict, part, alphas_cumprod=parts.alphas_cumprod, steps=steps, invert=invert))
    return torch.cat(walked)


def _guided(parts: Parts, captions: Sequence[str], guidance_scale: float) -> Callable[[Tensor, int], Tensor]:
    with torch.no_grad():
        wanted, empty = _embed(parts, captions), _embed(parts, [""]).expand(len(captions), -1, -1)

    def predict(latents: Tensor, timestep: int) -> Tensor:
        if guidance_scale == 1:
            plain: Tensor = parts.unet(latents, timestep, wanted, return_dict=False)[0]
            return plain
        both = torch.cat([empty, wanted])
        uncond, cond = parts.unet(latents.repeat(2, 1, 1, 1), timestep, both, return_dict=False)[0].chunk(2)
        guided: Tensor = uncond + guidance_scale * (cond - uncond)
        return guided

    return predict


def _embed(parts: Parts, captions: Sequence[str]) -> Tensor:
    length = parts.tokenizer.model_max_length
    read = parts.tokenizer(
        list(captions), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
    )
    hidden_states: Tensor = parts.text_encoder(read.input_ids)[0]
    return hidden_states


def _recoloured(spec: SceneSpec, index: int) -> SceneSpec:
    taken = (spec.objects[0].colour, spec.background.colour)
    free = [colour for colour in COLOURS if colour not in taken]
    return edit_spec(spec, colour=free[index % len(free)])


def _accuracy(frames: npt.NDArray[np.uint8], specs: Sequence[SceneSpec]) -> dict[str, float]:
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


def _psnr(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> float:
    squared = np.square(a.astype(np.float64) - b).mean(axis=(1, 2, 3))
    return float(np.mean(10 * np.log10(255**2 / np.maximum(squared, 1e-9))))
