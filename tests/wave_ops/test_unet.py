from __future__ import annotations

from contextlib import ExitStack
from itertools import pairwise

import pytest
import torch

from tests.wave_ops._hooks import has_hooks, recorded_inputs, recorded_outputs
from tests.wave_ops._reference import PlainStep
from wave_ops.errors import WaveOpsError
from wave_ops.sites import resolve_sites
from wave_ops.unet import FeatureSession, FeatureStep, injected, within_memory

SIZE = (16, 16)
CELLS = 16 * 16


@pytest.fixture
def latents():
    """(branch, keyframe, channel, height, width) of one branch and four keyframes."""
    return torch.randn(1, 4, 4, *SIZE, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def context():
    """(branch, keyframe, token, channel)."""
    return torch.randn(1, 4, 8, 16, generator=torch.Generator().manual_seed(1))


def plain_noise(model, latents, context):
    with torch.inference_mode():
        noise = model.unet(latents.flatten(0, 1), 501, encoder_hidden_states=context.flatten(0, 1)).sample
    return noise.unflatten(0, latents.shape[:2])


def step_noise(model, session, step, latents, context):
    """Run all batches of a step through a UNet that has the session's hooks."""
    noise = torch.empty_like(latents)
    for frames in session.batches(step, latent_size=tuple(latents.shape[-2:])):
        noise[:, frames] = plain_noise(model, latents[:, frames], context[:, frames])
    return noise


def hooked_noise(model, session, step, latents, context, *, sites=None):
    with injected(model.unet, session, sites=sites or resolve_sites(model.unet)):
        return step_noise(model, session, step, latents, context)


def recorded_calls(modules, model, session, step, latents, context, *, record):
    """Record, by name, the inputs or outputs of all calls of modules after the session's own hooks."""
    with injected(model.unet, session, sites=resolve_sites(model.unet)), ExitStack() as stack:
        seen = {name: stack.enter_context(record(module)) for name, module in modules.items()}
        step_noise(model, session, step, latents, context)
    return seen


def recorded_step(*arguments, record):
    """Record, by name, the inputs or outputs of the first calls."""
    return {name: calls[0] for name, calls in recorded_calls(*arguments, record=record).items()}


def last_attention(model):
    return model.unet.up_blocks[3].attentions[0].transformer_blocks[0].attn1


def test_a_session_that_does_nothing_changes_no_bit(model, latents, context, make_warps):
    session = FeatureSession(warps=make_warps(4))
    noise = hooked_noise(model, session, FeatureStep(order=(0, 1, 2, 3)), latents, context)
    assert torch.equal(noise, plain_noise(model, latents, context))


def test_between_two_steps_a_session_changes_no_bit(model, latents, context, make_warps):
    session = FeatureSession(warps=make_warps(4))
    step = FeatureStep(order=(1, 0, 3, 2), warping=True, extending=True, injecting=True)
    with injected(model.unet, session, sites=resolve_sites(model.unet)):
        step_noise(model, session, step, latents, context)
        between = plain_noise(model, latents, context)
    assert torch.equal(between, plain_noise(model, latents, context))


def test_hooks_leave_the_unet_as_it_was_even_after_an_error(model, latents, context, make_warps):
    before, processors = plain_noise(model, latents, context), dict(model.unet.attn_processors)
    session = FeatureSession(warps=make_warps(4))
    step = FeatureStep(order=(1, 0, 3, 2), warping=True, extending=True)

    def fail_inside():
        with injected(model.unet, session, sites=resolve_sites(model.unet)):
            assert not torch.allclose(step_noise(model, session, step, latents, context), before)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail_inside()
    assert torch.equal(plain_noise(model, latents, context), before)
    assert model.unet.attn_processors == processors
    assert not has_hooks(model.unet)


def assert_warped_along(order, grid, *, before, after):
    """Compare with the recursion, frame by frame; features (frame, position, channel) in the order of the step."""
    expected = before.clone()
    for place, pair in enumerate(pairwise(order), start=1):
        warped = expected[place - 1][grid.index[pair].int()]
        expected[place] = torch.where(grid.mask[pair][:, None], warped, before[place])
    assert torch.equal(after, expected)
    assert not torch.equal(after, before)


def test_warping_copies_features_along_the_order_before_the_first_convolution(model, latents, context, make_warps):
    warps, order, conv1 = make_warps(4), (1, 0, 3, 2), model.unet.down_blocks[0].resnets[0].conv1
    step = FeatureStep(order=order, warping=True)
    with recorded_inputs(conv1) as calls:
        inner = recorded_step(
            {"conv1": conv1}, model, FeatureSession(warps=warps), step, latents, context, record=recorded_inputs
        )
    before, after = (call["0"].flatten(2).mT for call in (calls[0], inner["conv1"]))
    assert_warped_along(order, warps.at(SIZE), before=before, after=after)


def test_warping_copies_features_along_the_order_before_self_attention(model, latents, context, make_warps):
    warps, order, attn1 = make_warps(4), (1, 0, 3, 2), last_attention(model)
    step = FeatureStep(order=order, warping=True)
    with recorded_inputs(attn1) as calls:
        inner = recorded_step(
            {"attn1": attn1}, model, FeatureSession(warps=warps), step, latents, context, record=recorded_inputs
        )
    assert_warped_along(order, warps.at(SIZE), before=calls[0]["0"], after=inner["attn1"]["0"])


def test_masks_of_zero_leave_the_noise_unchanged(model, latents, context, make_warps):
    session = FeatureSession(warps=make_warps(4, mask=-1.0))
    noise = hooked_noise(model, session, FeatureStep(order=(1, 0, 3, 2), warping=True), latents, context)
    torch.testing.assert_close(noise, plain_noise(model, latents, context), rtol=1e-5, atol=1e-6)


def test_zero_flow_and_full_masks_copy_the_first_frames_features_to_all_frames(model, latents, context, make_warps):
    context = context[:, :1].expand(-1, 4, -1, -1)
    session = FeatureSession(warps=make_warps(4, flow=0.0, mask=2.0))
    (warped,) = hooked_noise(model, session, FeatureStep(order=(0, 1, 2, 3), warping=True), latents, context)
    (alike,) = plain_noise(model, latents[:, :1].expand_as(latents), context)
    (plain,) = plain_noise(model, latents, context)
    torch.testing.assert_close(warped[0], alike[0], rtol=1e-4, atol=1e-5)
    assert (warped[1:] - warped[:1]).abs().mean() < (plain[1:] - warped[:1]).abs().mean()


@pytest.mark.parametrize("extending", [False, True])
@pytest.mark.parametrize("keyframe_batch", [1, 2, 3])
def test_several_batches_predict_the_same_noise_as_one(model, latents, context, make_warps, keyframe_batch, extending):
    warps, step = make_warps(4), FeatureStep(order=(2, 3, 0, 1), warping=True, extending=extending)
    whole, parts = (
        hooked_noise(model, FeatureSession(warps=warps, keyframe_batch=size), step, latents, context)
        for size in (None, keyframe_batch)
    )
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("keyframe_batch", [None, 1, 2, 3])
@pytest.mark.parametrize(
    "acting",
    [
        ("warping",),
        ("warping", "extending"),
        ("warping", "injecting"),
        ("extending", "injecting"),
        ("warping", "extending", "injecting"),
    ],
    ids=" and ".join,
)
def test_a_step_of_three_branches_equals_the_recursion_frame_by_frame(model, make_warps, acting, keyframe_batch):
    generator, order, size = torch.Generator().manual_seed(2), (2, 3, 0, 1), (16, 24)
    latents = torch.randn(3, 4, 4, *size, generator=generator)
    context = torch.randn(3, 8, 16, generator=generator)
    warps, flags = make_warps(4, size=(128, 192), flow=20.0), dict.fromkeys(acting, True)
    plain = PlainStep(unet=model.unet, sites=resolve_sites(model.unet), order=order, warps=warps, **flags)
    with torch.inference_mode():
        expected = plain(latents, 501, context)
    session = FeatureSession(warps=warps, keyframe_batch=keyframe_batch)
    step = FeatureStep(order=order, branches=3, injecting_features=flags.get("injecting", False), **flags)
    noise = hooked_noise(model, session, step, latents, context[:, None].expand(-1, 4, -1, -1))
    torch.testing.assert_close(noise, expected, rtol=1e-4, atol=1e-5)


def test_a_step_in_several_batches_reads_nothing_of_the_step_before(model, latents, context, make_warps):
    warps = make_warps(4)
    steps = [FeatureStep(order=order, warping=True, extending=True) for order in ((2, 3, 0, 1), (1, 0, 2, 3))]
    session = FeatureSession(warps=warps, keyframe_batch=3)
    with injected(model.unet, session, sites=resolve_sites(model.unet)):
        _, after = (step_noise(model, session, step, latents, context) for step in steps)
    alone = hooked_noise(model, FeatureSession(warps=warps, keyframe_batch=3), steps[1], latents, context)
    assert torch.equal(after, alone)


def test_extended_attention_leaves_the_first_frame_and_changes_the_others(model, latents, context):
    (before,) = plain_noise(model, latents, context)
    step = FeatureStep(order=(0, 1, 2, 3), extending=True)
    (after,) = hooked_noise(model, FeatureSession(warps=None), step, latents, context)
    torch.testing.assert_close(after[0], before[0], rtol=1e-4, atol=1e-5)
    assert all((after[i] - before[i]).abs().max() > 1e-4 for i in (1, 2, 3))


def test_extended_keys_and_values_are_the_first_frames_tokens_then_the_frames_own(model, latents, context):
    two_branches = [tensor.unflatten(1, (2, 2))[0] for tensor in (latents, context)]
    step = FeatureStep(order=(0, 1), branches=2, extending=True)
    block = model.unet.up_blocks[3].attentions[0].transformer_blocks[0]
    modules = {"k": block.attn1.to_k, "v": block.attn1.to_v}
    session, record = FeatureSession(warps=None), {"record": recorded_outputs}
    tokens = recorded_step({"n": block.norm1}, model, session, step, *two_branches, **record)["n"]
    seen = recorded_calls(modules, model, session, step, *two_branches, **record)
    for name, projection in modules.items():
        first, second = projection(tokens).unflatten(0, (2, 2)).unbind(1)
        alone, extended = seen[name]
        torch.testing.assert_close(alone, first)
        torch.testing.assert_close(extended, torch.cat([first, second], dim=1))


def test_the_tokens_of_the_first_frame_are_neither_projected_nor_attended_to_twice(model, latents, context):
    step = FeatureStep(order=(0, 1, 2, 3), extending=True)
    attn1 = last_attention(model)
    modules = {"q": attn1.to_q, "k": attn1.to_k}
    seen = recorded_calls(modules, model, FeatureSession(warps=None), step, latents, context, record=recorded_outputs)
    assert [tuple(call.shape[:2]) for call in seen["q"]] == [(1, CELLS), (3, CELLS)]
    assert [tuple(call.shape[:2]) for call in seen["k"]] == [(1, CELLS), (3, 2 * CELLS)]


def test_a_call_that_failed_leaves_nothing_for_another_of_the_same_batch(model, latents, context):
    step = FeatureStep(order=(0, 1, 2, 3), extending=True)
    expected = hooked_noise(model, FeatureSession(warps=None), step, latents, context)
    session, last = FeatureSession(warps=None), last_attention(model).to_out[0]

    def fail(*_):
        raise RuntimeError("no memory")

    with injected(model.unet, session, sites=resolve_sites(model.unet)):
        for _ in session.batches(step, latent_size=SIZE):
            hook = last.register_forward_pre_hook(fail)
            try:
                with pytest.raises(RuntimeError, match="no memory"):
                    plain_noise(model, latents + 1, context)
            finally:
                hook.remove()
            found = plain_noise(model, latents, context)
    assert torch.equal(found, expected)


def test_what_the_source_branch_replaces_is_not_computed_for_the_others(model, latents, context):
    latents, context = (torch.cat([tensor] * 3)[:, :2] for tensor in (latents, context))
    block = model.unet.up_blocks[1]
    attn1, resnet = block.attentions[1].transformer_blocks[0].attn1, block.resnets[1]
    modules = {"q": attn1.to_q, "k": attn1.to_k, "v": attn1.to_v, "first": resnet.conv1, "second": resnet.conv2}
    counted = dict.fromkeys(modules, 0)

    def forward_of(name, module):
        inner = module.forward

        def forward(features):
            counted[name] = len(features)
            return inner(features)

        return forward

    step = FeatureStep(order=(0, 1), branches=3, injecting=True, injecting_features=True)
    try:
        for name, module in modules.items():
            module.forward = forward_of(name, module)
        hooked_noise(model, FeatureSession(warps=None), step, latents, context)
    finally:
        for module in modules.values():
            del module.forward
    assert counted == {"q": 2, "k": 2, "v": 6, "first": 2, "second": 2}


@pytest.mark.parametrize("branches", [2, 3])
def test_injection_replaces_queries_keys_and_residual_of_every_edit_branch_by_the_sources(
    model, latents, context, branches
):
    latents = torch.cat([latents + i for i in range(branches)])[:, :2]
    context = torch.cat([context + i for i in range(branches)])[:, :2]
    block = model.unet.up_blocks[1]
    step = FeatureStep(order=(0, 1), branches=branches, injecting=True, injecting_features=True)
    attn1 = block.attentions[1].transformer_blocks[0].attn1
    modules = {"q": attn1.to_q, "k": attn1.to_k, "v": attn1.to_v, "r": block.resnets[1].conv2}
    session = FeatureSession(warps=None)
    seen = recorded_step(modules, model, session, step, latents, context, record=recorded_outputs)
    for source, *edits in (seen[name].chunk(branches) for name in "qkr"):
        assert all(torch.equal(edit, source) for edit in edits)
    source, *edits = seen["v"].chunk(branches)
    assert not any(torch.equal(edit, source) for edit in edits)


@pytest.mark.parametrize(("injecting", "injecting_features"), [(True, False), (False, True)])
def test_attention_and_features_are_injected_independently(model, latents, context, injecting, injecting_features):
    latents, context = torch.cat([latents, latents + 1])[:, :2], torch.cat([context, context + 1])[:, :2]
    block = model.unet.up_blocks[1]
    step = FeatureStep(order=(0, 1), branches=2, injecting=injecting, injecting_features=injecting_features)
    modules = {"q": block.attentions[1].transformer_blocks[0].attn1.to_q, "r": block.resnets[1].conv2}
    seen = recorded_step(modules, model, FeatureSession(warps=None), step, latents, context, record=recorded_outputs)
    for name, acts in (("q", injecting), ("r", injecting_features)):
        source, edit = seen[name].chunk(2)
        assert torch.equal(source, edit) == acts


def test_extended_keys_and_values_can_be_those_of_the_first_frame_in_time(model, latents, context, make_warps):
    step = FeatureStep(order=(2, 3, 0, 1), warping=True, extending=True)
    session = FeatureSession(warps=make_warps(4), anchor="time")
    modules = {"v": last_attention(model).to_v}
    seen = recorded_calls(modules, model, session, step, latents, context, record=recorded_outputs)
    alone, extended = seen["v"]
    assert torch.equal(extended[:, :CELLS], alone.expand(3, -1, -1))
    assert not torch.equal(extended[0, CELLS:], alone[0])


def test_the_first_frame_in_time_returns_to_its_place_in_the_order(model, latents, context):
    found, expected = (
        hooked_noise(
            model,
            FeatureSession(warps=None, anchor=anchor),
            FeatureStep(order=order, extending=True),
            latents,
            context,
        )
        for anchor, order in (("time", (2, 3, 0, 1)), ("order", (0, 1, 2, 3)))
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 1, 3)])
def test_both_anchors_are_the_same_where_the_order_begins_with_the_first_frame(
    model, latents, context, make_warps, order
):
    warps, step = make_warps(4), FeatureStep(order=order, warping=True, extending=True)
    noises = [
        hooked_noise(model, FeatureSession(warps=warps, anchor=anchor), step, latents, context)
        for anchor in ("order", "time")
    ]
    assert torch.equal(*noises)


