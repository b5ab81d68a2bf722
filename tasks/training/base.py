"""A base model that is kept, so that only a ControlNet is trained for it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from diffusers import UNet2DConditionModel
from prefect import task
from prefect.cache_policies import NO_CACHE
from transformers import CLIPTextModel

from tasks.training.files import save_tensors
from tasks.training.unet import denoiser_parameters

__all__ = ["take_base"]


@task(name="Take the base model", cache_policy=NO_CACHE, persist_result=False)
def take_base(work_folder: str, base: str) -> tuple[str, str]:
    """Copy the parts of a model that `export_model` wrote to where the steps of a training look for them.

    The autoencoder and the tokenizer are copied to the folders `vae` and `tokenizer`; UNet and text encoder become
    the checkpoint that `load_denoiser` reads.

    Args:
        work_folder: folder of the training.
        base: folder of the model.

    Returns:
        The folder of the tokenizer, and the path of the checkpoint.
    """
    work, model = Path(work_folder), Path(base)
    for part in ("vae", "tokenizer"):
        shutil.copytree(model / part, work / part, dirs_exist_ok=True)
    unet: Any = UNet2DConditionModel.from_pretrained(model / "unet", use_safetensors=True)
    text_encoder: Any = CLIPTextModel.from_pretrained(model / "text_encoder", use_safetensors=True)
    path = work / "unet.safetensors"
    parameters = denoiser_parameters(unet.float(), text_encoder.float())
    save_tensors(path, {f"average/{name}": value.detach() for name, value in parameters.items()}, facts={"base": True})
    return str(work / "tokenizer"), str(path)
