"""Latents of the training frames, computed once, and the autoencoder that gives them mean 0 and spread 1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from prefect import task
from prefect.cache_policies import NO_CACHE
from torch import Tensor

from storage.digest import digest_file
from tasks.training.files import load_tensors, save_tensors
from tasks.training.frames import load_frames
from tasks.training.vae import load_autoencoder
from wave_ops.training.batches import to_pixels
from wave_ops.training.modules import fold_latent_statistics

__all__ = ["encode_latents", "encode_training_frames"]


@task(name="Encode the training frames", cache_policy=NO_CACHE, persist_result=False)
def encode_training_frames(work_folder: str, frames_folder: str, vae_checkpoint: str) -> str:
    """Write the rescaled autoencoder (folder `vae`) and the latents of all frames. Returns the latents' path.

    Latents that the same autoencoder gave for as many frames are kept.
    """
    folder = Path(work_folder)
    path, identity = folder / "latents.safetensors", digest_file(vae_checkpoint)
    frames, known = load_frames(frames_folder)
    facts = {**known, "autoencoder": identity}
    if path.exists() and load_tensors(path)[1] == facts:
        return str(path)
    model = load_autoencoder(vae_checkpoint)
    latents = encode_latents(model, frames) / model.config.scaling_factor
    mean, spread = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    fold_latent_statistics(model, mean=mean, spread=spread)
    model.save_pretrained(folder / "vae")
    # What the rescaled model would give: encoding everything a second time would only take longer.
    scaled = (latents - mean.view(1, -1, 1, 1)) / spread.view(1, -1, 1, 1)
    save_tensors(path, {"latents": scaled}, facts=facts)
    return str(path)


@torch.no_grad()
def encode_latents(model: Any, frames: Tensor, *, batch_size: int = 8) -> Tensor:
    """Scaled posterior means (frame, channel, height, width) of uint8 frames."""
    means = [model.encode(to_pixels(part)).latent_dist.mean for part in frames.split(batch_size)]
    return torch.cat(means) * float(model.config.scaling_factor)
