from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from wave_ops.errors import WaveOpsError
from wave_ops.unet import FeatureSession, injected, resolve_sites, with_block


def run_unet(model, latents, context):
    with torch.inference_mode():
        return model.unet(latents, 501, encoder_hidden_states=context).sample


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 4, 16, 16, generator=generator), torch.randn(4, 8, 16, generator=generator)


def begin(session, order, *, branches=1, **flags):
    session.begin_step(order, **({"warping": True} | flags))
    session.begin_run(slice(0, len(order)), branches=branches, latent_size=(16, 16))


def test_the_rule_gives_the_published_sites_of_stable_diffusion(model):
    sites = resolve_sites(model.unet)
    assert len(sites.warp_resnets) == 12
    assert len(sites.warp_attentions) == 12
    assert {name.rsplit(".resnets")[0] for name in sites.warp_resnets} == {
        "down_blocks.0",
        "down_blocks.1",
        "down_blocks.2",
        "up_blocks.2",
        "up_blocks.3",
    }
    assert [name[:24] for name in sites.inject_attentions] == [
        f"up_blocks.{block}.attentions.{i}" for block in (1, 2, 3) for i in range(3) if (block, i) != (1, 0)
    ]
    assert sites.inject_resnets == ("up_blocks.1.resnets.1",)


def test_an_unknown_site_is_refused_with_near_names(model):
    sites = {
        "warp_resnets": ["down_blocks.0.resnet.0"],
        "warp_attentions": [],
        "inject_attentions": [],
        "inject_resnets": [],
    }
    with pytest.raises(WaveOpsError, match=r"down_blocks\.0\.resnets\.0"):
        resolve_sites(model.unet, sites=sites)


def test_a_session_that_does_nothing_changes_no_bit(model, batch, make_warps):
    before = run_unet(model, *batch)
    session = FeatureSession(warps=make_warps(4))
    with injected(model.unet, session, sites=resolve_sites(model.unet)):
        begin(session, (0, 1, 2, 3), warping=False)
        assert torch.equal(run_unet(model, *batch), before)


def test_taps_leave_the_unet_as_it_was_even_after_an_error(model, batch, make_warps):
    before, processors = run_unet(model, *batch), dict(model.unet.attn_processors)
    session = FeatureSession(warps=make_warps(4))

    def fail_inside():
        with injected(model.unet, session, sites=resolve_sites(model.unet)):
            begin(session, (1, 0, 3, 2), branches=1, extending=True)
            assert not torch.allclose(run_unet(model, *batch), before)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail_inside()
    assert torch.equal(run_unet(model, *batch), before)
    assert model.unet.attn_processors == processors
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.unet.modules())


def test_warping_copies_features_along_the_order_before_the_first_convolution(model, batch, make_warps):
    warps, order, seen = make_warps(4), (1, 0, 3, 2), {}
    conv1 = model.unet.down_blocks[0].resnets[0].conv1
    session = FeatureSession(warps=warps)
    first = conv1.register_forward_pre_hook(lambda _, args: seen.update(before=args[0].clone()))
    with injected(model.unet, session, sites=resolve_sites(model.unet)):
        second = conv1.register_forward_pre_hook(lambda _, args: seen.update(after=args[0].clone()))
        begin(session, order)
        run_unet(model, *batch)
    first.remove(), second.remove()
    expected, grid = seen["before"].clone().flatten(2), warps.at((16, 16))
    for slot, pair in enumerate(pairwise(order), start=1):
        warped = expected[slot - 1][:, grid.index[pair]]
        expected[slot] = torch.where(grid.mask[pair], warped, expected[slot])
    assert torch.equal(seen["after"].flatten(2), expected)


def test_masks_of_zero_leave_the_noise_unchanged(model, batch, make_warps):
    before = run_unet(model, *batch)
    session = FeatureSession(warps=make_warps(4, mask=-1.0))
    with injected(model.unet, session, sites=resolve_sites(model.unet)):
        begin(session, (1, 0, 3, 2))
        torch.testing.assert_close(run_unet(model, *batch), before, rtol=1e-5, atol=1e-6)


