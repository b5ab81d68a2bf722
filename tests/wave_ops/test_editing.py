from __future__ import annotations

from functools import partial

import pytest
import torch

from tests.wave_ops._hooks import recorded_inputs, recorded_outputs
from tests.wave_ops._reference import PlainStep
from wave_ops.diffusion import encode_prompt
from wave_ops.editing import NEGATIVE_PROMPT, EditingSettings, edit
from wave_ops.errors import WaveOpsError
from wave_ops.inversion import InversionSettings, invert, step_orders
from wave_ops.schedule import DDIMSchedule, WarpSchedule
from wave_ops.sites import resolve_sites

STEPS = 6


def editing_settings(*, warp_fraction=0.8, window="aligned", **settings):
    schedule = WarpSchedule(steps=STEPS, window=window, warp_fraction=warp_fraction)
    return EditingSettings(schedule=schedule, **settings)


@pytest.fixture(scope="module")
def source(model):
    """The stored inversion of three keyframes, without warping."""
    stored = [torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(0))]
    settings = InversionSettings(schedule=WarpSchedule(steps=STEPS), refinements=2)
    invert(
        model,
        stored[0],
        source_prompt="a red star",
        warps=None,
        settings=settings,
        callback=lambda _, x: stored.append(x),
    )
    return stored


@pytest.fixture
def edges():
    return torch.rand(3, 3, 128, 128, generator=torch.Generator().manual_seed(1)).round()


def edited(model, source, *, settings=None, **arguments):
    defaults = {"prompt": "a blue star", "source_prompt": "a red star", "warps": None}
    orders = step_orders(3, InversionSettings(schedule=WarpSchedule(steps=STEPS)))
    settings = editing_settings(**({"guidance_scale": 5.0} | (settings or {})))
    return edit(model, source.__getitem__, settings=settings, **(defaults | {"orders": orders} | arguments))


def test_the_source_prompt_at_guidance_one_returns_the_source(model, source):
    settings = {"guidance_scale": 1.0, "extended_attention": False, "warp_fraction": 0.0}
    back = edited(model, source, prompt="a red star", settings=settings)
    assert (back - source[0]).abs().mean() < 0.02 * source[0].abs().mean()


def test_another_prompt_yields_another_result(model, source):
    assert not torch.allclose(edited(model, source), edited(model, source, prompt="a green ring"), atol=1e-3)


def test_without_warping_injection_and_extension_it_is_plain_guided_ddim(model, source):
    settings = {"injection_fraction": 0.0, "extended_attention": False, "warp_fraction": 0.0}
    result = edited(model, source, negative_prompt="ugly", settings=settings)
    schedule = DDIMSchedule.from_config(model.scheduler_config, steps=STEPS)
    x = source[STEPS]
    with torch.inference_mode():
        for j in range(STEPS, 0, -1):
            uncond, cond = (
                model.unet(
                    x, schedule.timesteps[j - 1], encoder_hidden_states=encode_prompt(model, text).expand(3, -1, -1)
                ).sample
                for text in ("ugly", "a blue star")
            )
            x = schedule.step(x, uncond + 5.0 * (cond - uncond), j)
    torch.testing.assert_close(result, x, rtol=1e-3, atol=1e-3)


def control_residuals(model, x, edges, *, timestep, context, injecting, branch, frame):
    """Compute a ControlNet's residuals for one frame of one edit branch, at scale 0.5."""
    if injecting and branch == 0:
        return {}
    down, mid = model.controlnet(
        x[frame][None],
        timestep,
        encoder_hidden_states=context[branch][None],
        controlnet_cond=edges[frame][None],
        conditioning_scale=0.5,
        return_dict=False,
    )
    return {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}


def plain_edit(model, stored, *, orders, warps, edges, guidance_scale):
    """The method as written, frame by frame: five of six steps warp and extend attention, the first three inject."""
    schedule = DDIMSchedule.from_config(model.scheduler_config, steps=STEPS)
    source, uncond, cond = (encode_prompt(model, text) for text in ("a red star", NEGATIVE_PROMPT, "a blue star"))
    x = stored[STEPS]
    for j in range(STEPS, 0, -1):
        injecting, warping, timestep = j > 3, j > 1, schedule.timesteps[j - 1]
        latents, context = [x, x], torch.cat([uncond, cond])
        if injecting:
            latents, context = [stored[j], x, x], torch.cat([source, uncond, cond])
        step = PlainStep(
            unet=model.unet,
            sites=resolve_sites(model.unet),
            order=orders[j - 1],
            warps=warps,
            warping=warping,
            extending=warping,
            injecting=injecting,
        )
        control = partial(control_residuals, model, x, edges, timestep=timestep, context=context, injecting=injecting)
        noise = step(torch.stack(latents), timestep, context, control)
        x = schedule.step(x, noise[-2] + guidance_scale * (noise[-1] - noise[-2]), j)
    return x


