"""Flow that trains the embedded model from scratch."""

from __future__ import annotations

from pathlib import Path

import torch
from prefect import flow

from flows.settings import TrainSettings
from tasks.training.base import take_base
from tasks.training.card import write_card
from tasks.training.controlnet import train_controlnet
from tasks.training.export import export_model
from tasks.training.frames import draw_frames
from tasks.training.latents import encode_training_frames, encode_with_base
from tasks.training.measure import measure_model
from tasks.training.tokenizer import build_tokenizer
from tasks.training.unet import train_unet
from tasks.training.vae import train_vae
from wave_ops.training.schedules import Budget

__all__ = ["train_embedded"]


_TIME_FRACTIONS = {"vae": 0.12, "unet": 0.50, "controlnet": 0.38}


@flow(name="train-embedded")
def train_embedded(settings: TrainSettings) -> str:
    """Draw frames, train autoencoder, UNet with text encoder, and ControlNet, then write and measure the model.

    With a base model only the ControlNet is trained.

    Returns:
        The folder of the model.
    """
    torch.set_num_threads(settings.threads)
    work, seed = str(Path(settings.work_folder).expanduser().resolve()), settings.seed
    frames = draw_frames(work, count=settings.frames, seed=seed)
    if settings.base is not None:
        tokenizer, unet = take_base(work, settings.base)
        latents = encode_with_base(work, frames)
    else:
        tokenizer = build_tokenizer(work)
        vae = train_vae(work, frames, budget=_budget(settings, "vae", settings.vae_steps), seed=seed)
        latents = encode_training_frames(work, frames, vae)
        unet = train_unet(work, latents, tokenizer, budget=_budget(settings, "unet", settings.unet_steps), seed=seed)
    controlnet = train_controlnet(
        work,
        frames_folder=frames,
        latents_path=latents,
        tokenizer_folder=tokenizer,
        unet_checkpoint=unet,
        budget=_budget(settings, "controlnet", settings.controlnet_steps),
        seed=seed,
    )
    output = export_model(
        work,
        settings.output,
        tokenizer_folder=tokenizer,
        unet_checkpoint=unet,
        controlnet_checkpoint=controlnet,
    )
    metrics = measure_model(work, output, scenes=settings.metric_scenes)
    write_card(work, output, metrics=metrics, seed=seed, frames=settings.frames)
    return output


def _budget(settings: TrainSettings, part: str, steps: int) -> Budget:
    minutes = None if settings.minutes is None else settings.minutes * _TIME_FRACTIONS[part]
    return Budget(steps=steps, minutes=minutes)
