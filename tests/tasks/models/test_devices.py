from __future__ import annotations

import pytest
import torch

from tasks.errors import TaskInputError
from tasks.models.devices import choose_backend, choose_device


@pytest.mark.parametrize(
    ("choice", "device", "backend"),
    [("auto", "cpu", "numba"), ("auto", "cuda", "torch"), ("cpu", "cuda", "numba"), ("cuda", "cpu", "torch")],
)
def test_frames_are_propagated_on_the_device_of_the_networks_unless_another_is_chosen(
    monkeypatch: pytest.MonkeyPatch, choice: str, device: str, backend: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_backend(choice, device=device) == backend


def test_missing_cuda_is_refused_with_the_setting_to_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TaskInputError, match="use WAVE_PROPAGATION_DEVICE=cpu"):
        choose_backend("cuda", device="cpu")
    with pytest.raises(TaskInputError, match="use WAVE_DEVICE=cpu"):
        choose_device("cuda")
