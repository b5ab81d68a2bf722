"""Inputs of ControlNets, and the sum of what several of them add to a UNet (Zhang et al., ICCV 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from wave_ops.errors import WaveOpsError

__all__ = ["Control", "ControlNets", "networks_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """The input of one ControlNet, its weight, and the part of the steps in which it acts."""

    images: Float[Tensor, "keyframe 3 height width"]
    """Edges, depth or what the ControlNet was trained on, 0 to 1, in pixels."""
    weight: float | None = None
    """Factor of its residuals; None for that of the edit's settings."""
    start: float = 0.0
    """Fraction of the steps, from the noisiest one, before which it does not act."""
    stop: float = 1.0
    """Fraction of the steps from which it does not act."""

    def acts(self, step_index: int, *, steps: int) -> bool:
        """Return whether it acts in step j of S, j from S down to 1."""
        return round(self.start * steps) <= steps - step_index < round(self.stop * steps)


def networks_of(controlnet: Any) -> list[Any]:
    """Return the ControlNets of a model: those of a MultiControlNetModel, a single one, or none."""
    return [] if controlnet is None else list(getattr(controlnet, "nets", [controlnet]))


class ControlNets:
    """ControlNets with their inputs; what they add to the UNet is summed."""

    def __init__(self, networks: Any, controls: Sequence[Control], *, weight: float) -> None:
        """Pair each ControlNet with its input.

        Args:
            networks: a ControlNetModel, a MultiControlNetModel, or None.
            controls: one for each ControlNet, in their order; none for an edit without control.
            weight: of the controls that have none of their own.

        Raises:
            WaveOpsError: the numbers of ControlNets and of controls differ.
        """
        found = networks_of(networks)
        if controls and len(controls) != len(found):
            raise WaveOpsError(f"expected inputs of {len(found)} ControlNets, got {len(controls)}")
        self._pairs = [
            (network, control, control.images.to(network.device, network.dtype))
            for network, control in zip(found, controls, strict=False)
        ]
        self._weight = weight

    def __len__(self) -> int:
        """Return the number of ControlNets that have an input."""
        return len(self._pairs)

    def acting(self, step_index: int, *, steps: int) -> tuple[bool, ...]:
        """Return for each ControlNet whether it acts in step j of S."""
        return tuple(control.acts(step_index, steps=steps) for _, control, _ in self._pairs)

    def residuals(
        self,
        latents: Float[Tensor, "branch_frame channel height width"],
        timestep: Tensor,
        arguments: Mapping[str, Any],
        *,
        step_index: int,
        steps: int,
        frames: Tensor,
    ) -> tuple[list[Tensor], Tensor] | None:
        """Return the sums of the residuals for the down blocks and for the middle block; None where none acts.

        Args:
            latents: of the controlled branches, branches outermost.
            timestep: training index.
            arguments: what else the ControlNets are conditioned on, as the UNet is.
            step_index: j, from S down to 1.
            steps: S.
            frames: keyframe indices of each branch, int64, on the device.
        """
        total: tuple[list[Tensor], Tensor] | None = None
        for (network, control, images), acts in zip(self._pairs, self.acting(step_index, steps=steps), strict=True):
            if acts:
                down, mid = network(
                    latents.to(network.dtype),
                    timestep,
                    **arguments,
                    controlnet_cond=images.index_select(0, frames).repeat(len(latents) // len(frames), 1, 1, 1),
                    conditioning_scale=self._weight if control.weight is None else control.weight,
                    return_dict=False,
                )
                if total is not None:
                    down, mid = [torch.add(*pair) for pair in zip(total[0], down, strict=True)], total[1] + mid
                total = list(down), mid
        return total
