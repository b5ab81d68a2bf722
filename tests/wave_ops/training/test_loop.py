"""The training loop: learning, budget and resumption."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from wave_ops.training.loop import Training
from wave_ops.training.schedules import Budget


def small_training(*, matrix_learning_rate: float | None = None, steps: int = 40) -> tuple[Training, nn.Module]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    training = Training(
        parameters=dict(model.named_parameters()),
        learning_rate=0.05,
        matrix_learning_rate=matrix_learning_rate,
        budget=Budget(steps=steps),
        max_decay=0.9,
    )
    return training, model


def loss_of(model: nn.Module, step: int) -> Tensor:
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
    loss: Tensor = (model(x)[:, 0] - x.sum(dim=1)).square().mean()
    return loss


@pytest.mark.parametrize("matrix_learning_rate", [None, 0.05])
def test_the_loss_falls(matrix_learning_rate: float | None) -> None:
    training, model = small_training(matrix_learning_rate=matrix_learning_rate, steps=150)
    losses = [progress.loss for progress in training.run(lambda step: loss_of(model, step))]
    assert len(losses) == 150
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


@pytest.mark.parametrize("matrix_learning_rate", [None, 0.05])
def test_a_resumed_training_gives_the_same_parameters_as_an_uninterrupted_one(
    matrix_learning_rate: float | None,
) -> None:
    whole, model = small_training(matrix_learning_rate=matrix_learning_rate)
    list(whole.run(lambda step: loss_of(model, step)))
    begun, model = small_training(matrix_learning_rate=matrix_learning_rate)
    for progress in begun.run(lambda step: loss_of(model, step)):
        if progress.step == 15:
            break
    kept = {name: value.clone() for name, value in begun.state().items()}
    resumed, model = small_training(matrix_learning_rate=matrix_learning_rate)
    resumed.restore(kept, step=begun.step, seconds=begun.seconds)
    list(resumed.run(lambda step: loss_of(model, step)))
    for name, value in whole.state().items():
        torch.testing.assert_close(resumed.state()[name], value, rtol=0, atol=0)


def test_a_training_ends_when_its_time_is_spent() -> None:
    training, model = small_training()
    training.seconds = 61.0
    training.budget = Budget(steps=40, minutes=1.0)
    assert list(training.run(lambda step: loss_of(model, step))) == []


def test_the_average_lags_behind_the_parameters() -> None:
    training, model = small_training()
    start = {name: value.clone() for name, value in training.average.items()}
    list(training.run(lambda step: loss_of(model, step)))
    name = "0.weight"
    assert not torch.equal(training.average[name], start[name])
    assert not torch.equal(training.average[name], training.parameters[name].detach())
