"""Training of the embedded model's ControlNet on edges; UNet and text encoder are frozen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from prefect import task
from prefect.cache_policies import NO_CACHE
from torch import Tensor

from tasks.training.files import load_average, load_tensors, train_with_checkpoints
from tasks.training.frames import load_frames, trained_frames
from tasks.training.tokenizer import load_tokenizer
from tasks.training.unet import load_denoiser
from wave_ops.edges import canny_edges
from wave_ops.training.batches import Captions, draw_batch
from wave_ops.training.loop import Training
from wave_ops.training.losses import controlnet_step_loss
from wave_ops.training.modules import build_controlnet
from wave_ops.training.schedules import Budget

__all__ = ["load_controlnet", "train_controlnet"]


@task(name="Train the ControlNet", cache_policy=NO_CACHE, persist_result=False)
def train_controlnet(
    work_folder: str,
    *,
    frames_folder: str,
    latents_path: str,
    tokenizer_folder: str,
    unet_checkpoint: str,
    budget: Budget,
    seed: int,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    matrix_learning_rate: float = 0.01,
    save_every: int = 100,
) -> str:
    """Train the ControlNet, from its checkpoint if there is one.

    Args:
        work_folder: folder of the checkpoint and the curve.
        frames_folder: from `draw_frames`.
        latents_path: from `encode_training_frames`, for the same frames.
        tokenizer_folder: from `build_tokenizer`.
        unet_checkpoint: from `train_unet`.
        budget: length of the training.
        seed: seed of the initial weights and of all batches.
        batch_size: samples per step.
        learning_rate: of AdamW, for everything but matrices.
        matrix_learning_rate: of Muon, for matrices.
        save_every: steps between two checkpoints.

    Returns:
        The checkpoint's path.
    """
    path = Path(work_folder) / "controlnet.safetensors"
    frames, _ = load_frames(frames_folder)
    tensors, facts = load_tensors(Path(latents_path))
    captions = Captions.of(load_tokenizer(tokenizer_folder), facts["captions"])  # type: ignore[arg-type]
    unet, text_encoder = (part.requires_grad_(False) for part in load_denoiser(unet_checkpoint, tokenizer_folder))
    torch.manual_seed(seed)
    model: Any = build_controlnet(unet).requires_grad_(True)
    training = Training(
        parameters=dict(model.named_parameters()),
        learning_rate=learning_rate,
        matrix_learning_rate=matrix_learning_rate,
        budget=budget,
        max_decay=0.99,
    )
    seen = trained_frames(facts["captions"])  # type: ignore[arg-type]

    def loss_at(step: int) -> Tensor:
        batch = draw_batch(tensors["latents"], captions, candidates=seen, size=batch_size, seed=(seed, step))
        edges = canny_edges(frames[batch.indices].numpy())
        return controlnet_step_loss(model, unet, text_encoder, batch=batch, edges=edges)

    train_with_checkpoints(path, training, loss_at, save_every=save_every)
    return str(path)


def load_controlnet(path: str, unet: Any) -> Any:
    """Load the averaged ControlNet of a checkpoint, for the UNet that it was trained with."""
    model: Any = build_controlnet(unet)
    load_average(Path(path), dict(model.named_parameters()))
    return model.eval()
