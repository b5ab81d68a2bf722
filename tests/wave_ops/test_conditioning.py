from __future__ import annotations

import pytest
import torch

from tests.wave_ops._hooks import recorded_inputs
from tests.wave_ops._plain_method import PlainMethod
from wave_ops.change_mask import prompt_difference
from wave_ops.conditioning import encode_prompts
from wave_ops.editing import NEGATIVE_PROMPT, EditingSettings, edit
from wave_ops.inversion import InversionSettings, invert, reconstruct, step_orders
from wave_ops.settings import WarpSchedule
from wave_ops.sites import resolve_sites

SOURCE, TARGET = "a red star", "a blue star"
STEPS, KEYFRAMES = 5, 3
SCHEDULE = WarpSchedule(steps=STEPS)
INVERSION = InversionSettings(schedule=SCHEDULE, noise_point="previous", seed=3)
ORDERS = step_orders(KEYFRAMES, INVERSION)


@pytest.fixture
def latents():
    return torch.randn(KEYFRAMES, 4, 8, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def warps(make_warps):
    return make_warps(KEYFRAMES, size=(64, 128))


def inverted(model, latents, warps, settings=INVERSION):
    trajectory = [latents]
    invert(
        model,
        latents,
        source_prompt=SOURCE,
        warps=warps,
        settings=settings,
        callback=lambda _, x: trajectory.append(x),
    )
    return trajectory


def test_the_rule_finds_sites_in_the_three_levels_of_sdxl(xl_model):
    sites = resolve_sites(xl_model.unet)
    blocks = ("down_blocks.1", "down_blocks.2", "up_blocks.1", "up_blocks.2")
    assert sites.warp_resnets == tuple(
        f"{block}.resnets.{i}" for block in blocks for i in range(3 if block.startswith("up") else 2)
    )
    assert sites.warp_attentions == sites.extend_attentions
    assert sites.warp_attentions == tuple(
        f"{block}.attentions.{i}.transformer_blocks.{j}.attn1"
        for block, attentions, depth in (("down_blocks.1", 2, 2), ("down_blocks.2", 2, 10), ("up_blocks.1", 3, 2))
        for i in range(attentions)
        for j in range(depth)
    )
    assert sites.inject_attentions == tuple(
        f"up_blocks.1.attentions.{i}.transformer_blocks.{j}.attn1" for i in (1, 2) for j in (0, 1)
    )
    assert sites.inject_resnets == ("up_blocks.1.resnets.1",)


def test_the_unet_is_conditioned_on_the_size_of_the_frames_and_the_pooled_prompt_of_each_branch(xl_model):
    prompts = encode_prompts(xl_model, (SOURCE, TARGET))
    arguments = prompts.arguments(torch.zeros(6, 4, 8, 16))
    added = arguments["added_cond_kwargs"]
    assert added["time_ids"].tolist() == [[64, 128, 0, 0, 64, 128]] * 6
    for rows, branch in ((slice(3), 0), (slice(3, 6), 1)):
        assert (added["text_embeds"][rows] == prompts.pooled[branch]).all()
        assert (arguments["encoder_hidden_states"][rows] == prompts.text[branch]).all()
    assert not torch.equal(prompts.pooled[0], prompts.pooled[1])
    last = prompts.last(1)
    assert torch.equal(last.pooled[0], prompts.pooled[1])
    assert torch.equal(last.text[0], prompts.text[1])


def test_a_unet_without_added_conditions_receives_none(model):
    assert encode_prompts(model, [SOURCE]).arguments(torch.zeros(2, 4, 8, 8)).keys() == {"encoder_hidden_states"}


@pytest.mark.slow
@pytest.mark.parametrize("controlled", [False, True])
def test_an_inversion_and_an_edit_with_sdxl_equal_the_method_frame_by_frame(xl_model, latents, warps, controlled):
    generator = torch.Generator().manual_seed(1)
    edges = torch.rand(KEYFRAMES, 3, 64, 128, generator=generator).round() if controlled else None
    plain = PlainMethod(model=xl_model, steps=STEPS, orders=ORDERS, warps=warps, source_prompt=SOURCE, edges=edges)
    expected = plain.invert(latents)
    trajectory = inverted(xl_model, latents, warps)
    torch.testing.assert_close(torch.stack(trajectory), torch.stack(expected), rtol=1e-5, atol=1e-5)
    edits = list(plain.edit(expected, prompt=TARGET, negative_prompt=NEGATIVE_PROMPT, guidance_scale=3.0))
    found = []
    edit(
        xl_model,
        expected.__getitem__,
        prompt=TARGET,
        source_prompt=SOURCE,
        orders=ORDERS,
        warps=warps,
        settings=EditingSettings(schedule=SCHEDULE, guidance_scale=3.0, controlnet_scale=0.5),
        edges=edges,
        keyframe_batch=2,
        callback=lambda _, x: found.append(x),
    )
    torch.testing.assert_close(torch.stack(found), torch.stack(edits), rtol=1e-5, atol=1e-5)


def test_sampling_with_sdxl_returns_what_was_inverted(xl_model, latents, warps):
    settings = InversionSettings(schedule=SCHEDULE, refinements=2, seed=3)
    trajectory = inverted(xl_model, latents, warps, settings)
    found = reconstruct(xl_model, trajectory[-1], source_prompt=SOURCE, warps=warps, settings=settings, orders=ORDERS)
    error = (found - latents).square().mean().sqrt()
    assert error < 0.05 * (trajectory[-1] - latents).square().mean().sqrt()


def test_the_change_mask_of_sdxl_passes_its_added_conditions(xl_model, latents):
    with recorded_inputs(xl_model.unet.add_embedding) as calls:
        difference = prompt_difference(xl_model, latents, source_prompt=SOURCE, prompt=TARGET, steps=5, seed=0)
    assert {call["0"].shape for call in calls} == {(2 * KEYFRAMES, 6 * 4 + 12)}
    assert difference.shape == (KEYFRAMES, 8, 16)
    assert difference.min() > 0
