"""Batches of a training step."""

from __future__ import annotations

from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from wave_ops.training.batches import Captions, DiffusionBatch, draw_batch, draw_frame_batch, to_pixels
from wave_ops.training.modules import build_scheduler

WORDS = ("", "a", "red", "star", "over", "plain", "blue", "background", "ring")


class WordTokenizer:
    """A tokenizer with one id per word and 10 tokens per text."""

    model_max_length = 10

    def __call__(self, texts: list[str], *, max_length: int, **_: Any) -> SimpleNamespace:
        rows = [[WORDS.index(word) for word in text.split()] for text in texts]
        return SimpleNamespace(input_ids=torch.tensor([row + [0] * (max_length - len(row)) for row in rows]))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def captions() -> Captions:
    return Captions.of(
        WordTokenizer(), ["a red star over a plain blue background", "a blue ring over a plain red background"]
    )


@pytest.fixture
def latents() -> Tensor:
    return torch.randn(2, 4, 3, 3, generator=seeded(0))


def test_captions_are_tokenized_in_full_without_plain_and_empty(captions: Captions) -> None:
    assert captions.full[0].tolist() == [1, 2, 3, 4, 1, 5, 6, 7, 0, 0]
    assert captions.short[0].tolist() == [1, 2, 3, 4, 1, 6, 7, 0, 0, 0]
    assert captions.empty.tolist() == [[0] * 10]


def test_a_tenth_of_the_drawn_captions_is_empty_and_half_of_the_rest_short(captions: Captions) -> None:
    drawn = captions.draw(torch.zeros(2000, dtype=torch.long), generator=seeded(0))
    fractions = [float((drawn == ids[0]).all(dim=1).float().mean()) for ids in (captions.empty, captions.short)]
    np.testing.assert_allclose(fractions, [0.1, 0.45], atol=0.03)


def test_each_drawn_caption_is_that_of_its_frame(captions: Captions) -> None:
    indices = torch.tensor([0, 1] * 50)
    drawn = captions.draw(indices, generator=seeded(0), empty_fraction=0.0)
    for index, ids in zip(indices.tolist(), drawn, strict=True):
        assert torch.equal(ids, captions.full[index]) or torch.equal(ids, captions.short[index])


def drawn_batch(latents: Tensor, captions: Captions, *, seed: tuple[int, int], size: int = 8) -> DiffusionBatch:
    return draw_batch(latents, captions, candidates=torch.arange(2), size=size, seed=seed)


def test_a_batch_depends_on_the_seed_and_the_step_alone(latents: Tensor, captions: Captions) -> None:
    torch.manual_seed(1)
    first = drawn_batch(latents, captions, seed=(3, 5))
    torch.manual_seed(2)
    again = drawn_batch(latents, captions, seed=(3, 5))
    assert all(torch.equal(getattr(first, field.name), getattr(again, field.name)) for field in fields(first))
    for seed in ((3, 6), (4, 5)):
        assert not torch.equal(drawn_batch(latents, captions, seed=seed).noise, first.noise)


def test_a_batch_is_drawn_from_the_candidates(captions: Captions) -> None:
    latents = torch.randn(6, 4, 3, 3, generator=seeded(0))
    batch = draw_batch(latents, captions, candidates=torch.tensor([0, 1]), size=40, seed=(0, 0))
    assert set(batch.indices.tolist()) == {0, 1}


def test_the_noise_of_a_batch_is_added_to_its_own_latents_at_its_timesteps(latents: Tensor, captions: Captions) -> None:
    batch = drawn_batch(latents, captions, seed=(0, 1))
    expected = build_scheduler().add_noise(latents[batch.indices], batch.noise, batch.timesteps)
    torch.testing.assert_close(batch.noisy, expected)


def test_a_batch_has_the_min_snr_weights_of_its_timesteps(latents: Tensor, captions: Captions) -> None:
    batch = drawn_batch(latents, captions, seed=(0, 1))
    kept = build_scheduler().alphas_cumprod[batch.timesteps]
    ratios = kept / (1 - kept)
    torch.testing.assert_close(batch.weights, torch.where(ratios > 5, 5 / ratios, torch.ones(8)))


def test_pixels_are_channels_first_from_minus_1_to_1() -> None:
    frames = torch.zeros(1, 2, 4, 3, dtype=torch.uint8)
    frames[0, 1, 2] = torch.tensor([0, 51, 255], dtype=torch.uint8)
    pixels = to_pixels(frames)
    assert pixels.shape == (1, 3, 2, 4)
    torch.testing.assert_close(pixels[0, :, 1, 2], torch.tensor([-1.0, -0.6, 1.0]))


def positions(count: int, side: int) -> Tensor:
    """Return frames with the number of the frame, the row and the column as colours."""
    axes = (torch.arange(count), torch.arange(side), torch.arange(side))
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).to(torch.uint8)


def test_crops_are_squares_of_half_the_side_from_one_position() -> None:
    corners = set()
    for step in range(40):
        crops = ((draw_frame_batch(positions(5, 8), 6, crop=True, seed=(0, step)) + 1) * 127.5).round()
        assert crops.shape == (6, 3, 4, 4)
        top, left = int(crops[0, 1, 0, 0]), int(crops[0, 2, 0, 0])
        for number, rows, columns in crops:
            assert number.unique().numel() == 1
            assert torch.equal(rows, (top + torch.arange(4.0))[:, None].expand(4, 4))
            assert torch.equal(columns, (left + torch.arange(4.0))[None].expand(4, 4))
        corners.add((top, left))
    assert {top for top, _ in corners} == {left for _, left in corners} == {0, 1, 2, 3, 4}
    assert any(top != left for top, left in corners)


@pytest.mark.parametrize(("size", "count"), [(16, 4), (3, 1)])
def test_a_quarter_as_many_whole_frames_are_drawn(size: int, count: int) -> None:
    frames = positions(5, 8)
    batch = ((draw_frame_batch(frames, size, crop=False, seed=(0, 0)) + 1) * 127.5).round().to(torch.uint8)
    assert len(batch) == count
    for frame in batch.permute(0, 2, 3, 1):
        assert torch.equal(frame, frames[int(frame[0, 0, 0])])
