"""Latents of the training frames, computed once, and the autoencoder rescaled to their statistics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL
from prefect import task
from prefect.cache_policies import NO_CACHE
from torch import Tensor

from storage.digest import digest_file
from tasks.training.files import load_tensors, save_tensors
from tasks.training.frames import load_frames
from tasks.training.vae import load_autoencoder
from wave_ops.training.latents import encode_latents, standardise_latents

__all__ = ["encode_training_frames", "encode_with_base"]


@task(name="Encode the training frames", cache_policy=NO_CACHE, persist_result=False)
def encode_training_frames(work_folder: str, frames_folder: str, vae_checkpoint: str) -> str:
    """Write the latents of all frames, standardised, and the autoencoder that encodes them so (folder `vae`).

    Latents of the same autoencoder and the same captions are not computed again.

    Returns:
        The path of the latents.
    """

    def encode(frames: Tensor) -> Tensor:
        model = load_autoencoder(vae_checkpoint)
        latents = standardise_latents(model, encode_latents(model, frames))
        model.save_pretrained(Path(work_folder) / "vae")
        return latents

    return _encode_once(work_folder, frames_folder, digest_file(vae_checkpoint), encode)


@task(name="Encode the training frames", cache_policy=NO_CACHE, persist_result=False)
def encode_with_base(work_folder: str, frames_folder: str) -> str:
    """Write the latents of all frames, from the autoencoder of a base model (folder `vae`), which stays as it is.

    Latents of the same autoencoder and the same captions are not computed again.

    Returns:
        The path of the latents.
    """
    folder = Path(work_folder) / "vae"

    def encode(frames: Tensor) -> Tensor:
        model: Any = AutoencoderKL.from_pretrained(folder, use_safetensors=True)
        return encode_latents(model.eval(), frames)

    return _encode_once(work_folder, frames_folder, digest_file(folder / "diffusion_pytorch_model.safetensors"), encode)


def _encode_once(work_folder: str, frames_folder: str, autoencoder: str, encode: Callable[[Tensor], Tensor]) -> str:
    path = Path(work_folder) / "latents.safetensors"
    frames, known = load_frames(frames_folder)
    facts = {**known, "autoencoder": autoencoder}
    if not path.exists() or load_tensors(path)[1] != facts:
        save_tensors(path, {"latents": encode(frames)}, facts=facts)
    return str(path)
