"""Inputs of ControlNets, and the sum of what several of them add to a UNet (Zhang et al., ICCV 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from wave_ops.errors import WaveOpsError

__all__ = ["Control", "ControlNets", "KeyframeImages", "networks_of"]


@runtime_checkable
class KeyframeImages(Protocol):
    """Images of keyframes, float32 from 0 to 1, read when asked for; a tensor (keyframe 3 height width) is one."""

    def __len__(self) -> int:
        """Return the number of keyframes."""

    def __getitem__(self, keyframes: list[int], /) -> Float[Tensor, "keyframe 3 height width"]:
        """Return the images of some keyframes, in the order of their indices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """The input of one ControlNet, its weight, and the part of the steps in which it acts."""

    images: KeyframeImages
    """Edges, depth or what the ControlNet was trained on, in pixels."""
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
        self._inputs = [_Input(network, control) for network, control in zip(found, controls, strict=False)]
        self._weight = weight

    def acting(self, step_index: int, *, steps: int) -> tuple[bool, ...]:
        """Return for each ControlNet whether it acts in step j of S."""
        return tuple(each.control.acts(step_index, steps=steps) for each in self._inputs)

    def images(self, keyframes: Sequence[int], frames: Tensor, *, step_index: int, steps: int) -> list[Tensor]:
        """Return what the ControlNets that act in step j of S see of the keyframes of a batch, on the device.

        Args:
            keyframes: indices.
            frames: the same, int64, on the device.
            step_index: j, from S down to 1.
            steps: S.
        """
        return [each.at(keyframes, frames) for each in self._acting(step_index, steps=steps)]

    def residuals(
        self,
        latents: Float[Tensor, "branch_frame channel height width"],
        timestep: Tensor,
        arguments: Mapping[str, Any],
        *,
        step_index: int,
        steps: int,
        images: Sequence[Tensor],
    ) -> tuple[list[Tensor], Tensor] | None:
        """Return the sums of the residuals for the down blocks and for the middle block; None where none acts.

        Args:
            latents: of the controlled branches, branches outermost.
            timestep: training index.
            arguments: what else the ControlNets are conditioned on, as the UNet is.
            step_index: j, from S down to 1.
            steps: S.
            images: of the frames of a branch, from `images` for the same step.
        """
        total: tuple[list[Tensor], Tensor] | None = None
        for each, seen in zip(self._acting(step_index, steps=steps), images, strict=True):
            weight = each.control.weight
            down, mid = each.network(
                latents.to(each.network.dtype),
                timestep,
                **arguments,
                controlnet_cond=seen.repeat(len(latents) // len(seen), 1, 1, 1),
                conditioning_scale=self._weight if weight is None else weight,
                return_dict=False,
            )
            if total is not None:
                down, mid = [torch.add(*pair) for pair in zip(total[0], down, strict=True)], total[1] + mid
            total = list(down), mid
        return total

    def _acting(self, step_index: int, *, steps: int) -> list[_Input]:
        acting = self.acting(step_index, steps=steps)
        return [each for each, acts in zip(self._inputs, acting, strict=True) if acts]


class _Input:
    """A ControlNet with its input, which stays on the device where all keyframes are one batch."""

    def __init__(self, network: Any, control: Control) -> None:
        self.network, self.control = network, control
        self._all: Tensor | None = None

    def at(self, keyframes: Sequence[int], frames: Tensor) -> Tensor:
        count = len(self.control.images)
        if len(keyframes) < count:
            self._all = None  # since a batch of all did not fit
            return self._read(list(keyframes))
        if self._all is None:
            self._all = self._read(list(range(count)))
        return self._all.index_select(0, frames)

    def _read(self, keyframes: list[int]) -> Tensor:
        images = self.control.images[keyframes].to(self.network.dtype)
        if self.network.device.type == "cuda" and images.device.type == "cpu":
            images = images.pin_memory()  # or the host would wait until the device has taken them
        return images.to(self.network.device, non_blocking=True)
