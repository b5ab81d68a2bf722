from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import TaskInputError
from tasks.models.checkpoints import resolve_controlnet, resolve_model
from tests._checkpoints import save_controlnet, save_sd21


@pytest.fixture
def copy(sd15: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sd15, tmp_path / "copy"))


def change(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("part", "changes", "words"),
    [
        ("unet", {"block_out_channels": [32, 64, 64, 128]}, "resnets.1.conv2.weight is 64x64x3x3"),
        ("unet", {"cross_attention_dim": 96}, "attn2.to_k.weight is 32x32, and the config says anyx96"),
        ("unet", {"out_channels": 8}, "conv_out.weight is 4x32"),
        ("unet", {"layers_per_block": 3}, "no down_blocks.0.resnets.2.conv2.weight"),
        ("unet", {"block_out_channels": [32, 64, 64], "down_block_types": ["CrossAttnDownBlock2D"] * 3}, "no place"),
        ("vae", {"block_out_channels": [8, 16, 16, 32]}, "encoder.conv_out.weight"),
        ("text_encoder", {"vocab_size": 5}, "token_embedding.weight"),
        ("text_encoder", {"num_hidden_layers": 5}, "no encoder.layers.4"),
    ],
)
def test_weights_that_do_not_fit_their_config_are_named_with_both_shapes(
    copy: Path, part: str, changes: dict[str, Any], words: str
) -> None:
    change(copy / part / "config.json", **changes)
    with pytest.raises(TaskInputError) as caught:
        resolve_model(str(copy))
    assert words in str(caught.value)
    assert str(copy / part) in str(caught.value)


def test_a_text_encoder_of_another_model_is_refused(copy: Path, tmp_path: Path) -> None:
    shutil.rmtree(copy / "text_encoder")
    shutil.copytree(save_sd21(tmp_path / "sd21") / "text_encoder", copy / "text_encoder")
    with pytest.raises(TaskInputError, match="attends to text of 32 channels, and its text encoder returns 64"):
        resolve_model(str(copy))


@pytest.mark.parametrize("keep", [0, 100, -1000])
def test_weights_that_are_cut_off_are_refused(copy: Path, keep: int) -> None:
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(TaskInputError, match=r"diffusion_pytorch_model\.safetensors are damaged"):
        resolve_model(str(copy))


def test_a_controlnet_that_does_not_fit_its_config_is_refused(sd15: Path, tmp_path: Path) -> None:
    folder, model = save_controlnet(tmp_path / "controlnet", sd15), resolve_model(str(sd15))
    assert resolve_controlnet(str(folder), model=model) is not None
    change(folder / "config.json", cross_attention_dim=48)
    with pytest.raises(TaskInputError, match="the config says anyx48"):
        resolve_controlnet(str(folder), model=model)


def test_the_model_that_is_shipped_fits_its_configs() -> None:
    assert resolve_controlnet("auto", model=resolve_model("embedded")) is not None
