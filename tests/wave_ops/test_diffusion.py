from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.wave_ops._hooks import recorded_inputs
from wave_ops.diffusion import batch_slices, decode_latents, encode_frames, encode_prompt
from wave_ops.errors import WaveOpsError


@pytest.fixture
def frames():
    return np.random.default_rng(0).integers(0, 256, (3, 64, 128, 3), dtype=np.uint8)


def test_sizes_come_from_the_configs(model):
    assert (model.vae_factor, model.size_multiple, model.native_area) == (8, 64, 128 * 128)


def test_encoding_takes_the_posteriors_mean_times_the_scaling_factor(model, frames):
    images = torch.from_numpy(frames).permute(0, 3, 1, 2) / 127.5 - 1
    expected = model.vae.encode(images).latent_dist.mean * 0.18215
    torch.testing.assert_close(encode_frames(model, frames, batch=2), expected, rtol=1e-4, atol=1e-5)


def test_decoding_inverts_the_scaling_and_rounds(model, frames):
    latents = encode_frames(model, frames)
    images = model.vae.decode(latents / 0.18215).sample
    expected = ((images + 1) * 127.5).clamp(0, 255)
    decoded = decode_latents(model, latents, batch=2)
    assert decoded.shape == frames.shape
    assert np.abs(decoded - expected.permute(0, 2, 3, 1).numpy()).max() <= 0.51


def test_tiles_bound_what_the_vae_computes_at_once_and_are_switched_off_afterwards(model, frames):
    plain = encode_frames(model, frames)
    with recorded_inputs(model.vae.decoder.conv_in) as calls:
        decoded = decode_latents(model, plain, tile=64)
    assert {call["0"].shape[-2:] for call in calls} <= {(8, 8), (8, 4), (8, 6), (8, 2), (2, 8), (2, 2), (2, 4)}
    assert decoded.shape == frames.shape
    assert encode_frames(model, frames, tile=64).shape == plain.shape
    assert torch.equal(encode_frames(model, frames), plain)


def test_a_frame_that_does_not_fit_the_factor_is_refused(model):
    with pytest.raises(WaveOpsError, match=r"100x64 do not fit .* multiples of 64"):
        encode_frames(model, np.zeros((1, 64, 100, 3), np.uint8))


def test_prompts_are_encoded_to_the_tokenizers_length(model):
    assert encode_prompt(model, "a red star").shape == (1, 8, 16)
    assert not torch.equal(encode_prompt(model, "a red star"), encode_prompt(model, "a blue star"))


@pytest.mark.parametrize(("count", "size", "lengths"), [(5, None, [5]), (5, 2, [2, 2, 1]), (4, 4, [4]), (1, 8, [1])])
def test_batches_cover_every_frame(count, size, lengths):
    assert [part.stop - part.start for part in batch_slices(count, size)] == lengths


def test_a_batch_of_no_frames_is_refused():
    with pytest.raises(WaveOpsError, match="at least 1"):
        list(batch_slices(4, 0))