def test_several_batches_cannot_all_attend_to_the_first_frame_in_time(make_warps):
    session = FeatureSession(warps=make_warps(4), anchor="time", keyframe_batch=2)
    step = FeatureStep(order=(0, 1, 2, 3), warping=True, extending=True)
    with pytest.raises(WaveOpsError, match="all 4 keyframes in one batch"):
        next(session.batches(step, latent_size=SIZE))


def test_several_batches_that_are_only_warped_need_no_anchor_in_time(model, latents, context, make_warps):
    warps, step = make_warps(4), FeatureStep(order=(3, 2, 1, 0), warping=True)
    noises = [
        hooked_noise(model, FeatureSession(warps=warps, anchor=anchor, keyframe_batch=2), step, latents, context)
        for anchor in ("order", "time")
    ]
    assert torch.equal(*noises)


def test_attention_can_be_extended_where_it_is_not_warped(model, latents, context, make_warps):
    rule = resolve_sites(model.unet)
    chosen = {"warp_resnets": (), "warp_attentions": (), "extend_attentions": rule.warp_attentions}
    sites = resolve_sites(model.unet, sites={"inject_attentions": (), "inject_resnets": (), **chosen})
    step = FeatureStep(order=(1, 0, 2, 3), warping=True, extending=True)
    noises = [
        hooked_noise(model, FeatureSession(warps=warps), step, latents, context, sites=where)
        for warps, where in ((make_warps(4), sites), (None, rule))
    ]
    assert torch.equal(*noises)


