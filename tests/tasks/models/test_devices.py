from __future__ import annotations

import pytest
import torch

from tasks.errors import TaskInputError
from tasks.models.devices import choose_backend, choose_device, stage_device


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


def test_what_is_chosen_for_other_machines_does_not_depend_on_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto", available=True) == "cuda"
    assert choose_backend("cuda", device="cpu", available=True) == "torch"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto", available=False) == "cpu"


@pytest.mark.parametrize(
    ("choice", "dtype", "cuda", "device"),
    [
        ("auto", "float16", True, "cuda"),
        ("auto", "float32", True, "cuda"),
        ("auto", "float32", False, "cpu"),
        ("auto", "bfloat16", False, "cpu"),
        ("cpu", "float16", False, "cpu"),  # a person asked for both
        ("cpu", "float32", True, "cpu"),
    ],
)
def test_a_stage_computes_on_the_device_of_its_own_machine(
    monkeypatch: pytest.MonkeyPatch, choice: str, dtype: str, cuda: bool, device: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    assert stage_device(choice, dtype=dtype) == device


@pytest.mark.parametrize("choice", ["auto", "cuda"])
def test_a_machine_without_cuda_refuses_what_was_planned_for_one_that_has_it(
    monkeypatch: pytest.MonkeyPatch, choice: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TaskInputError, match="no CUDA device"):
        stage_device(choice, dtype="float16")
