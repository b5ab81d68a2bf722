from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.wave_ops._hooks import has_hooks
from wave_ops.footprint import Footprint, footprint, peak_bytes, weight_bytes, without_values
from wave_ops.settings import EditingSettings
from wave_ops.stage_footprints import edit_footprint, generous_bytes, inversion_footprint, vae_bytes

GPU, CPU = torch.device("cuda"), torch.device("cpu")
MIB = 2**20


def empty(mebibytes: int) -> torch.Tensor:
    return torch.empty(mebibytes, MIB, dtype=torch.uint8, device="meta")


def replaced() -> None:
    first = empty(40)
    second = first + 1
    del first
    del second
    empty(50)


def viewed() -> None:
    whole = empty(40)
    parts = [whole[:20], whole.flatten(), whole.T]
    parts[0].add_(1)


@pytest.mark.parametrize(("compute", "expected"), [(replaced, 80), (viewed, 40), (lambda: None, 0)])
def test_what_is_alive_at_the_same_time_counts_once(compute, expected):
    assert peak_bytes(compute, device=GPU) == expected * MIB


@pytest.mark.parametrize("inference", [True, False])
def test_weights_count_nothing_and_the_inside_of_composed_operations_counts(inference):
    layer = nn.Conv2d(64, 64, 1, bias=False, device="meta", dtype=torch.float32).requires_grad_(False)
    features = torch.empty(1, 64, 512, 512, device="meta")  # 64 MiB
    with torch.inference_mode(inference):
        assert peak_bytes(lambda: layer(features), device=GPU) == 64 * MIB
        # A CPU computes on copies of input, output and weights
        assert peak_bytes(lambda: layer(features), device=CPU) == 3 * 64 * MIB + layer.weight.nbytes


def test_attention_does_not_store_all_pairs_of_tokens():
    tokens = torch.empty(1, 8, 4096, 40, device="meta")
    assert peak_bytes(lambda: F.scaled_dot_product_attention(tokens, tokens, tokens), device=GPU) == tokens.nbytes


def test_small_tensors_leave_gaps_in_main_memory():
    assert peak_bytes(lambda: empty(10), device=CPU) == 15 * MIB
    assert peak_bytes(lambda: empty(40), device=CPU) == 40 * MIB


def test_three_small_runs_predict_a_large_one():
    def compute(keyframes: int, batch: int) -> None:
        _stage, _network, _batch = empty(5), empty(40 * keyframes), empty(100 * batch)

    found = footprint(compute, keyframe=40 * MIB, device=GPU)
    assert found == Footprint(fixed=5 * MIB, keyframe=40 * MIB, batched=100 * MIB)
    assert found.bytes(64, 8) == peak_bytes(lambda: compute(64, 8), device=GPU)
    assert found.bytes(64) == found.bytes(64, 64) == found.bytes(64, 99)


@pytest.mark.parametrize(("limit", "batch"), [(0, 0), (1069, 0), (1070, 1), (1199, 2), (1270, 3), (10**6, 10)])
def test_the_largest_batch_within_a_limit_is_chosen(limit, batch):
    found = Footprint(fixed=70, keyframe=90, batched=100)
    assert found.batch_within(limit, 10) == batch
    assert batch == 0 or found.bytes(10, batch) <= limit


def test_a_copy_without_values_has_the_structure_and_leaves_the_model(model):
    before = [tensor.clone() for tensor in model.unet.parameters()]
    structure = without_values(model)
    assert structure.device.type == "meta"
    assert weight_bytes(structure) == weight_bytes(model)
    assert [tensor.shape for tensor in structure.unet.parameters()] == [tensor.shape for tensor in before]
    assert all(torch.equal(a, b) for a, b in zip(model.unet.parameters(), before, strict=True))
    assert not any(tensor.is_meta for tensor in model.vae.parameters())


@pytest.mark.slow
def test_the_footprint_of_a_stage_follows_its_size_and_its_branches(model):
    settings = EditingSettings(guidance_scale=1.0)
    inversion = inversion_footprint(model, (128, 128))
    plain = replace(model, controlnet=None)
    assert inversion == inversion_footprint(plain, (128, 128))
    controlled = edit_footprint(model, (128, 128), settings)
    unguided, guided, larger = (
        edit_footprint(plain, size, chosen)
        for size, chosen in (((128, 128), settings), ((128, 128), EditingSettings()), ((256, 256), settings))
    )
    assert 1.5 < unguided.batched / inversion.batched < 3.5  # two branches, and longer keys
    assert controlled.batched > unguided.batched
    assert 1.3 < guided.batched / unguided.batched < 1.7
    assert guided.bytes(4) < generous_bytes(model, (128, 128), frames=4, network="unet")
    assert 3.5 < larger.batched / unguided.batched < 4.5
    assert not has_hooks(model.unet)


def test_tiles_bound_the_memory_of_the_vae(model):
    size = (256, 256)
    whole, two, tiled = (
        vae_bytes(model, size, frames=frames, decoding=True, tile=tile)
        for frames, tile in ((1, None), (2, None), (1, 64))
    )
    assert 1.8 < two / whole < 2.2
    assert tiled < whole / 2
    assert whole < generous_bytes(model, size, frames=1, network="vae")


def test_keyframes_that_take_less_than_said_do_not_lower_what_a_batch_takes():
    def compute(keyframes: int, batch: int) -> None:
        _stage, _network, _batch = empty(5), empty(40 * keyframes), empty(100 * batch)

    found = footprint(compute, keyframe=90 * MIB, device=GPU)
    assert found == Footprint(fixed=5 * MIB, keyframe=90 * MIB, batched=100 * MIB)