def test_between_batches_nothing_is_kept_but_what_later_ones_read(model, latents, context, make_warps):
    session = FeatureSession(warps=make_warps(4), keyframe_batch=2)
    step = FeatureStep(order=(0, 1, 2, 3), warping=True, extending=True)
    with injected(model.unet, session, sites=resolve_sites(model.unet)), torch.inference_mode():
        batches = session.batches(step, latent_size=SIZE)
        frames = next(batches)
        model.unet(latents[0, frames], 500, encoder_hidden_states=context[0, frames])
        kept = [*session._last.values(), *session._anchors.values()]
        assert len(kept) == 12 + 12 + 2 * 12
        assert all(each.untyped_storage().nbytes() == each.nbytes for each in kept)
        batches.close()
    assert not session._last
    assert not session._anchors


def test_where_memory_runs_out_the_batch_is_halved_until_it_fits_and_stays_so(caplog):
    session, tried = FeatureSession(warps=None), []

    def compute():
        tried.append(session.keyframe_batch)
        if session.keyframe_batch is None or session.keyframe_batch > 2:
            raise torch.OutOfMemoryError("no memory")
        return "noise"

    assert within_memory(session, 7, compute) == "noise"
    assert tried == [None, 4, 2]
    assert within_memory(session, 7, compute) == "noise"
    assert tried == [None, 4, 2, 2]
    assert "7 keyframes at a time; going on with 4" in caplog.text


@pytest.mark.parametrize(
    "session", [FeatureSession(warps=None, keyframe_batch=1), FeatureSession(warps=None, anchor="time")]
)
def test_what_cannot_be_halved_ends_with_the_error(session):
    with pytest.raises(torch.OutOfMemoryError):
        within_memory(session, 4, _no_memory)


def test_main_memory_that_runs_out_halves_the_batch_too():
    session, smaller = FeatureSession(warps=None), []

    def compute():
        if session.keyframe_batch is None:
            torch.empty(2**60, dtype=torch.uint8)
        return "noise"

    assert within_memory(session, 6, compute, halved=smaller.append) == "noise"
    assert smaller == [3]


def test_other_errors_do_not_halve_the_batch():
    session = FeatureSession(warps=None)
    with pytest.raises(RuntimeError, match="shapes"):
        within_memory(session, 4, _shapes_differ)
    assert session.keyframe_batch is None


def _shapes_differ():
    raise RuntimeError("shapes differ")


def _no_memory():
    raise torch.OutOfMemoryError("no memory")
