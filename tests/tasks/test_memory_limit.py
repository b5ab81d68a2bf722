from __future__ import annotations

import psutil
import pytest
import torch

from tasks import memory
from tasks.memory import StageMemory, VaeBatch, free_bytes
from wave_ops.footprint import Footprint

MIB = 2**20
FOOTPRINT = Footprint(fixed=10 * MIB, keyframe=1 * MIB, batched=20 * MIB)


@pytest.fixture
def stage(small, monkeypatch):
    """Return a function that makes the memory of a stage of 10 keyframes, with some mebibytes that are free."""
    monkeypatch.setattr(memory, "_FITTED", {})
    monkeypatch.setattr(memory, "_PREDICTED", {})

    def make(mebibytes: float, *, size: tuple[int, int] = (1024, 1024), footprint=lambda: FOOTPRINT) -> StageMemory:
        monkeypatch.setattr(memory, "free_bytes", lambda _device, _limit: int(mebibytes * MIB))
        return StageMemory(small, size=size, keyframes=10, limit=None, footprint=footprint, key="edit")

    return make


def not_called() -> Footprint:
    raise AssertionError("simulated")


@pytest.mark.parametrize(
    ("mebibytes", "chosen", "batch"),
    [(120, None, 5), (60, None, 2), (60, 1, 1), (60, 5, 2), (220, None, None), (220, 3, 3), (25, None, 1)],
)
def test_as_many_keyframes_pass_together_as_fit(stage, mebibytes, chosen, batch):
    assert stage(mebibytes).keyframe_batch(chosen) == batch


def test_the_networks_are_simulated_once_in_a_process(stage):
    calls = []

    def counted() -> Footprint:
        calls.append(1)
        return FOOTPRINT

    assert [stage(mebibytes, footprint=counted).keyframe_batch(None) for mebibytes in (60, 80)] == [2, 3]
    assert len(calls) == 1


def test_what_does_not_fit_by_the_prediction_is_tried_with_one_keyframe_and_a_warning(stage, caplog):
    assert stage(25).keyframe_batch(None) == 1
    assert "One keyframe takes 40 MiB by the prediction, more than the 25 MiB" in caplog.text


def test_nothing_is_simulated_where_there_is_plenty_or_no_choice(stage):
    assert stage(10_000, size=(128, 128), footprint=not_called).keyframe_batch(None) is None
    assert stage(0, footprint=not_called).keyframe_batch(4, divisible=False) == 4


def test_the_batch_that_worked_is_remembered_by_later_stages(stage):
    first = stage(220)
    assert first.keyframe_batch(None) is None
    first.halved(5)
    first.halved(3)
    assert stage(220).keyframe_batch(None) == 3
    assert stage(220, size=(1024, 512)).keyframe_batch(None) == 3


def test_frames_pass_the_vae_together_then_singly_then_in_tiles(stage, monkeypatch):
    def bytes_of(_model, _size, *, frames: int, decoding: bool, tile: int | None) -> int:
        side = 1024 if tile is None else tile
        return frames * (side // 32) ** 2 * MIB * (2 if decoding else 1)  # a whole frame is 1024 MiB

    monkeypatch.setattr(memory, "vae_bytes", bytes_of)
    found = [stage(mebibytes).vae_batch(8, decoding=False) for mebibytes in (4096, 2500, 1024, 1000, 200, 1)]
    assert [(each.frames, each.tile) for each in found] == [
        (4, None),
        (2, None),
        (1, None),
        (1, 512),
        (1, 256),
        (1, 128),
    ]
    assert stage(2048).vae_batch(8, decoding=True) == VaeBatch(frames=1, tile=None)


def test_of_a_limit_is_left_what_the_process_does_not_have():
    taken = psutil.Process().memory_info().rss
    cpu = torch.device("cpu")
    assert free_bytes(cpu, 1) == 0
    assert 0 < free_bytes(cpu, taken + 512 * MIB) <= 768 * MIB
    assert free_bytes(cpu, 2**60) <= psutil.virtual_memory().total
    assert 0 < free_bytes(cpu) < psutil.virtual_memory().total
