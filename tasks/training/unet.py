"""Training of the embedded model's UNet together with its text encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
from prefect import task
from prefect.cache_policies import NO_CACHE
from torch import Tensor, nn

from tasks.training.files import load_average, load_tensors, train_with_checkpoints
from tasks.training.frames import trained_frames
from tasks.training.tokenizer import load_tokenizer
from wave_ops.training.batches import Captions, draw_batch
from wave_ops.training.loop import Training
from wave_ops.training.losses import denoiser_step_loss
from wave_ops.training.modules import build_text_encoder, build_unet
from wave_ops.training.schedules import Budget

__all__ = ["denoiser_parameters", "load_denoiser", "train_unet"]

_HARD_UNTIL: Final = 0.65
"""Fraction of the budget that includes hard frames; the learning rate begins to fall shortly before it."""


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
    """Train UNet and text encoder, from their checkpoint if there is one.

    While the learning rate falls, only calm frames are drawn: the last frames shape the samples most, and a sample
    with an object that leaves the frame does not match its prompt.

    Args:
        work_folder: folder of the checkpoint and the curve.
        latents_path: from `encode_training_frames`.
        tokenizer_folder: from `build_tokenizer`.
        budget: length of the training.
        seed: seed of the initial weights and of all batches.
        batch_size: samples per step.
        learning_rate: of AdamW, for everything but matrices.
        matrix_learning_rate: of Muon, for matrices.
        save_every: steps between two checkpoints.

    Returns:
        The checkpoint's path.
    """
    path = Path(work_folder) / "unet.safetensors"
    tensors, facts = load_tensors(Path(latents_path))
    tokenizer = load_tokenizer(tokenizer_folder)
    captions = Captions.of(tokenizer, facts["captions"])  # type: ignore[arg-type]
    torch.manual_seed(seed)
    unet, text_encoder = _build(tokenizer)
    training = Training(
        parameters=denoiser_parameters(unet, text_encoder),
        learning_rate=learning_rate,
        matrix_learning_rate=matrix_learning_rate,
        budget=budget,
    )
    seen = trained_frames(facts["captions"])  # type: ignore[arg-type]
    calm = _calm(seen, facts["hard"])

    def loss_at(step: int) -> Tensor:
        early = budget.progress(step, training.seconds) < _HARD_UNTIL
        batch = draw_batch(
            tensors["latents"], captions, candidates=seen if early else calm, size=batch_size, seed=(seed, step)
        )
        return denoiser_step_loss(unet, text_encoder, batch)

    train_with_checkpoints(path, training, loss_at, save_every=save_every)
    return str(path)


def load_denoiser(path: str, tokenizer_folder: str) -> tuple[Any, Any]:
    """Load the averaged UNet and text encoder of a checkpoint."""
    unet, text_encoder = _build(load_tokenizer(tokenizer_folder))
    load_average(Path(path), denoiser_parameters(unet, text_encoder))
    return unet.eval(), text_encoder.eval()


def _calm(frames: Tensor, hard: object) -> Tensor:
    """Return those of the frames (indices) that are not hard, or all of them if every one is hard."""
    marked = torch.tensor(hard, dtype=torch.bool)[frames]
    return frames if marked.all() else frames[~marked]


def _build(tokenizer: Any) -> tuple[nn.Module, nn.Module]:
    special = (tokenizer.bos_token_id, tokenizer.eos_token_id)
    encoder = build_text_encoder(len(tokenizer), length=tokenizer.model_max_length, special=special)
    return build_unet(), encoder.train()


def denoiser_parameters(unet: nn.Module, text_encoder: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of UNet and text encoder under the names that they have in a checkpoint."""
    return {
        **{f"unet.{name}": value for name, value in unet.named_parameters()},
        **{f"text_encoder.{name}": value for name, value in text_encoder.named_parameters()},
    }
