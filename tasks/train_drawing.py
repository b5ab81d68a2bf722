"""Drawing with a model as it comes out of training: plain DDIM, with nothing of the editing pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from wave_ops.training.sampling import ddim_walk

__all__ = ["Parts", "decode", "generate", "load_parts", "swap_prompts"]

_BATCH: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A model's parts, loaded for inference in float32."""

    tokenizer: Any
    text_encoder: Any
    vae: Any
    unet: Any
    controlnet: Any
    alphas_cumprod: Tensor


def load_parts(folder: str | Path) -> Parts:
    """The parts of a folder in the diffusers layout."""
    root = Path(folder)

    def network(family: Any, name: str) -> Any:
        quiet = {} if family is CLIPTextModel else {"low_cpu_mem_usage": False}
        return family.from_pretrained(root / name, use_safetensors=True, **quiet).float().eval()

    return Parts(
        tokenizer=CLIPTokenizer.from_pretrained(root / "tokenizer"),
        text_encoder=network(CLIPTextModel, "text_encoder"),
        vae=network(AutoencoderKL, "vae"),
        unet=network(UNet2DConditionModel, "unet"),
        controlnet=network(ControlNetModel, "controlnet"),
        alphas_cumprod=DDIMScheduler.from_pretrained(root / "scheduler").alphas_cumprod,
    )


def generate(
    parts: Parts,
    captions: Sequence[str],
    *,
    steps: int,
    guidance_scale: float,
    edges: Tensor | None = None,
    seed: int = 0,
) -> npt.NDArray[np.uint8]:
    """Frames drawn from noise for captions, steered by edges (caption, 3, height, width) if there are any."""
    side, channels = parts.unet.config.sample_size, parts.unet.config.in_channels
    noise = torch.randn((len(captions), channels, side, side), generator=torch.Generator().manual_seed(seed))
    return decode(parts, _walk(parts, noise, captions, steps=steps, guidance_scale=guidance_scale, edges=edges))


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
    noise = _walk(parts, latents, source, steps=steps, invert=True)
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
    parts: Parts,
    latents: Tensor,
    captions: Sequence[str],
    *,
    steps: int,
    guidance_scale: float = 1.0,
    edges: Tensor | None = None,
    invert: bool = False,
) -> Tensor:
    """Clean latents from noise, or noise from clean latents, a batch at a time."""
    walked = []
    for first in range(0, len(captions), _BATCH):
        part = slice(first, first + _BATCH)
        predict = _predictor(
            parts, captions[part], guidance_scale=guidance_scale, edges=None if edges is None else edges[part]
        )
        walked.append(
            ddim_walk(predict, latents[part], alphas_cumprod=parts.alphas_cumprod, steps=steps, invert=invert)
        )
    return torch.cat(walked)


def _predictor(
    parts: Parts, captions: Sequence[str], *, guidance_scale: float, edges: Tensor | None
) -> Callable[[Tensor, int], Tensor]:
    """The guided noise prediction for captions; at guidance 1 the empty text is not asked."""
    guided = guidance_scale != 1
    hidden_states = _embed(parts, [*([""] * len(captions) if guided else []), *captions])
    branches = 2 if guided else 1

    def predict(latents: Tensor, timestep: int) -> Tensor:
        repeated = latents.repeat(branches, 1, 1, 1)
        asked = (repeated, timestep, hidden_states)
        steering = {} if edges is None else _steering(parts, asked, edges)
        noise_pred: Tensor = parts.unet(*asked, return_dict=False, **steering)[0]
        if not guided:
            return noise_pred
        uncond, cond = noise_pred.chunk(2)
        return uncond + guidance_scale * (cond - uncond)

    return predict


def _steering(parts: Parts, asked: tuple[Tensor, int, Tensor], edges: Tensor) -> dict[str, object]:
    """What the ControlNet adds to the UNet's features."""
    pictures = edges.repeat(len(asked[0]) // len(edges), 1, 1, 1)
    down, middle = parts.controlnet(*asked, pictures, return_dict=False)
    return {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}


@torch.no_grad()
def _embed(parts: Parts, captions: Sequence[str]) -> Tensor:
    length = parts.tokenizer.model_max_length
    read = parts.tokenizer(
        list(captions), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
    )
    hidden_states: Tensor = parts.text_encoder(read.input_ids)[0]
    return hidden_states
