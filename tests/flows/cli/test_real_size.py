"""One edit with the real structure of Stable Diffusion 1.5: 1,066 million random weights in float32."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from storage.video import write_video
from tasks.models import single_file

ROOT = Path(__file__).parents[3]
CONFIGS = Path(single_file.__file__).parent / "configs"
LIMIT = 7 * 2**30


def save_random_sd15(folder: Path) -> Path:
    """Write a checkpoint with the configs that the package has for Stable Diffusion 1.x."""
    shutil.copytree(CONFIGS / "sd1", folder)
    shutil.copytree(CONFIGS / "tokenizer", folder / "tokenizer", dirs_exist_ok=True)
    torch.manual_seed(0)
    for name, kind in (("unet", UNet2DConditionModel), ("vae", AutoencoderKL)):
        network = kind.from_config(json.loads((folder / name / "config.json").read_text()))
        if name == "unet":
            network.conv_out.weight.data *= 0.2  # as smooth in its input as a trained UNet
        network.save_pretrained(folder / name)
        del network
    CLIPTextModel(CLIPTextConfig.from_pretrained(folder / "text_encoder")).save_pretrained(folder / "text_encoder")
    return folder


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(psutil.virtual_memory().available < 2 * LIMIT, reason="needs 14 GB of free memory")
def test_an_edit_with_stable_diffusion_15_takes_at_most_7_gb(tmp_path: Path) -> None:
    model = save_random_sd15(tmp_path / "sd15")
    frames = np.random.default_rng(0).integers(0, 256, (2, 256, 256, 3), np.uint8)
    write_video(tmp_path / "clip.mp4", frames, timestamps=range(2), time_base=Fraction(1, 12))
    command = [sys.executable, "-m", "flows.cli", "edit", "clip.mp4", "--model", str(model), "--prompt", "a star"]
    options = ["--size", "256x256", "--steps", "2", "--memory-limit", "7GiB", "-o", "edited.mp4"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "WAVE_WORKSPACE": "workspace", "WAVE_DEVICE": "cpu"}
    try:
        subprocess.run([*command, *options], cwd=tmp_path, env=environment, check=True)
    finally:
        shutil.rmtree(model)
    assert (tmp_path / "edited.mp4").is_file()
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 2**10
    print(f"peak {peak / 2**30:.2f} GiB")  # noqa: T201
    assert peak < LIMIT
