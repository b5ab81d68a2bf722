"""The training flow: its settings, and a tiny training."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from flows.train_embedded import TrainSettings

ROOT = Path(__file__).parents[2]
TRAIN = """
from flows.cli.server import connect_server
connect_server()
from flows.train_embedded import TrainSettings, train_embedded
steps = dict(vae_steps=1, unet_steps=2, controlnet_steps=1)
train_embedded(TrainSettings(output="model", work_folder="work", frames=32, metric_scenes=1, seed=3, **steps))
"""


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"minutes": 0}, {"frames": 1}, {"output": ""}, {"unknown": 1}])
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TrainSettings(**{"output": "model", "work_folder": "work", **wrong})  # type: ignore[arg-type]


def test_settings_cannot_be_changed() -> None:
    settings = TrainSettings(output="model", work_folder="work")
    with pytest.raises(ValidationError):
        settings.seed = 2


@pytest.mark.slow
def test_the_flow_writes_a_model_and_its_card(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_HOME": str(tmp_path / "prefect")}
    done = subprocess.run(
        [sys.executable, "-c", TRAIN], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "| seed | 3 |" in (tmp_path / "model" / "README.md").read_text()
    assert (tmp_path / "model" / "controlnet" / "diffusion_pytorch_model.safetensors").is_file()
