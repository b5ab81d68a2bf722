"""Frames through a VAE that runs out of memory above a number of values, as a device would."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from tasks import memory
from tasks.memory import StageMemory, VaeBatch
from tasks.vae_batches import decoded_frames, encoded_frames
from wave_ops.diffusion import decode_latents, encode_frames
from wave_ops.footprint import Footprint


@pytest.fixture
def stage(small, monkeypatch):
    """Return a function that makes the memory of a stage of frames of some pixels' height and width."""
    monkeypatch.setattr(memory, "_FITTED", {})

    def make(side: int, *, footprint: Footprint | None = None) -> StageMemory:
        return StageMemory(
            small, size=(side, side), keyframes=5, limit=None, footprint=lambda: footprint, key=("vae", side)
        )

    return make


@contextmanager
def running_out(network: torch.nn.Module, *, above: int) -> Iterator[list[int]]:
    """Let a network run out of memory above a number of cells; yield the numbers of its calls."""
    calls = list[int]()

    def check(_: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        if args[0].is_meta:  # a prediction
            return
        calls.append(args[0][:, 0].numel())
        if calls[-1] > above:
            raise torch.OutOfMemoryError("no memory")

    hook = network.register_forward_pre_hook(check)
    try:
        yield calls
    finally:
        hook.remove()


def pictures(count: int, side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)


def test_where_memory_runs_out_fewer_frames_are_encoded_at_a_time_and_later_stages_begin_with_fewer(
    small, stage, caplog
) -> None:
    frames, first = pictures(5, 64), stage(64)
    with running_out(small.vae.encoder, above=2 * 64**2) as calls:
        found = encoded_frames(small, iter(frames), first, count=5)
    torch.testing.assert_close(found, encode_frames(small, frames))
    assert [call // 64**2 for call in calls] == [4, 2, 2, 1]
    assert caplog.text.count("out of memory with the frames in the VAE; going on with 2 at a time") == 1
    assert stage(64).vae_batch(5, decoding=False) == VaeBatch(frames=2, tile=None)
    assert first.vae_batch(5, decoding=False) == VaeBatch(frames=2, tile=None)


def test_where_memory_runs_out_fewer_latents_are_decoded_at_a_time(small, stage) -> None:
    latents = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with running_out(small.vae.decoder, above=8**2) as calls:
        found = np.stack(list(decoded_frames(small, latents, stage(64))))
    assert np.abs(found.astype(int) - decode_latents(small, latents)).max() <= 1
    assert [call // 8**2 for call in calls] == [3, 2, 1, 1, 1]


def test_a_frame_that_does_not_fit_is_encoded_and_decoded_in_tiles(small, stage, caplog) -> None:
    frames = pictures(2, 256)
    with running_out(small.vae.encoder, above=128**2) as calls:
        latents = encoded_frames(small, iter(frames), stage(256), count=2)
    assert calls[:2] == [2 * 256**2, 256**2]
    assert max(calls[2:]) == 128**2
    torch.testing.assert_close(latents, encode_frames(small, frames, tile=128))
    assert "going on with tiles of 128 pixels" in caplog.text
    memory._FITTED.clear()
    with running_out(small.vae.decoder, above=16**2):
        decoded = np.stack(list(decoded_frames(small, latents, stage(256))))
    assert np.abs(decoded.astype(int) - decode_latents(small, latents, tile=128)).max() <= 1


def test_what_does_not_fit_in_the_smallest_tiles_is_an_error_and_so_is_any_other(small, stage) -> None:
    with pytest.raises(RuntimeError, match="channels"):
        list(decoded_frames(small, torch.zeros(2, 3, 8, 8), stage(64)))
    assert memory._FITTED == {}
    with running_out(small.vae.encoder, above=10), pytest.raises(torch.OutOfMemoryError, match="no memory"):
        encoded_frames(small, iter(pictures(2, 256)), stage(256), count=2)
    assert not small.vae.use_tiling


def test_a_batch_of_the_unet_that_was_halved_limits_the_vae_of_the_same_stage(stage, monkeypatch) -> None:
    monkeypatch.setattr(memory, "vae_bytes", lambda *_, frames, **__: 10 * frames)
    found = stage(64, footprint=Footprint(fixed=1, keyframe=1, batched=5))
    found.halved(3)  # takes 21 bytes
    assert found.vae_batch(5, decoding=True) == VaeBatch(frames=2, tile=None)
