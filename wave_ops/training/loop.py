"""The one training loop: every part of the embedded model is trained by it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from wave_ops.training.averaging import average_into, averaging_decay
from wave_ops.training.muon import Muon, is_matrix
from wave_ops.training.schedules import Budget, learning_rate_factor

__all__ = ["Training", "TrainingProgress"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingProgress:
    """What a finished step reports."""

    step: int
    """Steps done, this one included."""
    seconds: float
    """Time spent in steps since the training began, over all resumptions."""
    loss: float
    learning_rate_factor: float


@dataclass(slots=True, kw_only=True)
class Training:
    """Parameters under training, their running average, and how far they have come.

    `parameters` are updated in place, so they may belong to one module or to several. With a `matrix_learning_rate`
    matrices are trained by Muon, everything else, as all without it, by AdamW.
    """

    parameters: Mapping[str, nn.Parameter]
    learning_rate: float
    budget: Budget
    matrix_learning_rate: float | None = None
    longest_memory: float = 0.999
    """Decay of the running average."""
    step: int = 0
    seconds: float = 0.0
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
        """Train until the budget is spent, yielding after each step; `loss_at(step)` draws its batch from the step.

        A loss that is a function of the step alone makes a resumed training the same as an undisturbed one.
        """
        while (progress := self.budget.progress(self.step, self.seconds)) < 1:
            began = time.monotonic()
            factor = learning_rate_factor(progress, step=self.step)
            loss = self._update(loss_at(self.step), factor)
            self.step += 1
            self.seconds += time.monotonic() - began
            yield TrainingProgress(step=self.step, seconds=self.seconds, loss=loss, learning_rate_factor=factor)

    def state(self) -> dict[str, Tensor]:
        """Everything that a resumption needs besides the step and the seconds, by name."""
        state = {f"parameter/{name}": value.detach() for name, value in self.parameters.items()}
        state |= {f"average/{name}": value for name, value in self.average.items()}
        for name, value in self.parameters.items():
            state |= {f"memory.{key}/{name}": kept for key, kept in self._memory(value).items()}
        return state

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor], *, step: int, seconds: float) -> None:
        """Take up a training where `state` was taken."""
        self.step, self.seconds = step, seconds
        remembered: dict[int, dict[str, Tensor]] = {}
        for key, kept in state.items():
            kind, name = key.split("/", 1)
            if kind.startswith("memory."):
                remembered.setdefault(id(self.parameters[name]), {})[kind.removeprefix("memory.")] = kept.clone()
        for name, value in self.parameters.items():
            value.copy_(state[f"parameter/{name}"])
            self.average[name].copy_(state[f"average/{name}"])
        for optimizer in self.optimizers:
            for value in (value for group in optimizer.param_groups for value in group["params"]):
                optimizer.state[value] = remembered.get(id(value), {})

    def _memory(self, value: nn.Parameter) -> dict[str, Tensor]:
        """What the optimizers remember of one parameter."""
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
        average_into(self.average, self.parameters, decay=averaging_decay(self.step, longest=self.longest_memory))
        return float(loss.detach())
