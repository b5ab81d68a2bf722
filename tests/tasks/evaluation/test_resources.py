from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tasks.errors import TaskInputError
from tasks.evaluation.request import EvaluationRequest, command_line
from tasks.evaluation.resources import resolve_resources, resources_digest
from tests._checkpoints import save_sd15


@pytest.fixture
def sd15(tmp_path: Path) -> Path:
    return save_sd15(tmp_path / "sd15")


def test_another_vae_and_loras_are_used_and_change_the_digest(sd15: Path, tmp_path: Path) -> None:
    lora = tmp_path / "style.safetensors"
    save_file({"lora_unet_x.lora_down.weight": torch.zeros(1, 1)}, lora)
    common = {"comparison": "inversion", "model": str(sd15), "controlnet": "none"}
    requests = [
        EvaluationRequest(**common),
        EvaluationRequest(**common, vae=str(sd15)),
        EvaluationRequest(**common, lora=(f"{lora}:0.5",)),
    ]
    plain, vae, style = (resolve_resources(request, device="cpu", dtype="float32") for request in requests)
    assert vae.model.vae is not None
    assert [found.weight for found in style.model.loras] == [0.5]
    assert len({resources_digest(each) for each in (plain, vae, style)}) == 3
    assert f"--lora {lora}:0.5" in command_line(requests[2])
    with pytest.raises(TaskInputError, match="does not exist"):
        resolve_resources(EvaluationRequest(**common, lora=("none.safetensors",)), device="cpu", dtype="float32")
