"""Training loop of every part of the embedded model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from wave_ops.training.averaging import average_decay, update_average
from wave_ops.training.muon import Muon, is_matrix
from wave_ops.training.schedules import Budget, learning_rate_factor

__all__ = ["Training", "TrainingProgress"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingProgress:
    """Report of a finished step."""

    step: int
    """Number of steps done, including this one."""
    seconds: float
    """Time spent in steps since the training began, across interruptions."""
    loss: float
    learning_rate_factor: float
    """Factor on the learning rates in this step."""


@dataclass(slots=True, kw_only=True)
class Training:
    """State of a training: parameters, their exponential moving average, optimisers and progress."""

    parameters: Mapping[str, nn.Parameter]
    """Updated in place; they may belong to several modules."""
    learning_rate: float
    """Of AdamW."""
    budget: Budget
    matrix_learning_rate: float | None = None
    """Learning rate of Muon, which trains the matrices; None for AdamW alone."""
    max_decay: float = 0.999
    """Decay of the moving average after its first steps."""
    step: int = 0
    """Number of steps done."""
    seconds: float = 0.0
    """Time spent in them."""
    average: dict[str, Tensor] = field(init=False)
    optimizers: tuple[torch.optim.Optimizer, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.average = {name: value.detach().clone() for name, value in self.parameters.items()}
        by_muon = self.matrix_learning_rate is not None
        matrices = [v for name, v in self.parameters.items() if by_muon and is_matrix(name, v)]
        rest = [v for name, v in self.parameters.items() if not (by_muon and is_matrix(name, v))]
        adam = torch.optim.AdamW(rest, lr=self.learning_rate, betas=(0.9, 0.99), weight_decay=0.01)
        muon = Muon(matrices, lr=self.matrix_learning_rate or 0.0) if matrices else None
        self.optimizers = (adam,) if muon is None else (adam, muon)

    def run(self, loss_at: Callable[[int], Tensor]) -> Iterator[TrainingProgress]:
        """Train until the budget is spent, and yield after each step.

        Args:
            loss_at: returns the loss of a step, a scalar. If its batch depends on the step alone, a resumed training
                gives the same parameters as an uninterrupted one.
        """
        while (progress := self.budget.progress(self.step, self.seconds)) < 1:
            began = time.monotonic()
            factor = learning_rate_factor(progress, step=self.step)
            loss = self._update(loss_at(self.step), factor)
            self.step += 1
            self.seconds += time.monotonic() - began
            yield TrainingProgress(step=self.step, seconds=self.seconds, loss=loss, learning_rate_factor=factor)

    def state(self) -> dict[str, Tensor]:
        """Return the tensors that `restore` needs, by name."""
        state = {f"parameter/{name}": value.detach() for name, value in self.parameters.items()}
        state |= {f"average/{name}": value for name, value in self.average.items()}
        for name, value in self.parameters.items():
            state |= {f"memory.{key}/{name}": kept for key, kept in self._optimizer_state(value).items()}
        return state

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor], *, step: int, seconds: float) -> None:
        """Continue from tensors that `state` returned after `step` steps and `seconds` seconds."""
        self.step, self.seconds = step, seconds
        states: dict[int, dict[str, Tensor]] = {}
        for key, kept in state.items():
            kind, name = key.split("/", 1)
            if kind.startswith("memory."):
                states.setdefault(id(self.parameters[name]), {})[kind.removeprefix("memory.")] = kept.clone()
        for name, value in self.parameters.items():
            value.copy_(state[f"parameter/{name}"])
            self.average[name].copy_(state[f"average/{name}"])
        for optimizer in self.optimizers:
            for value in (value for group in optimizer.param_groups for value in group["params"]):
                optimizer.state[value] = states.get(id(value), {})

    def _optimizer_state(self, value: nn.Parameter) -> dict[str, Tensor]:
        """Return the optimisers' state of one parameter, by name."""
        return {key: kept for optimizer in self.optimizers for key, kept in optimizer.state.get(value, {}).items()}

    def _update(self, loss: Tensor, factor: float) -> float:
        for optimizer, rate in zip(self.optimizers, (self.learning_rate, self.matrix_learning_rate), strict=False):
            for group in optimizer.param_groups:
                group["lr"] = (rate or 0.0) * factor
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(list(self.parameters.values()), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        update_average(self.average, self.parameters, decay=average_decay(self.step, max_decay=self.max_decay))
        return float(loss.detach())
