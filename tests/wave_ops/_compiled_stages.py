"""Inversions with a compiled UNet and without, in a process where no shapes are checked: torch cannot compile checks.

`python -m tests.wave_ops._compiled_stages DEVICE` prints one object as JSON.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from itertools import combinations

import torch
from torch import nn

from tests.wave_ops.conftest import build_model
from wave_ops.editing import EditingSettings, edit
from wave_ops.feature_warping import PairWarps
from wave_ops.inversion import InversionSettings, invert, step_orders
from wave_ops.schedule import WarpSchedule
from wave_ops.sites import resolve_sites
from wave_ops.unet import compile_blocks, uncompile_blocks

KEYFRAMES = 3
SCHEDULE = WarpSchedule(steps=4)


def warps(seed: int) -> PairWarps:
    generator = torch.Generator().manual_seed(seed)
    pairs = list(combinations(range(KEYFRAMES), 2))
    flows = torch.randn(2 * len(pairs), 2, 4, 4, generator=generator) * 12
    flows = torch.nn.functional.interpolate(flows, size=(128, 128), mode="bilinear")
    masks = torch.rand(2, len(pairs), 128, 128, generator=generator) < 0.6
    return PairWarps.from_pairs(
        pairs, to_prev=flows[: len(pairs)], to_cur=flows[len(pairs) :], mask_cur=masks[0], mask_prev=masks[1]
    )


def stages(model, given):
    """Invert and edit; return the latents of both."""
    found = [torch.randn(KEYFRAMES, 4, 16, 16, generator=torch.Generator().manual_seed(0))]
    inversion = InversionSettings(schedule=SCHEDULE, seed=3)
    invert(
        model,
        found[0],
        source_prompt="a",
        warps=given,
        settings=inversion,
        callback=lambda _, x: found.append(x.cpu()),
    )
    found.append(
        edit(
            model,
            found[: SCHEDULE.steps + 1].__getitem__,
            prompt="b",
            source_prompt="a",
            orders=step_orders(KEYFRAMES, inversion),
            warps=given,
            settings=EditingSettings(schedule=SCHEDULE),
        ).cpu()
    )
    return torch.stack(found)


def distance(found, expected) -> float:
    return float((found - expected).norm() / expected.norm())


def main(device: str) -> None:
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False
    model, compiled = build_model(), []
    for network in (model.text_encoder, model.unet):
        nn.Module.to(network, device)
    given = [None, warps(0), warps(1)]
    expected = [stages(model, each) for each in given]
    # On a CPU by a compiler that changes nothing: what is tested there is that hooks are read again in every call
    options = {} if device == "cuda" else {"backend": lambda module, _: compiled.append(1) or module.forward}
    compile_blocks(model.unet, sites=resolve_sites(model.unet), **options)
    found = [stages(model, each) for each in given]
    count = len(compiled)
    again = stages(model, given[1])
    recorded = stages(replace(model, cuda_graphs=True), given[1]) if device == "cuda" else again
    uncompile_blocks(model.unet)
    json.dump(
        {
            "distance": max(map(distance, (*found, again, recorded), (*expected, expected[1], expected[1]))),
            "differ": distance(expected[1], expected[2]),
            "compiled": count,
            "compiled again": len(compiled) - count,
            "after": distance(stages(model, given[1]), expected[1]),
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main(sys.argv[1])