def test_zero_flow_and_full_masks_give_every_frame_the_first_ones_features(model, batch, make_warps):
    latents, context = batch
    alike = latents[:1].repeat(4, 1, 1, 1)
    session = FeatureSession(warps=make_warps(4, flow=0.0, mask=2.0))
    with injected(model.unet, session, sites=resolve_sites(model.unet)):
        begin(session, (0, 1, 2, 3))
        warped = run_unet(model, latents, context[:1].repeat(4, 1, 1))
    plain = run_unet(model, alike, context[:1].repeat(4, 1, 1))
    torch.testing.assert_close(warped[0], plain[0], rtol=1e-4, atol=1e-5)
    assert (warped[1:] - warped[:1]).abs().mean() < (run_unet(model, latents, context)[1:] - warped[:1]).abs().mean()


@pytest.mark.parametrize("extending", [False, True])
@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_runs_of_the_order_give_the_same_noise_as_one_batch(model, batch, make_warps, chunk, extending):
    latents, context = batch
    order = (2, 3, 0, 1)
    session = FeatureSession(warps=make_warps(4))
    with injected(model.unet, session, sites=resolve_sites(model.unet)):
        begin(session, order, extending=extending)
        whole = run_unet(model, latents, context)
        session.begin_step(order, warping=True, extending=extending)
        parts = []
        for start in range(0, 4, chunk):
            run = slice(start, min(start + chunk, 4))
            session.begin_run(run, branches=1, latent_size=(16, 16))
            parts.append(run_unet(model, latents[run], context[run]))
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-4, atol=1e-5)


def test_extended_attention_leaves_the_first_frame_and_changes_the_others(model, batch):
    latents, context = batch
    before = run_unet(model, latents, context)
    session = FeatureSession(warps=None)
    with injected(model.unet, session, sites=resolve_sites(model.unet)):
        begin(session, (0, 1, 2, 3), warping=False, extending=True)
        after = run_unet(model, latents, context)
    torch.testing.assert_close(after[0], before[0], rtol=1e-4, atol=1e-5)
    assert all((after[i] - before[i]).abs().max() > 1e-4 for i in (1, 2, 3))


def test_extended_keys_and_values_are_the_first_frames_tokens_then_the_frames_own(model, batch):
    seen = {}
    attn1 = model.unet.up_blocks[3].attentions[0].transformer_blocks[0].attn1
    session = FeatureSession(warps=None)
    with injected(model.unet, session, sites=resolve_sites(model.unet)):
        hook = attn1.register_forward_pre_hook(
            lambda _, args, kwargs: seen.update(own=args[0], **kwargs), with_kwargs=True
        )
        begin(session, (0, 1), branches=2, warping=False, extending=True)
        run_unet(model, *batch)
        hook.remove()
    own, extended = seen["own"].unflatten(0, (2, 2)), seen["encoder_hidden_states"].unflatten(0, (2, 2))
    assert torch.equal(extended[:, :, 256:], own)
    assert torch.equal(extended[:, 1, :256], own[:, 0])


def test_injection_gives_the_edit_branches_the_sources_queries_keys_and_residual(model, batch):
    seen = {}
    block = model.unet.up_blocks[1]
    attn1 = block.attentions[1].transformer_blocks[0].attn1
    session = FeatureSession(warps=None)
    with injected(model.unet, session, sites=resolve_sites(model.unet)):
        for name, module in {"q": attn1.to_q, "k": attn1.to_k, "v": attn1.to_v, "r": block.resnets[1].conv2}.items():
            module.register_forward_hook(lambda _, __, output, name=name: seen.update({name: output}))
        begin(session, (0, 1), branches=2, warping=False, injecting=True)
        run_unet(model, *batch)
    for module in model.unet.modules():
        module._forward_hooks.clear()
    assert all(torch.equal(seen[name][:2], seen[name][2:]) for name in "qkr")
    assert not torch.equal(seen["v"][:2], seen["v"][2:])


