"""Training of the embedded model's autoencoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
from prefect import task
from prefect.cache_policies import NO_CACHE
from torch import Tensor

from tasks.training.files import load_average, train_with_checkpoints
from tasks.training.frames import load_frames
from wave_ops.training.batches import draw_frame_batch
from wave_ops.training.loop import Training
from wave_ops.training.losses import autoencoder_step_loss
from wave_ops.training.modules import build_autoencoder
from wave_ops.training.schedules import Budget

__all__ = ["load_autoencoder", "train_vae"]

_CROP_FRACTION: Final = 0.8
"""Fraction of the budget that is trained on crops."""


@task(name="Train the autoencoder", cache_policy=NO_CACHE, persist_result=False)
def train_vae(
    work_folder: str,
    frames_folder: str,
    *,
    budget: Budget,
    seed: int,
    batch_size: int = 16,
    learning_rate: float = 1.5e-3,
    matrix_learning_rate: float = 0.01,
    save_every: int = 200,
) -> str:
    """Train the autoencoder, from its checkpoint if there is one.

    The first four fifths of the budget use square crops of half the side, four times as many as the whole frames
    of the rest: as many pixels per step, from more frames.

    Args:
        work_folder: folder of the checkpoint and the curve.
        frames_folder: from `draw_frames`.
        budget: length of the training.
        seed: seed of the initial weights and of all batches.
        batch_size: crops per step.
        learning_rate: of AdamW, for everything but matrices.
        matrix_learning_rate: of Muon, for matrices.
        save_every: steps between two checkpoints.

    Returns:
        The checkpoint's path.
    """
    path = Path(work_folder) / "vae.safetensors"
    frames, _ = load_frames(frames_folder)
    torch.manual_seed(seed)
    model = build_autoencoder()
    training = Training(
        parameters=dict(model.named_parameters()),
        learning_rate=learning_rate,
        matrix_learning_rate=matrix_learning_rate,
        budget=budget,
    )

    def loss_at(step: int) -> Tensor:
        crop = budget.progress(step, training.seconds) < _CROP_FRACTION
        return autoencoder_step_loss(model, draw_frame_batch(frames, batch_size, crop=crop, seed=(seed, step)))

    train_with_checkpoints(path, training, loss_at, save_every=save_every)
    return str(path)


def load_autoencoder(path: str) -> Any:
    """Load the averaged autoencoder of a checkpoint."""
    model = build_autoencoder()
    load_average(Path(path), dict(model.named_parameters()))
    return model.eval()
