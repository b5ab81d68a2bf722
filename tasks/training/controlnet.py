"""Training of the embedded model's ControlNet on edges, with the UNet and the text encoder at rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from prefect import task
from prefect.cache_policies import NO_CACHE
from torch import Tensor

from tasks.training.files import load_average, load_tensors, train_with_checkpoints
from tasks.training.frames import load_frames
from tasks.training.tokenizer import load_tokenizer
from tasks.training.unet import load_denoiser
from wave_ops.edges import canny_edges
from wave_ops.training.batches import Captions, DiffusionBatch, draw_batch
from wave_ops.training.loop import Training
from wave_ops.training.losses import diffusion_loss
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
    """Train the ControlNet, from its checkpoint if there is one. Returns the checkpoint's path."""
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
        longest_memory=0.99,
    )

    everything = torch.arange(len(frames))

    def loss_at(step: int) -> Tensor:
        batch = draw_batch(tensors["latents"], captions, among=everything, size=batch_size, seed=(seed, step))
        edges = canny_edges(frames[batch.indices].numpy())
        noise_pred = _predict(unet, model, batch, hidden_states=text_encoder(batch.token_ids)[0], edges=edges)
        return diffusion_loss(noise_pred, batch.noise, weights=batch.weights)

    train_with_checkpoints(path, training, loss_at, save_every=save_every)
    return str(path)


def load_controlnet(path: str, unet: Any) -> Any:
    """The averaged ControlNet of a checkpoint, for the UNet that it was trained with."""
    model: Any = build_controlnet(unet)
    load_average(Path(path), dict(model.named_parameters()))
    return model.eval()


def _predict(unet: Any, model: Any, batch: DiffusionBatch, *, hidden_states: Tensor, edges: Tensor) -> Tensor:
    """The UNet's noise, steered by the ControlNet."""
    down, middle = model(batch.noisy, batch.timesteps, hidden_states, edges, return_dict=False)
    noise_pred: Tensor = unet(
        batch.noisy,
        batch.timesteps,
        hidden_states,
        down_block_additional_residuals=down,
        mid_block_additional_residual=middle,
        return_dict=False,
    )[0]
    return noise_pred
