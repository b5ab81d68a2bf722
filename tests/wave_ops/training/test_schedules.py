"""Budget, learning rate and noise levels of a training."""

from __future__ import annotations

import pytest
import torch

from wave_ops.errors import WaveOpsError
from wave_ops.training.schedules import (
    Budget,
    add_noise,
    learning_rate_factor,
    min_snr_weights,
    stratified_timesteps,
)


@pytest.mark.parametrize(
    ("budget", "step", "seconds", "progress"),
    [
        (Budget(steps=100), 25, 1e9, 0.25),
        (Budget(steps=100, minutes=1.0), 25, 30.0, 0.5),
        (Budget(steps=100, minutes=1.0), 80, 30.0, 0.8),
    ],
)
def test_a_budget_is_spent_by_steps_or_by_time(budget: Budget, step: int, seconds: float, progress: float) -> None:
    assert budget.progress(step, seconds) == progress


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"steps": 5, "minutes": 0.0}])
def test_a_budget_without_steps_or_time_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(WaveOpsError, match="needs steps and time"):
        Budget(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("progress", "step", "factor"),
    [(0.0, 0, 1 / 150), (0.1, 149, 1.0), (0.6, 1000, 1.0), (0.8, 1000, 0.51), (1.0, 1000, 0.02), (2.0, 1000, 0.02)],
)
def test_the_learning_rate_rises_stays_and_falls(progress: float, step: int, factor: float) -> None:
    assert learning_rate_factor(progress, step=step) == pytest.approx(factor)


def test_each_part_of_the_schedule_gets_one_stratified_timestep() -> None:
    timesteps = stratified_timesteps(20, total=1000, generator=torch.Generator().manual_seed(0))
    assert sorted((timesteps // 50).tolist()) == list(range(20))


def test_stratified_timesteps_come_in_random_order() -> None:
    timesteps = stratified_timesteps(20, total=1000, generator=torch.Generator().manual_seed(0))
    assert timesteps.tolist() != sorted(timesteps.tolist())


def test_noise_is_added_by_the_alpha_of_each_timestep() -> None:
    latents, noise = torch.full((2, 4, 1, 1), 3.0), torch.full((2, 4, 1, 1), 5.0)
    mixed = add_noise(latents, noise, alphas_cumprod=torch.tensor([1.0, 0.64]), timesteps=torch.tensor([0, 1]))
    torch.testing.assert_close(mixed[:, 0, 0, 0], torch.tensor([3.0, 0.8 * 3 + 0.6 * 5]))


def test_min_snr_weights_are_1_for_noisy_timesteps_and_smaller_for_clean_ones() -> None:
    alphas_cumprod = torch.tensor([0.99, 0.5, 0.01])  # signal to noise 99, 1 and 1/99
    weights = min_snr_weights(alphas_cumprod, torch.tensor([0, 1, 2]))
    torch.testing.assert_close(weights, torch.tensor([5 / 99, 1.0, 1.0]))
