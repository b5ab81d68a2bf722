"""Batches of a training step, which depend on the seed and the step alone: a resumed training draws the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor

from wave_ops.scenes.vocabulary import without_plain
from wave_ops.training.modules import build_scheduler
from wave_ops.training.schedules import add_noise, min_snr_weights, stratified_timesteps

__all__ = ["Captions", "DiffusionBatch", "draw_batch", "draw_frame_batch", "to_pixels"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Captions:
    """Token ids of the captions of all frames, in two forms, and of the empty text."""

    full: Int64[Tensor, "frame length"]
    short: Int64[Tensor, "frame length"]
    """Of the same captions without the word "plain"."""
    empty: Int64[Tensor, "1 length"]

    @classmethod
    def of(cls, tokenizer: Any, captions: Sequence[str]) -> Captions:
        """Tokenize captions, padded to the length of the tokenizer (a CLIPTokenizer)."""

        def ids(texts: list[str]) -> Tensor:
            tokens = tokenizer(
                texts, padding="max_length", truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt"
            )
            found: Tensor = tokens.input_ids
            return found

        return cls(full=ids(list(captions)), short=ids([without_plain(text) for text in captions]), empty=ids([""]))

    def draw(
        self, indices: Int64[Tensor, "batch"], *, generator: torch.Generator, empty_fraction: float = 0.1
    ) -> Int64[Tensor, "batch length"]:
        """Draw one form of each caption: the full or the short one, equally often, or the empty text.

        Args:
            indices: frames of the captions.
            generator: source of the random numbers.
            empty_fraction: probability of the empty text, which trains the unconditional branch of guidance.
        """
        chance = torch.rand((2, len(indices), 1), generator=generator)
        chosen = torch.where(chance[0] < 0.5, self.full[indices], self.short[indices])
        return torch.where(chance[1] < empty_fraction, self.empty, chosen)


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusionBatch:
    """Inputs of one training step of the UNet or the ControlNet."""

    indices: Int64[Tensor, "batch"]
    """Frames of the batch."""
    token_ids: Int64[Tensor, "batch length"]
    noise: Float[Tensor, "batch channel height width"]
    noisy: Float[Tensor, "batch channel height width"]
    """Latents with `noise` added at `timesteps`."""
    timesteps: Int64[Tensor, "batch"]
    weights: Float[Tensor, "batch"]
    """Min-SNR weights of the samples' losses."""


def draw_batch(
    latents: Float[Tensor, "frame channel height width"],
    captions: Captions,
    *,
    candidates: Int64[Tensor, "candidate"],
    size: int,
    seed: tuple[int, int],
) -> DiffusionBatch:
    """Draw frames with replacement, with a caption, noise and a timestep for each.

    Args:
        latents: latents of all frames, scaled to mean 0 and standard deviation 1.
        captions: captions of all frames.
        candidates: indices of the frames to draw from.
        size: number of samples.
        seed: seed of the training, and step.
    """
    generator = _generator(seed)
    alphas_cumprod = build_scheduler().alphas_cumprod
    indices = candidates[torch.randint(len(candidates), (size,), generator=generator)]
    timesteps = stratified_timesteps(size, total=len(alphas_cumprod), generator=generator)
    noise = torch.randn((size, *latents.shape[1:]), generator=generator)
    return DiffusionBatch(
        indices=indices,
        token_ids=captions.draw(indices, generator=generator),
        noise=noise,
        noisy=add_noise(latents[indices], noise, alphas_cumprod=alphas_cumprod, timesteps=timesteps),
        timesteps=timesteps,
        weights=min_snr_weights(alphas_cumprod, timesteps),
    )


def to_pixels(frames: UInt8[Tensor, "frame height width 3"]) -> Float32[Tensor, "frame 3 height width"]:
    """Convert frames from 0 to 255 into the autoencoder's input in [-1, 1]."""
    return frames.permute(0, 3, 1, 2).float() / 127.5 - 1


def draw_frame_batch(
    frames: UInt8[Tensor, "frame height width 3"], size: int, *, crop: bool, seed: tuple[int, int]
) -> Float32[Tensor, "batch 3 rows columns"]:
    """Draw a batch for the autoencoder with replacement, in [-1, 1].

    Args:
        frames: square frames.
        size: number of crops.
        crop: draw `size` crops of half the frames' side, all from one position; else a quarter as many whole frames,
            as many pixels.
        seed: seed of the training, and step.
    """
    generator = _generator(seed)
    chosen = frames[torch.randint(len(frames), (size if crop else max(size // 4, 1),), generator=generator)]
    if crop:
        side = frames.shape[1] // 2
        top, left = torch.randint(side + 1, (2,), generator=generator).tolist()
        chosen = chosen[:, top : top + side, left : left + side]
    return to_pixels(chosen)


def _generator(seed: tuple[int, int]) -> torch.Generator:
    return torch.Generator().manual_seed(seed[0] * 10_000_019 + seed[1])
