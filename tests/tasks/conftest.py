"""A tiny checkpoint and a tiny clip, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests._checkpoints import save_controlnet, save_sd15
from tests._clips import save_clip
from tests.wave_ops.conftest import build_model
from wave_ops.diffusion import StableDiffusion


@pytest.fixture(scope="session")
def sd15(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_sd15(tmp_path_factory.mktemp("checkpoints") / "sd15")
    save_controlnet(folder / "controlnet", folder)
    return folder


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clips") / "clip.mp4")


@pytest.fixture(scope="module")
def small() -> StableDiffusion:
    return build_model()
