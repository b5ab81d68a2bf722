"""Latents of the training frames, computed once, and the autoencoder rescaled to their statistics."""

from __future__ import annotations

from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from storage.digest import digest_file
from tasks.training.files import load_tensors, save_tensors
from tasks.training.frames import load_frames
from tasks.training.vae import load_autoencoder
from wave_ops.training.latents import encode_latents, standardise_latents

__all__ = ["encode_training_frames"]


@task(name="Encode the training frames", cache_policy=NO_CACHE, persist_result=False)
def encode_training_frames(work_folder: str, frames_folder: str, vae_checkpoint: str) -> str:
    """Write the latents of all frames, standardised, and the autoencoder that encodes them so (folder `vae`).

    Latents of the same autoencoder and the same captions are not computed again.

    Returns:
        The path of the latents.
    """
    folder = Path(work_folder)
    path, identity = folder / "latents.safetensors", digest_file(vae_checkpoint)
    frames, known = load_frames(frames_folder)
    facts = {**known, "autoencoder": identity}
    if path.exists() and load_tensors(path)[1] == facts:
        return str(path)
    model = load_autoencoder(vae_checkpoint)
    latents = standardise_latents(model, encode_latents(model, frames))
    model.save_pretrained(folder / "vae")
    save_tensors(path, {"latents": latents}, facts=facts)
    return str(path)
