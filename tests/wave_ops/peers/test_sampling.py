"""What holds for every compared method on a tiny model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.wave_ops._hooks import has_hooks
from wave_ops.diffusion import StableDiffusion
from wave_ops.editing import EditingSettings, edit
from wave_ops.inversion import InversionSettings, invert
from wave_ops.peers import (
    AttentionMaps,
    CrossFrameAttention,
    FlowAttention,
    PeerMethod,
    ShuffledGrids,
    TokenMerging,
    TokenPropagation,
    align_prompts,
    applied,
    invert_peer,
    sample_peer,
)
from wave_ops.schedule import WarpSchedule

SOURCE, PROMPT = "a red circle", "a blue circle"
SETTINGS = EditingSettings(schedule=WarpSchedule(steps=2), guidance_scale=3.0, extended_attention=False)
FRAMES = 3

METHODS: dict[str, Callable[[StableDiffusion], PeerMethod]] = {
    "alone": lambda _: PeerMethod(),
    "first frame": lambda _: CrossFrameAttention(),
    "first and previous frame": lambda _: CrossFrameAttention(previous=True),
    "token propagation": lambda _: TokenPropagation(interval=2),
    "token merging": lambda _: TokenMerging(chunk=2),
    "shuffled grids": lambda _: ShuffledGrids(side=2),
    "flow attention": lambda _: FlowAttention(
        flows_to_prev=torch.full((FRAMES - 1, 2, 64, 64), 8.0), valid=torch.ones(FRAMES - 1, 64, 64, dtype=torch.bool)
    ),
    "attention maps": lambda model: AttentionMaps(alignment=align_prompts(model, SOURCE, PROMPT), steps=2),
}


@pytest.fixture
def latents() -> Tensor:
    return torch.randn(FRAMES, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def sampled(model: StableDiffusion, latents: Tensor, method: PeerMethod, *, injection: float = 0.5) -> Tensor:
    return sample_peer(
        model,
        lambda j: latents * (1 + 0.1 * j),
        prompt=PROMPT,
        source_prompt=SOURCE,
        negative_prompt="",
        settings=replace(SETTINGS, injection_fraction=injection),
        method=method,
    )


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_deterministic_and_leaves_the_unet_as_it_was(
    name: str, model: StableDiffusion, latents: Tensor
) -> None:
    before = dict(model.unet.attn_processors)
    found = sampled(model, latents, METHODS[name](model))
    assert found.shape == latents.shape
    assert torch.isfinite(found).all()
    assert torch.equal(found, sampled(model, latents, METHODS[name](model)))
    assert model.unet.attn_processors == before
    assert not has_hooks(model.unet)
    if name != "alone":
        assert not torch.allclose(found, sampled(model, latents, PeerMethod()))


@pytest.mark.parametrize(
    "method",
    [
        CrossFrameAttention(),
        CrossFrameAttention(previous=True),
        TokenPropagation(interval=2),
        TokenMerging(chunk=2, local_fraction=1.0, global_fraction=1.0),
    ],
    ids=["first frame", "first and previous frame", "token propagation", "token merging"],
)
def test_frames_that_are_equal_are_edited_as_one_alone(
    method: PeerMethod, model: StableDiffusion, latents: Tensor
) -> None:
    """Other frames have nothing to add: their tokens are the own ones, and repeating all does not change a mean."""
    alike = latents[:1].expand(FRAMES, -1, -1, -1)
    torch.testing.assert_close(sampled(model, alike, method), sampled(model, alike, PeerMethod()), atol=1e-4, rtol=1e-4)


def test_without_a_method_frames_are_edited_as_by_plug_and_play(model: StableDiffusion, latents: Tensor) -> None:
    expected = edit(
        model,
        lambda j: latents * (1 + 0.1 * j),
        prompt=PROMPT,
        source_prompt=SOURCE,
        negative_prompt="",
        orders=[tuple(range(FRAMES))] * 2,
        warps=None,
        settings=SETTINGS,
    )
    torch.testing.assert_close(sampled(model, latents, PeerMethod()), expected, atol=1e-5, rtol=1e-5)


def test_without_a_method_frames_are_inverted_by_plain_ddim(model: StableDiffusion, latents: Tensor) -> None:
    settings, expected = InversionSettings(schedule=WarpSchedule(steps=2)), [latents]
    invert(
        model, latents, source_prompt=SOURCE, warps=None, settings=settings, callback=lambda _, x: expected.append(x)
    )
    found = invert_peer(model, latents, source_prompt=SOURCE, settings=settings, method=PeerMethod())
    for mine, plain in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, plain, atol=1e-5, rtol=1e-5)


def test_processors_are_put_back_after_an_error(model: StableDiffusion) -> None:
    before = dict(model.unet.attn_processors)

    def fail_inside() -> None:
        with applied(model.unet, PeerMethod(), branches=1):
            assert model.unet.attn_processors != before
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail_inside()
    assert model.unet.attn_processors == before
