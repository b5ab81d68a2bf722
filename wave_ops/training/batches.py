"""The batches of a training step: functions of the seed and the step alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wave_ops.scenes.vocabulary import without_plain
from wave_ops.training.losses import min_snr_weights
from wave_ops.training.modules import build_scheduler
from wave_ops.training.schedules import noised, stratified_timesteps

__all__ = ["Captions", "DiffusionBatch", "draw_batch", "draw_frame_batch", "to_pixels"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Captions:
    """Token ids (caption, length) of the captions, of their shorter forms, and of the empty text."""

    full: Tensor
    short: Tensor
    empty: Tensor

    @classmethod
    def of(cls, tokenizer: Any, captions: Sequence[str]) -> Captions:
        """The ids that a tokenizer gives, padded to its own length."""

        def ids(texts: list[str]) -> Tensor:
            read = tokenizer(
                texts, padding="max_length", truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt"
            )
            found: Tensor = read.input_ids
            return found

        return cls(full=ids(list(captions)), short=ids([without_plain(text) for text in captions]), empty=ids([""]))

    def draw(self, indices: Tensor, *, generator: torch.Generator, empty_share: float = 0.1) -> Tensor:
        """One form of each caption at random, a tenth of them empty."""
        chance = torch.rand((2, len(indices), 1), generator=generator)
        chosen = torch.where(chance[0] < 0.5, self.full[indices], self.short[indices])
        return torch.where(chance[1] < empty_share, self.empty, chosen)


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusionBatch:
    """What one step of training reads; a function of the seed and the step alone."""

    indices: Tensor
    token_ids: Tensor
    noise: Tensor
    noisy: Tensor
    timesteps: Tensor
    weights: Tensor


def draw_batch(
    latents: Tensor, captions: Captions, *, among: Tensor, size: int, seed: tuple[int, int]
) -> DiffusionBatch:
    """Latents, captions, noise and timesteps of one step of a seeded training, of frames `among` all."""
    generator = torch.Generator().manual_seed(seed[0] * 10_000_019 + seed[1])
    alphas_cumprod = build_scheduler().alphas_cumprod
    indices = among[torch.randint(len(among), (size,), generator=generator)]
    timesteps = stratified_timesteps(size, total=len(alphas_cumprod), generator=generator)
    noise = torch.randn((size, *latents.shape[1:]), generator=generator)
    return DiffusionBatch(
        indices=indices,
        token_ids=captions.draw(indices, generator=generator),
        noise=noise,
        noisy=noised(latents[indices], noise, alphas_cumprod=alphas_cumprod, timesteps=timesteps),
        timesteps=timesteps,
        weights=min_snr_weights(alphas_cumprod, timesteps),
    )


def to_pixels(frames: Tensor) -> Tensor:
    """uint8 (frame, height, width, 3) to what the autoencoder reads: (frame, 3, height, width) in [-1, 1]."""
    return frames.permute(0, 3, 1, 2).float() / 127.5 - 1


def draw_frame_batch(frames: Tensor, size: int, *, cut: bool, seed: tuple[int, int]) -> Tensor:
    """Cut-outs of half the frames' side, or a quarter as many whole frames."""
    generator = torch.Generator().manual_seed(seed[0] * 10_000_019 + seed[1])
    chosen = frames[torch.randint(len(frames), (size if cut else max(size // 4, 1),), generator=generator)]
    if cut:
        side = frames.shape[1] // 2
        top, left = torch.randint(side + 1, (2,), generator=generator).tolist()
        chosen = chosen[:, top : top + side, left : left + side]
    return to_pixels(chosen)
