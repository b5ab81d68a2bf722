from __future__ import annotations

import os

import pytest

from flows.settings import load_settings
from tasks.errors import TaskInputError


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WAVE_")]:
        monkeypatch.delenv(name)


def test_what_is_given_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAVE_WORKSPACE", "/a")
    monkeypatch.setenv("WAVE_MAX_TASKS", "3")
    settings = load_settings(workspace="/b")
    assert (settings.workspace, settings.max_tasks) == ("/b", 3)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("WAVE_DEVICE", "tpu", "WAVE_DEVICE cannot be 'tpu'"),
        ("WAVE_PROPAGATION_DEVICE", "tpu", "WAVE_PROPAGATION_DEVICE cannot be 'tpu'"),
        ("WAVE_MAX_TASKS", "0", "WAVE_MAX_TASKS cannot be '0'"),
        ("WAVE_DISK_BUDGET", "much", "WAVE_DISK_BUDGET cannot be 'much'"),
        ("WAVE_DISK_BUDGET", "0", "WAVE_DISK_BUDGET cannot be '0'"),
        ("WAVE_MEMORY_LIMIT", "0", "WAVE_MEMORY_LIMIT cannot be '0'"),
        ("WAVE_WORKSPACE", "", "WAVE_WORKSPACE cannot be ''"),
        ("WAVE_WORKSPCE", "/a", "did you mean WAVE_WORKSPACE"),
        ("WAVE_ZZZZZZZZ", "1", "known are WAVE_"),
    ],
)
def test_a_wrong_variable_is_refused_with_one_sentence(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(TaskInputError) as caught:
        load_settings()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_disk_is_given_with_units(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (load_settings().disk_budget, load_settings().disk_reserve) == (None, 10**9)
    monkeypatch.setenv("WAVE_DISK_BUDGET", "1.5GB")
    monkeypatch.setenv("WAVE_DISK_RESERVE", "2GiB")
    assert (load_settings().disk_budget, load_settings().disk_reserve) == (1_500_000_000, 2**31)
