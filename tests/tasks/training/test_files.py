"""Checkpoints and curves: a killed training loses only the steps since its last checkpoint."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tasks.training.files import load_tensors, read_curve, train_with_checkpoints
from wave_ops.training.loop import Training
from wave_ops.training.schedules import Budget

ROOT = Path(__file__).parents[3]
STEPS = 300
SAVE_EVERY = 7


def train(path: Path, *, pause: float = 0.0) -> None:
    """Fit a small model to a sum in `STEPS` steps of at least `pause` seconds."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))

    def loss_at(step: int) -> Tensor:
        time.sleep(pause)
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        loss: Tensor = (model(x)[:, 0] - x.sum(dim=1)).square().mean()
        return loss

    training = Training(
        parameters=dict(model.named_parameters()),
        learning_rate=0.05,
        matrix_learning_rate=0.05,
        budget=Budget(steps=STEPS),
    )
    train_with_checkpoints(path, training, loss_at, save_every=SAVE_EVERY)


def train_until_killed(path: Path, *, steps: int) -> None:
    """Start the training in a process, and kill it after at least `steps` steps."""
    script = "import sys, pathlib; from tests.tasks.training.test_files import train; "
    script += "train(pathlib.Path(sys.argv[1]), pause=0.005)"
    curve = path.with_suffix(".jsonl")
    with subprocess.Popen([sys.executable, "-c", script, str(path)], cwd=ROOT) as process:
        while process.poll() is None and (not (records := read_curve(curve)) or records[-1]["step"] < steps):
            time.sleep(0.01)
        assert process.poll() is None, "the training ended before it could be killed"
        process.kill()


def curve_of(path: Path) -> list[tuple[float, float]]:
    return [(record["step"], record["loss"]) for record in read_curve(path.with_suffix(".jsonl"))]


def test_a_killed_training_resumes_to_the_same_weights_and_records_each_step_once(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole" / "net.safetensors", tmp_path / "killed" / "net.safetensors"
    train(whole)
    train_until_killed(killed, steps=100)
    assert 0 < int(str(load_tensors(killed)[1]["step"])) < STEPS
    train(killed)
    expected, facts = load_tensors(whole)
    found, found_facts = load_tensors(killed)
    assert facts["step"] == found_facts["step"] == STEPS
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert [step for step, _ in curve_of(killed)] == list(range(20, STEPS + 1, 20))


@pytest.mark.parametrize("rest", ["", '{"step": 32', '{"step": 320, "sec'])
def test_an_incomplete_last_line_of_a_curve_is_ignored_and_removed(rest: str, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    train(path)
    curve, before = path.with_suffix(".jsonl"), curve_of(path)
    with curve.open("a") as file:
        file.write(rest)
    assert curve_of(path) == before
    train(path)
    assert curve_of(path) == before
    assert curve.read_text().endswith("}\n")
