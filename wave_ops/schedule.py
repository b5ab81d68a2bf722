"""The DDIM schedule in both directions, and the timesteps at which features are warped.

Convention:
    Step index j is 1 to S, with ascending timesteps t_1 < ... < t_S; latents x_j have the noise level
    a_j = alphas_cumprod[t_j], and x_0 has a_0 = final_alpha_cumprod. Step j of inversion is from x_{j-1} to x_j, step j
    of sampling from x_j to x_{j-1}, both with the noise predicted at t_j.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, sqrt
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from wave_ops.errors import WaveOpsError
from wave_ops.settings import Phase, WarpSchedule, WarpWindow

__all__ = ["DDIMSchedule", "Phase", "WarpSchedule", "WarpWindow"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DDIMSchedule:
    """A DDIM schedule of S steps (Song et al. 2021)."""

    timesteps: tuple[int, ...]
    """Training indices t_1 < ... < t_S."""
    alphas_cumprod: tuple[float, ...]
    """a_0 = final_alpha_cumprod, then a_1 to a_S."""
    prediction_type: str
    """Prediction of the UNet: epsilon, v_prediction or sample."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, steps: int) -> DDIMSchedule:
        """Read the config of any diffusers scheduler (DDIM, PNDM, ...) as a DDIM config.

        Args:
            config: entries that DDIM does not have are ignored.
            steps: S, at most the number of training timesteps.

        Raises:
            WaveOpsError: the number of steps is out of range, or the prediction type is unknown.
        """
        # Configs of other schedulers have entries that DDIM's constructor does not accept
        import diffusers  # noqa: PLC0415  (takes seconds, and a plan needs none)

        known = set(diffusers.DDIMScheduler().config) - {"_use_default_values"}
        scheduler = diffusers.DDIMScheduler(**{key: value for key, value in config.items() if key in known})
        trained = scheduler.config.num_train_timesteps
        if not 1 <= steps <= trained:
            raise WaveOpsError(f"steps must be from 1 to {trained}, got {steps}")
        if scheduler.config.prediction_type not in {"epsilon", "v_prediction", "sample"}:
            raise WaveOpsError(f"unknown prediction type {scheduler.config.prediction_type!r} in the scheduler config")
        scheduler.set_timesteps(steps)
        # With an offset of 1, as many steps as training timesteps would end one past the last
        timesteps = [min(int(t), trained - 1) for t in reversed(scheduler.timesteps)]
        return cls(
            timesteps=tuple(timesteps),
            alphas_cumprod=(
                float(scheduler.final_alpha_cumprod),
                *(float(scheduler.alphas_cumprod[t]) for t in timesteps),
            ),
            prediction_type=scheduler.config.prediction_type,
        )

    @property
    def steps(self) -> int:
        """S, the number of steps."""
        return len(self.timesteps)

    def timestep_tensor(self, device: torch.device) -> Int[Tensor, " step"]:
        """Return t_1 to t_S on a device, where a UNet reads them: an integer would be copied there at every step."""
        return torch.tensor(self.timesteps).to(device)

    def noise_prediction(
        self, model_output: Float[Tensor, "*shape"], latents: Float[Tensor, "*shape"], step_index: int
    ) -> Float[Tensor, "*shape"]:
        """Convert the UNet's output at (latents, t_j) to the noise that it implies, float32."""
        output, x, a = model_output.float(), latents.float(), self.alphas_cumprod[step_index]
        match self.prediction_type:
            case "epsilon":
                return output
            case "v_prediction":
                return sqrt(a) * output + sqrt(1 - a) * x
        return (x - sqrt(a) * output) / sqrt(1 - a)

    def add_noise(
        self, clean: Float[Tensor, "*shape"], noise: Float[Tensor, "*shape"], step_index: int
    ) -> Float[Tensor, "*shape"]:
        """Mix clean latents with noise to the level of x_j (Ho et al. 2020, eq. 4)."""
        a = self.alphas_cumprod[step_index]
        return sqrt(a) * clean + sqrt(1 - a) * noise

    def inverse_step(
        self, latents: Float[Tensor, "*shape"], noise_pred: Float[Tensor, "*shape"], step_index: int
    ) -> Float[Tensor, "*shape"]:
        """Compute x_j from x_{j-1} (WAVE sec. 5)."""
        return self._move(latents, noise_pred, level=step_index - 1, target=step_index)

    def extrapolate(
        self, before: Float[Tensor, "*shape"], latents: Float[Tensor, "*shape"], step_index: int
    ) -> Float[Tensor, "*shape"]:
        """Extrapolate x_{j-2} and x_{j-1} linearly to level j: the inverse step with the noise of step j-1.

        Source: Song et al. 2021, eq. 13: with x / sqrt(a) as a function of sqrt((1 - a) / a), a DDIM step is an Euler
        step, the slope of which is the noise. If the first two levels are equal, there is no line and x_{j-1} is
        returned.

        Args:
            before: x_{j-2}.
            latents: x_{j-1}.
            step_index: j, at least 2.
        """
        a = self.alphas_cumprod[step_index - 2 : step_index + 1]
        ahead, behind = self._reach(step_index)
        if behind == 0:
            return latents.float()
        slope = (latents.float() / sqrt(a[1]) - before.float() / sqrt(a[0])) / behind
        return sqrt(a[2]) * (latents.float() / sqrt(a[1]) + ahead * slope)

    def extrapolation_reach(self, step_index: int) -> float:
        """Return how far `extrapolate` reaches at a step, as a multiple of the step before.

        In units of sqrt((1 - a) / a). Infinity if the first two levels are equal.
        """
        ahead, behind = self._reach(step_index)
        return ahead / behind if behind > 0 else inf

    def _reach(self, step_index: int) -> tuple[float, float]:
        a = self.alphas_cumprod[step_index - 2 : step_index + 1]
        return _sigma(a[2]) - _sigma(a[1]), _sigma(a[1]) - _sigma(a[0])

    def step(
        self, latents: Float[Tensor, "*shape"], noise_pred: Float[Tensor, "*shape"], step_index: int
    ) -> Float[Tensor, "*shape"]:
        """Compute x_{j-1} from x_j (Song et al. 2021, eq. 12 at eta 0)."""
        return self._move(latents, noise_pred, level=step_index, target=step_index - 1)

    def _move(self, x: Tensor, noise_pred: Tensor, *, level: int, target: int) -> Tensor:
        # float32 whatever the UNet's dtype: float16 would lose the small differences between neighbouring levels
        a, b = self.alphas_cumprod[level], self.alphas_cumprod[target]
        clean = (x.float() - sqrt(1 - a) * noise_pred) / sqrt(a)
        return sqrt(b) * clean + sqrt(1 - b) * noise_pred


def _sigma(alpha_cumprod: float) -> float:
    return sqrt((1 - alpha_cumprod) / alpha_cumprod)
