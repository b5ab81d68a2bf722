"""Flow that trains the embedded model from scratch."""

from __future__ import annotations

from pathlib import Path

import torch
from prefect import flow
from pydantic import BaseModel, ConfigDict, Field

from tasks.training.card import write_card
from tasks.training.controlnet import train_controlnet
from tasks.training.export import export_model
from tasks.training.frames import draw_frames
from tasks.training.latents import encode_training_frames
from tasks.training.measure import measure_model
from tasks.training.tokenizer import build_tokenizer
from tasks.training.unet import train_unet
from tasks.training.vae import train_vae
from wave_ops.training.schedules import Budget

__all__ = ["TrainSettings", "train_embedded"]


class TrainSettings(BaseModel):
    """Settings of the training; the defaults are those of the embedded model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    output: str = Field(min_length=1)
    """Folder of the model, written in the diffusers layout."""
    work_folder: str = Field(min_length=1)
    """Folder of frames, latents, checkpoints and curves; an interrupted training resumes from it."""
    seed: int = Field(default=0, ge=0)
    """Seed of the scenes, the initial weights and the batches."""
    threads: int = Field(default=1, ge=1)
    """Threads of each torch operation; one is fastest on a machine that is shared."""
    frames: int = Field(default=24_000, ge=32)
    """Number of training frames."""
    vae_steps: int = Field(default=3_800, ge=1)
    unet_steps: int = Field(default=8_000, ge=1)
    controlnet_steps: int = Field(default=3_200, ge=1)
    minutes: float | None = Field(default=None, gt=0)
    """Time for all three trainings; each ends with its steps or its fraction of the time, whichever is sooner."""
    metric_scenes: int = Field(default=24, ge=1)
    """Number of held-out scenes on which the finished model is measured."""


_TIME_FRACTIONS = {"vae": 0.12, "unet": 0.50, "controlnet": 0.38}


@flow(name="train-embedded")
def train_embedded(settings: TrainSettings) -> str:
    """Draw frames, train autoencoder, UNet with text encoder, and ControlNet, then write and measure the model.

    Returns:
        The folder of the model.
    """
    torch.set_num_threads(settings.threads)
    work, seed = str(Path(settings.work_folder).expanduser().resolve()), settings.seed
    tokenizer = build_tokenizer(work)
    frames = draw_frames(work, count=settings.frames, seed=seed)
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
