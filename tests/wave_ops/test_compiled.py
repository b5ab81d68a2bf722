"""Compiled blocks of a UNet, in a process of their own: torch cannot compile the shape checks of this one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from wave_ops.errors import WaveOpsError
from wave_ops.sites import Sites, resolve_sites
from wave_ops.unet import FeatureSession, compile_blocks, injected, uncompile_blocks

ROOT = Path(__file__).parents[2]


def compiled_stages(device: str) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.wave_ops._compiled_stages", device]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_hooks_of_a_compiled_unet_act_on_each_session_in_turn() -> None:
    found = compiled_stages("cpu")
    assert found["distance"] == 0
    assert found["after"] == 0
    assert found["differ"] > 0.01
    assert found["compiled"] > 0
    assert found["compiled again"] == 0


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_compiled_blocks_stay_near_those_that_are_not() -> None:
    found = compiled_stages("cuda")
    assert found["distance"] < 1e-2
    assert found["after"] == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_a_compiled_unet_has_the_sites_that_it_was_compiled_with(model) -> None:
    sites = resolve_sites(model.unet)
    compile_blocks(model.unet, sites=sites, backend="eager")
    try:
        compile_blocks(model.unet, sites=sites)  # does nothing
        hooks = [len(module._forward_pre_hooks) for module in model.unet.modules()]
        with injected(model.unet, FeatureSession(warps=None), sites=sites):
            assert [len(module._forward_pre_hooks) for module in model.unet.modules()] == hooks
        with (
            pytest.raises(WaveOpsError, match="compile it again"),
            injected(model.unet, FeatureSession(warps=None), sites=Sites(**dict.fromkeys(Sites.__slots__, ()))),
        ):
            pass
    finally:
        uncompile_blocks(model.unet)
    uncompile_blocks(model.unet)  # does nothing
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.unet.modules())
    assert all(module._compiled_call_impl is None for module in model.unet.modules())
