"""Muon: an optimiser that orthogonalises the momentum of matrices before it applies it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["Muon", "is_matrix", "orthogonalise"]

_QUINTIC: Final = (3.4445, -4.7750, 2.0315)
_STEPS: Final = 5
_HALF_FROM: Final = 128


def is_matrix(name: str, parameter: Float[Tensor, "..."]) -> bool:
    """Return whether Muon suits a parameter: it maps features to features, so no embedding, first or last layer."""
    return parameter.ndim >= 2 and not any(part in name for part in ("embedding", "conv_in", "conv_out"))


def orthogonalise(matrix: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """Return a matrix with the same singular vectors and singular values near 1 (about 0.7 to 1.2).

    Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; five Newton-Schulz steps of
    its quintic polynomial.
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
    """Optimiser with orthogonalised Nesterov momentum; a convolution is a matrix of (output channel, all other axes).

    Source: as for `orthogonalise`.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], *, lr: float, momentum: float = 0.95, weight_decay: float = 0.01
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient; `closure` is ignored."""
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
        update = orthogonalise(gradient.lerp(momentum, group["momentum"]).flatten(1))
        # The rows of a tall matrix with unit singular values are shorter than 1: its outputs would change too little
        update = update * max(1.0, update.shape[0] / update.shape[1]) ** 0.5
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.sub_(update.view_as(parameter), alpha=group["lr"])
