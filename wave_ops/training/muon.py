"""Muon: momentum whose matrices are made orthogonal before they are applied."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import torch
from torch import Tensor, nn

__all__ = ["Muon", "is_matrix", "orthogonalised"]

_QUINTIC: Final = (3.4445, -4.7750, 2.0315)
_STEPS: Final = 5
_HALF_FROM: Final = 128


def is_matrix(name: str, parameter: Tensor) -> bool:
    """Whether a parameter maps features to features, so that Muon suits it: no embeddings, no first or last layer."""
    return parameter.ndim >= 2 and not any(part in name for part in ("embedding", "conv_in", "conv_out"))


def orthogonalised(matrix: Tensor) -> Tensor:
    """A matrix with the same singular vectors and singular values near 1 (0.7 to 1.2), by a quintic iteration.

    Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; five Newton-Schulz steps.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix / (matrix.norm() + 1e-7)
    if min(matrix.shape) >= _HALF_FROM:
        x = x.bfloat16()  # half the time on large matrices, slower on small ones
    x = x.T if tall else x
    a, b, c = _QUINTIC
    for _ in range(_STEPS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    upright: Tensor = x.T if tall else x
    return upright.to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised; convolutions count as matrices of (output, everything else)."""

    def __init__(
        self, parameters: Iterable[nn.Parameter], *, lr: float, momentum: float = 0.95, weight_decay: float = 0.01
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Apply one update to every parameter that has a gradient; a closure is not called."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        gradient = parameter.grad
        if gradient is None:
            return
        momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
        momentum.lerp_(gradient, 1 - group["momentum"])
        update = orthogonalised(gradient.lerp(momentum, group["momentum"]).flatten(1))
        # A wide matrix of unit singular values moves its outputs less than a tall one does.
        update = update * max(1.0, update.shape[0] / update.shape[1]) ** 0.5
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.sub_(update.view_as(parameter), alpha=group["lr"])
