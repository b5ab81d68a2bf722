"""Moving averages of parameters."""

from __future__ import annotations

import pytest
import torch

from wave_ops.training.averaging import average_decay, update_average


def test_the_average_moves_towards_the_current_values_in_place() -> None:
    average = {"a": torch.tensor([0.0, 4.0]), "b": torch.tensor(1.0)}
    kept = average["a"]
    update_average(average, {"a": torch.tensor([10.0, 4.0]), "b": torch.tensor(0.0)}, decay=0.9)
    torch.testing.assert_close(kept, torch.tensor([1.0, 4.0]))
    assert float(average["b"]) == pytest.approx(0.9)


@pytest.mark.parametrize(("step", "decay"), [(0, 0.1), (90, 0.91), (10**9, 0.999)])
def test_the_decay_grows_with_the_step_to_its_maximum(step: int, decay: float) -> None:
    assert average_decay(step, max_decay=0.999) == pytest.approx(decay)
