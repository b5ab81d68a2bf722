"""Training of the embedded model's UNet together with its text encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from prefect import task
from prefect.cache_policies import NO_CACHE
from torch import Tensor, nn

from tasks.train_files import load_average, load_tensors, train_with_checkpoints
from tasks.train_tokenizer import load_tokenizer
from wave_ops.scenes.vocabulary import without_plain
from wave_ops.training.loop import Training
from wave_ops.training.losses import diffusion_loss, min_snr_weights
from wave_ops.training.modules import build_scheduler, build_text_encoder, build_unet
from wave_ops.training.schedules import Budget, noised, stratified_timesteps

__all__ = ["Captions", "DiffusionBatch", "draw_batch", "load_denoiser", "train_unet"]

_HARD_UNTIL: Final = 0.65
"""Part of the budget with hard frames among the others; soon before it the learning rate has begun to fall."""


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


@task(name="Train the UNet and the text encoder", cache_policy=NO_CACHE, persist_result=False)
def train_unet(
    work_folder: str,
    latents_path: str,
    tokenizer_folder: str,
    *,
    budget: Budget,
    seed: int,
    batch_size: int = 32,
    learning_rate: float = 1.5e-3,
    matrix_learning_rate: float = 0.02,
    save_every: int = 200,
) -> str:
    """Train UNet and text encoder, from their checkpoint if there is one. Returns the checkpoint's path.

    While the learning rate falls only calm frames are shown: what is seen last is what the model draws, and an object
    that leaves the frame is no answer to a prompt.
    """
    path = Path(work_folder) / "unet.safetensors"
    tensors, facts = load_tensors(Path(latents_path))
    tokenizer = load_tokenizer(tokenizer_folder)
    captions = Captions.of(tokenizer, facts["captions"])  # type: ignore[arg-type]
    torch.manual_seed(seed)
    unet, text_encoder = _build(tokenizer)
    training = Training(
        parameters=_parameters(unet, text_encoder),
        learning_rate=learning_rate,
        matrix_learning_rate=matrix_learning_rate,
        budget=budget,
    )

    everything, calm = torch.arange(len(tensors["latents"])), _calm(facts["hard"])

    def loss_at(step: int) -> Tensor:
        early = budget.progress(step, training.seconds) < _HARD_UNTIL
        batch = draw_batch(
            tensors["latents"], captions, among=everything if early else calm, size=batch_size, seed=(seed, step)
        )
        hidden_states = text_encoder(batch.token_ids)[0]
        noise_pred = unet(batch.noisy, batch.timesteps, hidden_states, return_dict=False)[0]
        return diffusion_loss(noise_pred, batch.noise, weights=batch.weights)

    train_with_checkpoints(path, training, loss_at, save_every=save_every)
    return str(path)


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


def load_denoiser(path: str, tokenizer_folder: str) -> tuple[Any, Any]:
    """The averaged UNet and text encoder of a checkpoint."""
    unet, text_encoder = _build(load_tokenizer(tokenizer_folder))
    load_average(Path(path), _parameters(unet, text_encoder))
    return unet.eval(), text_encoder.eval()


def _calm(hard: object) -> Tensor:
    """The frames that are not hard, or all where every one is."""
    marked = torch.tensor(hard, dtype=torch.bool)
    return torch.arange(len(marked)) if marked.all() else (~marked).nonzero().flatten()


def _build(tokenizer: Any) -> tuple[nn.Module, nn.Module]:
    special = (tokenizer.bos_token_id, tokenizer.eos_token_id)
    encoder = build_text_encoder(len(tokenizer), length=tokenizer.model_max_length, special=special)
    return build_unet(), encoder.train()


def _parameters(unet: nn.Module, text_encoder: nn.Module) -> dict[str, nn.Parameter]:
    return {
        **{f"unet.{name}": value for name, value in unet.named_parameters()},
        **{f"text_encoder.{name}": value for name, value in text_encoder.named_parameters()},
    }
