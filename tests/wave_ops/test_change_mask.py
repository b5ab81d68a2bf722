from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from wave_ops.change_mask import _otsu, change_mask, paste_edit, prompt_difference
from wave_ops.diffusion import encode_prompt
from wave_ops.guided_filter import guided_filter
from wave_ops.schedule import DDIMSchedule


def difference_of(model, latents, **changes):
    arguments = {"source_prompt": "a red star", "prompt": "a blue star", "steps": 10, "seed": 0}
    return prompt_difference(model, latents, **(arguments | changes))


@pytest.fixture
def latents():
    return torch.randn(3, 4, 16, 24, generator=torch.Generator().manual_seed(0))


def test_the_difference_is_that_of_two_predictions_averaged_over_levels_and_draws(model, latents):
    schedule = DDIMSchedule.from_config(model.scheduler_config, steps=10)
    noise, expected = torch.Generator().manual_seed(4), torch.zeros(3, 16, 24)
    prompts = [encode_prompt(model, text) for text in ("a red star", "a blue star")]
    with torch.inference_mode():
        for j in (3, 3, 3, 5, 5, 5, 7, 7, 7):
            a = schedule.alphas_cumprod[j]
            x = a**0.5 * latents + (1 - a) ** 0.5 * torch.randn(latents.shape, generator=noise)
            source, edited = (
                model.unet(x, schedule.timesteps[j - 1], encoder_hidden_states=prompt.expand(3, -1, -1)).sample
                for prompt in prompts
            )
            expected += ((edited - source) ** 2).mean(dim=1).sqrt() / 9
    torch.testing.assert_close(difference_of(model, latents, seed=4), expected, rtol=1e-3, atol=1e-5)


def test_batches_change_no_difference(model, latents):
    torch.testing.assert_close(
        difference_of(model, latents, keyframe_batch=2), difference_of(model, latents), rtol=1e-4, atol=1e-6
    )


def test_prompts_that_agree_have_an_empty_mask(model, latents):
    difference = difference_of(model, latents, prompt="a red star")
    assert not difference.any()
    assert not change_mask(difference, np.zeros((3, 128, 192, 3), np.uint8)).any()


def test_one_threshold_divides_the_pixels_of_all_keyframes_and_the_mask_is_grown_and_soft() -> None:
    difference = torch.full((2, 9, 9), 0.1)
    difference[0, 4, 4] = 1.0  # the second keyframe has nothing that differs, and no mask of its own noise
    difference[1] += 0.01 * torch.rand(9, 9, generator=torch.Generator().manual_seed(0))
    frames = np.zeros((2, 72, 72, 3), np.uint8)
    frames[0, 32:40, 32:40] = 200
    mask = change_mask(difference, frames)
    assert mask.shape == (2, 1, 9, 9)
    assert not mask[1].any()
    torch.testing.assert_close(mask[0, 0, 4], torch.tensor([0, 0, 3, 9, 9, 9, 3, 0, 0]) / 9)
    grown = change_mask(difference, frames, grow=1)
    torch.testing.assert_close(grown[0, 0, 4], torch.tensor([0, 3, 9, 9, 9, 9, 9, 3, 0]) / 9)
    assert change_mask(difference, frames, threshold=0.0).all()


def test_the_mask_reaches_the_tips_of_an_object_that_the_difference_blurs_and_no_further() -> None:
    frames = np.zeros((1, 128, 128, 3), np.uint8)
    frames[0, 56:72, 24:104] = (200, 40, 40)
    object_cells = torch.from_numpy((frames[..., 0] > 0).reshape(1, 16, 8, 16, 8).any((2, 4)))
    difference = torch.zeros(1, 16, 16)
    difference[:, 7:9, 5:11] = 1.0  # strongest in the middle
    difference[:, 7:9, 3:5] = difference[:, 7:9, 11:13] = 0.7
    mask = change_mask(difference, frames)[:, 0]
    assert bool((mask[object_cells] == 1).all())
    assert not mask[:, :5].any()
    assert not mask[:, 11:].any()


def mask_of_all_pixels(difference, frames, threshold):
    """Compute the cells of a mask as it is defined, with all pixels of all frames in memory."""
    size, cell = frames.shape[1:3], frames.shape[1] // difference.shape[1]
    enlarged = F.interpolate(difference[:, None], size=size, mode="bilinear")[:, 0].numpy()
    fitted = [
        guided_filter(frame.astype(np.float32), values, side=2 * cell + 1, ridge=6.5)
        for frame, values in zip(frames, enlarged, strict=True)
    ]
    levels = (np.stack(fitted) * 65_535 / float(difference.max())).round().clip(0, 65_535).astype(np.uint16)
    otsu, _ = cv2.threshold(levels.reshape(len(levels), -1), 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    above = torch.from_numpy(levels > threshold * otsu).float()
    return F.avg_pool2d(above[:, None], cell) > 0.02


@pytest.mark.parametrize("cell", [2, 4, 8, 10])
def test_frames_that_are_read_one_by_one_have_the_mask_of_all_pixels(cell) -> None:
    generator = np.random.default_rng(0)
    difference = torch.from_numpy(generator.gamma(0.7, size=(3, 9, 12)).astype(np.float32))
    frames = generator.integers(0, 256, (3, 9 * cell, 12 * cell, 3), np.uint8)
    for threshold in (0.5, 0.8, 1.4):
        cells = change_mask(difference, iter(frames), threshold=threshold) == 1
        assert torch.equal(cells, mask_of_all_pixels(difference, frames, threshold))
        assert cells.any()
        assert not cells.all()


def test_the_threshold_is_that_of_opencv() -> None:
    generator = np.random.default_rng(1)
    for scale in (300, 3000, 9000):
        levels = generator.gamma(2.0, scale, 20_000).clip(0, 65_535).astype(np.uint16)
        levels[: 20_000 // 3] //= 4
        expected, _ = cv2.threshold(levels[None], 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
        assert _otsu(np.bincount(levels, minlength=65_536)) == expected
    assert _otsu(np.bincount([7] * 20, minlength=65_536)) == 0


def test_pixels_outside_the_mask_are_pasted_from_the_source() -> None:
    source, edited = np.full((1, 64, 64, 3), 10, np.uint8), np.full((1, 64, 64, 3), 250, np.uint8)
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1
    pasted = paste_edit(source, edited, mask)
    assert (pasted[:, :, :28] == 250).all()
    assert (pasted[:, :, 36:] == 10).all()
    assert (np.diff(pasted[0, 0, :, 0].astype(int)) <= 0).all()