ORDERS = [(0, 1, 2), (2, 1, 0), (1, 0, 2), (2, 0, 1), (1, 2, 0), (0, 2, 1)]


@pytest.mark.parametrize("keyframe_batch", [None, 2])
def test_a_whole_edit_equals_the_method_frame_by_frame(model, source, make_warps, edges, keyframe_batch):
    arguments = {"warps": make_warps(3), "edges": edges, "orders": ORDERS}
    with torch.inference_mode():
        expected = plain_edit(model, source, guidance_scale=5.0, **arguments)
    result = edited(model, source, keyframe_batch=keyframe_batch, **arguments)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("step_index", range(1, STEPS + 1))
def test_an_order_acts_on_its_own_step_alone(model, source, make_warps, step_index):
    orders = list(ORDERS)
    orders[step_index - 1] = tuple(reversed(orders[step_index - 1]))
    traces = []
    for each in (ORDERS, orders):
        steps = {}
        edited(model, source, warps=make_warps(3), orders=each, callback=steps.__setitem__)
        traces.append(steps)
    changed = [j for j in range(STEPS, 0, -1) if not torch.allclose(traces[0][j - 1], traces[1][j - 1], atol=1e-3)]
    assert changed[:1] == ([] if step_index == 1 else [step_index])  # the last step of an edit, j = 1, is not warped


def test_the_controlnet_gets_each_keyframes_own_edges_with_the_negative_and_the_edited_prompt(
    model, source, make_warps, edges
):
    with recorded_inputs(model.controlnet) as calls:
        edited(model, source, warps=make_warps(3), edges=edges, orders=ORDERS)
    uncond, cond = (encode_prompt(model, text).expand(3, -1, -1) for text in (NEGATIVE_PROMPT, "a blue star"))
    for call, order in zip(calls, reversed(ORDERS), strict=True):
        assert torch.equal(call["controlnet_cond"], edges[list(order)].repeat(2, 1, 1, 1))
        assert torch.equal(call["encoder_hidden_states"], torch.cat([uncond, cond]))


def test_the_source_branch_is_computed_only_while_its_features_are_injected(model, source):
    with recorded_inputs(model.unet) as calls:
        half = edited(model, source, settings={"injection_fraction": 0.5})
    assert [len(call["0"]) for call in calls] == [9, 9, 9, 6, 6, 6]
    never = edited(model, source, settings={"injection_fraction": 0.0})
    assert not torch.allclose(half, never, atol=1e-3)


@pytest.mark.parametrize("keyframe_batch", [None, 2])
def test_at_guidance_one_no_unconditional_branch_is_computed(model, source, make_warps, edges, keyframe_batch):
    arguments = {"warps": make_warps(3), "edges": edges, "keyframe_batch": keyframe_batch}
    with recorded_inputs(model.unet) as calls, recorded_inputs(model.controlnet) as controlled:
        result = edited(model, source, settings={"guidance_scale": 1.0}, **arguments)
    assert sum(len(call["0"]) for call in calls) == 3 * (3 * 2 + 3 * 1)
    assert sum(len(call["0"]) for call in controlled) == 3 * STEPS
    nearly = edited(model, source, settings={"guidance_scale": 1.0 + 1e-7}, **arguments)
    torch.testing.assert_close(result, nearly, rtol=1e-4, atol=1e-4)


def test_an_edit_that_runs_out_of_memory_goes_on_in_smaller_batches(model, source, make_warps):
    whole = edited(model, source, warps=make_warps(3))

    def run_out(_, args):
        if len(args[0]) > 6:
            raise torch.OutOfMemoryError("no memory")

    hook = model.unet.register_forward_pre_hook(run_out)
    try:
        result = edited(model, source, warps=make_warps(3))
    finally:
        hook.remove()
    torch.testing.assert_close(result, whole, rtol=1e-2, atol=1e-3)


def test_with_injection_the_result_is_nearer_to_the_source(model, source):
    distances = [
        (edited(model, source, settings={"injection_fraction": part}) - source[0]).abs().mean() for part in (0.0, 1.0)
    ]
    assert distances[1] < distances[0]


def test_a_resumed_edit_is_identical_to_an_uninterrupted_one(model, source, make_warps):
    warps, stored = make_warps(3), {}
    whole = edited(model, source, warps=warps, callback=stored.__setitem__)
    assert torch.equal(edited(model, source, warps=warps, start=(2, stored[2])), whole)
    assert torch.equal(stored[0], whole)


@pytest.mark.parametrize("keyframe_batch", [1, 2])
def test_the_batch_size_does_not_change_the_result(model, source, make_warps, edges, keyframe_batch):
    whole = edited(model, source, warps=make_warps(3), edges=edges)
    parts = edited(model, source, warps=make_warps(3), edges=edges, keyframe_batch=keyframe_batch)
    torch.testing.assert_close(parts, whole, rtol=1e-2, atol=1e-3)


