"""Files of a training, written atomically: checkpoints and data as safetensors, curves as JSON lines."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from storage.files import write_atomic
from wave_ops.training.loop import Training, TrainingProgress

_LOGGER = logging.getLogger(__name__)

__all__ = [
    "CurveWriter",
    "load_average",
    "load_tensors",
    "read_curve",
    "resume",
    "save_checkpoint",
    "save_tensors",
    "train_with_checkpoints",
    "write_text",
]


def save_tensors(path: Path, tensors: Mapping[str, Tensor], *, facts: Mapping[str, object]) -> None:
    """Write tensors, with JSON-able facts about them as metadata, to a safetensors file."""
    metadata = {"facts": json.dumps(dict(facts))}
    write_atomic(path, save({name: value.contiguous() for name, value in tensors.items()}, metadata=metadata))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, object]]:
    """Load the tensors and the facts of a file that `save_tensors` wrote."""
    with safe_open(path, framework="pt") as file:
        facts = json.loads((file.metadata() or {}).get("facts", "{}"))
        return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118 (not a mapping)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    write_atomic(path, text.encode())


def save_checkpoint(path: Path, training: Training) -> None:
    """Write the checkpoint that `resume` reads."""
    save_tensors(path, training.state(), facts={"step": training.step, "seconds": training.seconds})


def resume(path: Path, training: Training) -> None:
    """Continue a training from its checkpoint, if there is one."""
    if path.exists():
        state, facts = load_tensors(path)
        training.restore(state, step=int(str(facts["step"])), seconds=float(str(facts["seconds"])))


@torch.no_grad()
def load_average(path: Path, parameters: Mapping[str, Tensor]) -> None:
    """Set parameters, in place, to the moving average of a checkpoint."""
    state, _ = load_tensors(path)
    for name, value in parameters.items():
        value.copy_(state[f"average/{name}"])


class CurveWriter:
    """Writer of a training's curve: a JSON line and a log record for every few steps, with their mean loss."""

    def __init__(self, path: Path, *, every: int = 20) -> None:
        self._path = path
        self._every = every
        self._since: list[TrainingProgress] = []

    def add(self, progress: TrainingProgress) -> None:
        """Add a step, and write a record when enough steps are collected."""
        self._since.append(progress)
        if progress.step % self._every == 0:
            self.finish()

    def finish(self) -> None:
        """Write a record of the steps since the last one, if any."""
        if not self._since:
            return
        last = self._since[-1]
        record = {
            "step": last.step,
            "seconds": round(last.seconds, 1),
            "loss": round(sum(progress.loss for progress in self._since) / len(self._since), 6),
            "learning_rate_factor": round(last.learning_rate_factor, 4),
        }
        self._since.clear()
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        _LOGGER.info("%s: step %d, %.0f s, loss %.4f", self._path.stem, last.step, last.seconds, record["loss"])


def read_curve(path: Path) -> list[dict[str, float]]:
    """Read the records of a curve; an incomplete last line, left by an interruption, is ignored."""
    if not path.exists():
        return []
    *lines, _ = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines]


def train_with_checkpoints(
    path: Path, training: Training, loss_at: Callable[[int], Tensor], *, save_every: int
) -> None:
    """Train to the end of the budget, from the checkpoint at `path` if there is one, and write curve and checkpoints.

    Args:
        path: file of the checkpoint; the curve has the same name with the suffix .jsonl.
        training: a new training; it continues from the checkpoint.
        loss_at: returns the loss of a step; it must depend on the step alone.
        save_every: steps between two checkpoints; the last step is always saved.
    """
    resume(path, training)
    curve_path = path.with_suffix(".jsonl")
    _truncate_curve(curve_path, step=training.step)
    curve = CurveWriter(curve_path)
    for progress in training.run(loss_at):
        curve.add(progress)
        if progress.step % save_every == 0:
            save_checkpoint(path, training)
    curve.finish()
    save_checkpoint(path, training)


def _truncate_curve(curve_path: Path, *, step: int) -> None:
    """Remove the records of steps after `step`, which will be run again."""
    records = [record for record in read_curve(curve_path) if record["step"] <= step]
    write_text(curve_path, "".join(json.dumps(record) + "\n" for record in records))
