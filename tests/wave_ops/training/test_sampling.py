"""Plain DDIM, both ways."""

from __future__ import annotations

import torch
from torch import Tensor

from wave_ops.training.modules import build_scheduler
from wave_ops.training.sampling import ddim_move, ddim_walk, noise_levels

ALPHAS = build_scheduler().alphas_cumprod


def test_the_levels_are_stable_diffusions_with_an_offset_of_one() -> None:
    timesteps, levels = noise_levels(ALPHAS, steps=50)
    assert timesteps[:3] == [1, 21, 41]
    assert timesteps[-1] == 981
    assert float(levels[0]) == float(ALPHAS[0])
    assert float(levels[-1]) == float(ALPHAS[981])


def test_a_move_with_the_true_noise_stays_on_the_mix_of_signal_and_noise() -> None:
    clean, noise = torch.randn(4), torch.randn(4)

    def mix(kept: Tensor) -> Tensor:
        return kept.sqrt() * clean + (1 - kept).sqrt() * noise

    here, there = torch.tensor(0.3), torch.tensor(0.7)
    torch.testing.assert_close(ddim_move(mix(here), noise, here=here, there=there), mix(there))


def test_walking_to_noise_and_back_returns_for_a_prediction_that_ignores_the_latents() -> None:
    latents = torch.randn(2, 4, 3, 3, dtype=torch.float64)
    noise = torch.randn(2, 4, 3, 3, dtype=torch.float64)

    def predict(x: Tensor, timestep: int) -> Tensor:
        return noise * (timestep / 1000)

    alphas = ALPHAS.double()
    inverted = ddim_walk(predict, latents, alphas_cumprod=alphas, steps=20, invert=True)
    assert float((inverted - latents).abs().max()) > 0.1
    back = ddim_walk(predict, inverted, alphas_cumprod=alphas, steps=20, invert=False)
    torch.testing.assert_close(back, latents)


def test_sampling_asks_from_the_noisiest_step_down() -> None:
    asked: list[int] = []

    def predict(x: Tensor, timestep: int) -> Tensor:
        asked.append(timestep)
        return torch.zeros_like(x)

    ddim_walk(predict, torch.zeros(1), alphas_cumprod=ALPHAS, steps=5, invert=False)
    assert asked == [801, 601, 401, 201, 1]
