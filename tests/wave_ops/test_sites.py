from __future__ import annotations

import pytest

from wave_ops.errors import WaveOpsError
from wave_ops.sites import resolve_sites, with_block


def test_the_rule_finds_the_published_sites_of_stable_diffusion(model):
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


def test_a_checkpoint_that_names_no_extended_sites_extends_the_warped_ones(model):
    warped = ["up_blocks.3.attentions.0.transformer_blocks.0.attn1"]
    named = {"warp_resnets": [], "warp_attentions": warped, "inject_attentions": [], "inject_resnets": []}
    assert resolve_sites(model.unet, sites=named).extend_attentions == tuple(warped)


def test_an_added_block_is_warped_and_extended_at_all_its_sites(model):
    rule = resolve_sites(model.unet)
    more = with_block(model.unet, rule, block="up_blocks.1")
    assert set(more.warp_resnets) - set(rule.warp_resnets) == {f"up_blocks.1.resnets.{i}" for i in range(3)}
    added = {f"up_blocks.1.attentions.{i}.transformer_blocks.0.attn1" for i in range(3)}
    assert set(more.warp_attentions) - set(rule.warp_attentions) == added
    assert more.extend_attentions == more.warp_attentions
    assert (more.inject_attentions, more.inject_resnets) == (rule.inject_attentions, rule.inject_resnets)
    assert with_block(model.unet, more, block="up_blocks.1") == more


def test_a_block_that_the_unet_does_not_have_cannot_be_added(model):
    with pytest.raises(WaveOpsError, match=r"up_blocks\.3"):
        with_block(model.unet, resolve_sites(model.unet), block="up_blocks.-1")