def test_extended_keys_and_values_can_be_those_of_the_first_frame_in_time(model, batch, make_warps):
    seen = {}
    attn1 = model.unet.up_blocks[3].attentions[0].transformer_blocks[0].attn1
    session = FeatureSession(warps=make_warps(4), anchor="time")
    with injected(model.unet, session, sites=resolve_sites(model.unet)):
        hook = attn1.register_forward_pre_hook(
            lambda _, args, kwargs: seen.update(own=args[0], **kwargs), with_kwargs=True
        )
        begin(session, (2, 3, 0, 1), extending=True)
        run_unet(model, *batch)
        hook.remove()
    assert torch.equal(seen["encoder_hidden_states"][:, 256:], seen["own"])
    assert torch.equal(seen["encoder_hidden_states"][:, :256], seen["own"][2:3].expand(4, -1, -1))


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 1, 3)])
def test_both_anchors_are_one_where_the_order_begins_with_the_first_frame(model, batch, make_warps, order):
    noises = []
    for anchor in ("order", "time"):
        session = FeatureSession(warps=make_warps(4), anchor=anchor)
        with injected(model.unet, session, sites=resolve_sites(model.unet)):
            begin(session, order, extending=True)
            noises.append(run_unet(model, *batch))
    assert torch.equal(*noises)


def test_runs_of_the_order_cannot_all_be_given_the_first_frame_in_time(make_warps):
    session = FeatureSession(warps=make_warps(4), anchor="time")
    session.begin_step((0, 1, 2, 3), warping=True, extending=True)
    with pytest.raises(WaveOpsError, match="all 4 keyframes in one batch"):
        session.begin_run(slice(0, 2), branches=1, latent_size=(16, 16))
    session.begin_step((3, 2, 1, 0), warping=True)
    session.begin_run(slice(0, 2), branches=1, latent_size=(16, 16))  # nothing is extended


def test_runs_that_are_only_warped_need_no_anchor_in_time(model, batch, make_warps):
    latents, context = batch
    noises = []
    for anchor in ("order", "time"):
        session = FeatureSession(warps=make_warps(4), anchor=anchor)
        with injected(model.unet, session, sites=resolve_sites(model.unet)):
            session.begin_step((3, 2, 1, 0), warping=True)
            for run in (slice(0, 2), slice(2, 4)):
                session.begin_run(run, branches=1, latent_size=(16, 16))
                noises.append(run_unet(model, latents[run], context[run]))
    assert torch.equal(noises[0], noises[2])
    assert torch.equal(noises[1], noises[3])


def test_attention_can_be_extended_where_it_is_not_warped(model, batch, make_warps):
    rule = resolve_sites(model.unet)
    chosen = {"warp_resnets": (), "warp_attentions": (), "extend_attentions": rule.warp_attentions}
    sites = resolve_sites(model.unet, sites={"inject_attentions": (), "inject_resnets": (), **chosen})
    noises = []
    for given, where in ((make_warps(4), sites), (None, rule)):
        session = FeatureSession(warps=given)
        with injected(model.unet, session, sites=where):
            begin(session, (1, 0, 2, 3), extending=True)
            noises.append(run_unet(model, *batch))
    assert torch.equal(*noises)


def test_a_model_that_names_no_extended_sites_extends_those_that_are_warped(model):
    warped = ["up_blocks.3.attentions.0.transformer_blocks.0.attn1"]
    given = {"warp_resnets": [], "warp_attentions": warped, "inject_attentions": [], "inject_resnets": []}
    assert resolve_sites(model.unet, sites=given).extend_attentions == tuple(warped)


def test_a_block_more_is_warped_and_extended_in_all_its_sites(model):
    rule = resolve_sites(model.unet)
    more = with_block(model.unet, rule, block="up_blocks.1")
    assert set(more.warp_resnets) - set(rule.warp_resnets) == {f"up_blocks.1.resnets.{i}" for i in range(3)}
    added = {f"up_blocks.1.attentions.{i}.transformer_blocks.0.attn1" for i in range(3)}
    assert set(more.warp_attentions) - set(rule.warp_attentions) == added
    assert more.extend_attentions == more.warp_attentions
    assert (more.inject_attentions, more.inject_resnets) == (rule.inject_attentions, rule.inject_resnets)
    assert with_block(model.unet, more, block="up_blocks.1") == more


def test_a_block_that_the_unet_lacks_cannot_be_added(model):
    with pytest.raises(WaveOpsError, match=r"up_blocks\.3"):
        with_block(model.unet, resolve_sites(model.unet), block="up_blocks.-1")