def test_the_controlnet_acts_on_the_edit_branches_only(model, source, edges):
    with recorded_outputs(model.unet) as outputs:
        plain = edited(model, source)
        controlled = edited(model, source, edges=edges)
    without, with_edges = outputs[0].sample, outputs[STEPS].sample
    assert torch.equal(without[:3], with_edges[:3])
    assert not torch.allclose(without[3:], with_edges[3:], atol=1e-4)
    assert not torch.allclose(plain, controlled, atol=1e-4)


def test_a_controlnet_of_scale_zero_changes_nothing(model, source, edges):
    torch.testing.assert_close(
        edited(model, source, edges=edges, settings={"controlnet_scale": 0.0}),
        edited(model, source),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("window", ["published", "aligned"])
def test_an_edit_warps_its_first_steps_in_both_windows(model, source, make_warps, window):
    settings, traces = {"window": window, "warp_fraction": 0.5, "extended_attention": False}, []
    for warps in (make_warps(3), None):
        steps = {}
        edited(model, source, warps=warps, settings=settings, callback=steps.__setitem__)
        traces.append(steps[STEPS - 1])
    assert not torch.allclose(*traces, atol=1e-4)


def test_fewer_orders_than_steps_are_refused(model, source):
    with pytest.raises(WaveOpsError, match="6 steps"):
        edited(model, source, orders=[(0, 1, 2)])


@pytest.mark.parametrize("fraction", [-0.1, 1.1])
def test_an_injected_fraction_outside_zero_to_one_is_refused(fraction):
    with pytest.raises(WaveOpsError, match="0 to 1"):
        EditingSettings(injection_fraction=fraction)


def test_attention_is_extended_without_flows_too_but_only_in_the_warped_steps(model, source):
    independent = edited(model, source, settings={"extended_attention": False})
    assert not torch.allclose(edited(model, source), independent, atol=1e-3)
    never = edited(model, source, settings={"warp_fraction": 0.0})
    assert torch.equal(never, independent)


def test_the_anchor_in_time_changes_the_result_unless_orders_begin_with_it(model, source, make_warps):
    warps, natural = make_warps(3), [(0, 1, 2)] * STEPS
    results = [
        edited(model, source, warps=warps, settings={"anchor": anchor}, **orders)
        for anchor in ("order", "time")
        for orders in ({}, {"orders": natural})
    ]
    assert torch.equal(results[1], results[3])
    assert not torch.allclose(results[0], results[2], atol=1e-3)


def test_an_anchor_in_time_is_refused_where_keyframes_come_in_several_batches(model, source, make_warps):
    with pytest.raises(WaveOpsError, match="one batch"):
        edited(model, source, warps=make_warps(3), settings={"anchor": "time"}, keyframe_batch=2)


@pytest.mark.parametrize("keyframe_batch", [None, 2])
def test_outside_the_mask_the_latents_of_every_step_are_the_inversions(model, source, make_warps, keyframe_batch):
    mask = torch.zeros(3, 1, 16, 16)
    mask[:, :, 4:8, 4:8], mask[:, :, 8:12, 4:8] = 1.0, 0.5
    steps, whole = {}, {}
    arguments = {"warps": make_warps(3), "keyframe_batch": keyframe_batch}
    edited(model, source, mask=mask, callback=steps.__setitem__, **arguments)
    edited(model, source, callback=whole.__setitem__, **arguments)
    outside = mask.expand_as(source[0]) == 0
    for j, x in steps.items():
        assert torch.equal(x[outside], source[j][outside])
    first = STEPS - 1  # until here both edits have the same latents
    half = mask.expand_as(source[0]) == 0.5
    torch.testing.assert_close(steps[first][half], (whole[first][half] + source[first][half]) / 2)
    assert not torch.equal(steps[0][mask.expand_as(source[0]) == 1], source[0][mask.expand_as(source[0]) == 1])


def test_attention_and_features_have_fractions_of_their_own() -> None:
    settings = editing_settings(injection_fraction=0.5, feature_injection_fraction=0.8)
    steps = range(1, STEPS + 1)
    assert [j for j in steps if settings.injects(j)] == [4, 5, 6]
    assert [j for j in steps if settings.injects_features(j)] == [2, 3, 4, 5, 6]
    assert editing_settings(injection_fraction=0.2).features_fraction == 0.2
    with pytest.raises(WaveOpsError, match=r"1\.5"):
        editing_settings(feature_injection_fraction=1.5)
    with pytest.raises(WaveOpsError, match="keep_grow"):
        editing_settings(keep_grow=-1)
    with pytest.raises(WaveOpsError, match="keep_threshold"):
        editing_settings(keep_threshold=-1.0)
