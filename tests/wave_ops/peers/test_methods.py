"""The property that defines each compared method."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.wave_ops.peers._layers import attention_layer, tokens
from wave_ops.diffusion import StableDiffusion, encode_prompt
from wave_ops.errors import WaveOpsError
from wave_ops.peers import (
    AttentionLayer,
    AttentionMaps,
    CrossFrameAttention,
    FlowAttention,
    SharedNoiseSettings,
    ShuffledGrids,
    TokenMerging,
    TokenPropagation,
    align_prompts,
    edit_with_shared_noise,
)
from wave_ops.peers.flow_attention import attend_along, trajectories
from wave_ops.peers.token_merging import match_tokens
from wave_ops.peers.token_propagation import nearest_tokens
from wave_ops.schedule import DDIMSchedule

EVERYWHERE = torch.ones(1, 4, 4, dtype=torch.bool)


def start(method, frames: int, *, step: int = 1) -> None:
    method.start_step(step, torch.zeros(3, frames, 4, 4, 4))


@pytest.mark.parametrize(("previous", "read"), [(False, {0}), (True, {0, 2})])
def test_cross_frame_attention_reads_the_first_and_by_option_the_previous_frame(
    previous: bool, read: set[int], model: StableDiffusion
) -> None:
    layer, before = attention_layer(model), tokens(4)
    method = CrossFrameAttention(previous=previous)
    with torch.inference_mode():
        output = method.self_attention(layer, before)
        for frame in range(3):
            changed = before.clone()
            changed[:, frame] += 1
            same = torch.equal(method.self_attention(layer, changed)[:, 3], output[:, 3])
            assert same == (frame not in read)


def test_the_nearest_token_is_the_most_similar_one_whatever_its_length() -> None:
    found = tokens(1)[0, 0]
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    assert torch.equal(nearest_tokens(found[order] * 3, found), order)


def test_tokens_of_a_moved_frame_are_propagated_to_the_places_that_they_moved_to(model: StableDiffusion) -> None:
    """A frame with the keyframe's tokens in other places has the keyframe's outputs in those places."""
    layer, found = attention_layer(model), tokens(1).expand(-1, 5, -1, -1).clone()
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    method = TokenPropagation(interval=5)
    start(method, 5)
    (keyframe,) = method._keyframes
    other = (keyframe + 1) % 5
    found[:, other] = found[:, other, order]
    found[1:, other] += 1  # the edit's own tokens there are not read: the source's decide where to copy from
    with torch.inference_mode():
        output = method.self_attention(layer, found)
    torch.testing.assert_close(output[1:, other], output[1:, keyframe][:, order])


def test_a_frame_between_keyframes_mixes_them_by_its_distance() -> None:
    method = TokenPropagation()
    method._keyframes = (2, 6)
    assert [method._weight(3, place, [0, 1]) for place in (0, 1)] == [0.75, 0.25]
    assert method._weight(8, 1, [1]) == 1


def test_tokens_that_are_merged_and_copied_back_are_as_before_if_they_have_equals() -> None:
    found = tokens(1)[:, 0]
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    match = match_tokens(found[:, order], found, fraction=0.75)
    left = match.merge(found[:, order], found)
    assert left.shape[1] == 16 + 4
    others, targets = match.unmerge(left)
    torch.testing.assert_close(others, found[:, order])
    torch.testing.assert_close(targets, found)


def test_distinct_tokens_are_as_before_where_none_is_merged_and_means_where_all_are() -> None:
    first, second = tokens(2).unbind(1)
    none = match_tokens(second, first, fraction=0.0)
    others, targets = none.unmerge(none.merge(second, first))
    assert torch.equal(others, second)
    assert torch.equal(targets, first)
    every = match_tokens(second, first, fraction=1.0)
    others, targets = every.unmerge(every.merge(second, first))
    assert torch.equal(others[:, every.merged], targets[:, every.into])
    target = int(every.into[0])
    group = torch.cat([first[:, [target]], second[:, every.merged[every.into == target]]], dim=1)
    torch.testing.assert_close(targets[:, target], group.mean(dim=1))


def test_the_chunks_of_merging_contain_every_frame_once_and_change_with_the_step() -> None:
    method, drawn = TokenMerging(chunk=4), set()
    for step in range(1, 9):
        start(method, 9, step=step)
        assert sorted(frame for chunk in method._chunks for frame in chunk) == list(range(9))
        drawn.add(method._chunks)
    assert len(drawn) > 4


def test_a_chunk_reads_the_tokens_of_all_chunks_before_it_and_of_none_after(model: StableDiffusion) -> None:
    layer, before, method = attention_layer(model), tokens(3), TokenMerging(chunk=1)
    start(method, 3)
    (first,), (second,), (third,) = method._chunks
    changed = before.clone()
    changed[:, first] += 1
    with torch.inference_mode():
        outputs = []
        for each in (before, changed):
            start(method, 3)
            outputs.append(method.self_attention(layer, each))
        assert not torch.allclose(outputs[0][:, third], outputs[1][:, third])
        start(method, 3)
        changed = before.clone()
        changed[:, third] += 1
        found = method.self_attention(layer, changed)
    assert torch.equal(found[:, [first, second]], outputs[0][:, [first, second]])


@pytest.mark.parametrize("frames", [1, 4, 5, 17])
def test_frames_that_are_laid_out_in_grids_come_back_in_their_places(frames: int) -> None:
    latents = torch.randn(3, frames, 4, 8, 6, generator=torch.Generator().manual_seed(0))
    method, drawn = ShuffledGrids(side=2), set()
    for step in range(1, 5):
        method.start_step(step, latents)
        images = method.lay_out(latents)
        assert images.shape == (3, -(-frames // 4), 4, 16, 12)
        assert torch.equal(method.restore(images), latents)
        drawn.add(images.numpy().tobytes())
    assert (len(drawn) > 1) == (frames > 1)


def test_trajectories_follow_the_flow_and_new_ones_start_where_none_arrives() -> None:
    """Everything moves a cell to the right: the left column is new, and what leaves on the right ends."""
    flow = torch.zeros(1, 2, 4, 4)
    flow[:, 0] = -1
    valid = EVERYWHERE.clone()
    valid[:, :, 0] = False
    found = trajectories(flow, valid, (4, 4))
    assert len(found) == 16 + 4
    pairs = {(int(a), int(b)) for a, b in found if a >= 0 and b >= 0}
    assert pairs == {(4 * y + x, 4 * y + x + 1) for y in range(4) for x in range(3)}
    for frame in (0, 1):
        cells = found[:, frame]
        assert sorted(cells[cells >= 0].tolist()) == list(range(16))


def test_two_cells_that_come_from_one_are_on_two_trajectories() -> None:
    flow = torch.zeros(1, 2, 4, 4)
    flow[:, 0, :, 1] = -1  # the second column shows the first one too
    found = trajectories(flow, EVERYWHERE, (4, 4))
    assert len(found) == 16 + 4
    assert sorted(found[:, 1][found[:, 1] >= 0].tolist()) == list(range(16))


def test_a_single_frame_attends_along_trajectories_to_itself() -> None:
    paths, before = trajectories(torch.zeros(0, 2, 4, 4), EVERYWHERE[:0], (4, 4)), tokens(1)
    torch.testing.assert_close(attend_along(before, paths, heads=2), before)


def test_attention_along_trajectories_reads_the_cell_that_the_flow_points_to_and_no_other() -> None:
    flow = torch.zeros(1, 2, 4, 4)
    flow[:, 0] = -1
    paths, before = trajectories(flow, EVERYWHERE, (4, 4)), tokens(2)
    output = attend_along(before, paths, heads=2)
    for cell in range(16):
        changed = before.clone()
        changed[:, 0, cell] += 1
        differs = (attend_along(changed, paths, heads=2)[:, 1] != output[:, 1]).any(dim=(0, 2)).nonzero().flatten()
        assert differs.tolist() == [b for a, b in paths.tolist() if a == cell and b >= 0]


def test_flow_attention_uses_the_flow(model: StableDiffusion) -> None:
    layer, before = attention_layer(model), tokens(2)
    outputs = []
    for motion in (0.0, -1.0):
        flow = torch.zeros(1, 2, 4, 4)
        flow[:, 0] = motion
        method = FlowAttention(flows_to_prev=flow, valid=EVERYWHERE)
        start(method, 2)
        with torch.inference_mode():
            outputs.append(method.self_attention(layer, before))
    assert not torch.allclose(*outputs)


def test_prompts_are_aligned_by_the_words_in_common(model: StableDiffusion) -> None:
    found = align_prompts(model, "a red circle", "a dark blue circle")
    assert found.replaced == (2, 7)  # after the start: "a" is 1, "red" 2; the padding has become shorter
    assert {(0, 0), (1, 1), (3, 4)} <= set(found.common)
    assert align_prompts(model, "a red circle", "a red circle").replaced == ()


def attended(model: StableDiffusion, *, fused: float, step: int = 2) -> torch.Tensor:
    """Compute a self-attention of a step after cross-attention maps were seen, none of which is high anywhere."""
    method = AttentionMaps(alignment=align_prompts(model, "red", "blue"), steps=2, fused_fraction=fused, threshold=1.0)
    start(method, 3, step=step)
    with torch.inference_mode():
        return method.self_attention(attention_layer(model), tokens(3))


def test_maps_are_fused_in_the_first_steps_and_in_the_conditional_branch_alone(model: StableDiffusion) -> None:
    own, fused = attended(model, fused=0.0), attended(model, fused=0.5)
    assert torch.equal(fused[:2], own[:2])
    assert not torch.allclose(fused[2], own[2])
    assert torch.equal(attended(model, fused=0.5, step=1), own)


def test_maps_that_are_not_fused_compute_the_attention_to_the_frame_and_the_middle_one(model: StableDiffusion) -> None:
    layer, found = attention_layer(model), tokens(3)
    middle = found[:, 1:2].expand_as(found)
    with torch.inference_mode():
        expected = layer(found, torch.cat([found, middle], dim=2))
    torch.testing.assert_close(attended(model, fused=0.0), expected)


def test_words_in_common_are_attended_to_by_the_maps_of_the_source_at_their_own_places(model: StableDiffusion) -> None:
    attention = model.unet.get_submodule("up_blocks.3.attentions.0.transformer_blocks.0.attn2")
    layer = AttentionLayer(name="attn2", attention=attention, processor=attention.processor)
    alignment = align_prompts(model, "red circle", "dark red circle")
    method = AttentionMaps(alignment=alignment, steps=1, fused_fraction=1.0)
    start(method, 1)
    found = tokens(1)
    words = torch.randn(3, 1, 8, 16, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        query, key, value = attention.to_q(found[:, 0]), attention.to_k(words[:, 0]), attention.to_v(words[:, 0])
        heads = []
        for place in torch.arange(query.shape[-1]).chunk(attention.heads):
            source, own = ((query[i][:, place] @ key[i][:, place].T * attention.scale).softmax(-1) for i in (0, 2))
            for before, after in alignment.common:
                own[:, after] = source[:, before]
            heads.append(own @ value[2][:, place])
        expected = attention.to_out[0](torch.cat(heads, dim=-1))
        output = method.cross_attention(layer, found, words)
        plain = layer(found, words)
    assert {(1, 2), (2, 3)} <= set(alignment.common)
    torch.testing.assert_close(output[2, 0], expected)
    torch.testing.assert_close(output[:2], plain[:2])


def edited(model: StableDiffusion, prompt: str, **settings: Any) -> torch.Tensor:
    return edit_with_shared_noise(
        model,
        torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)),
        prompt=prompt,
        source_prompt="a red circle",
        negative_prompt="",
        settings=SharedNoiseSettings(**{"steps": 3, **settings}),
    )


def test_an_edit_without_inversion_returns_the_source_for_equal_prompts_and_is_deterministic(
    model: StableDiffusion,
) -> None:
    source = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(edited(model, "a red circle", guidance_scale=3.0, source_guidance_scale=3.0), source)
    found = edited(model, "a blue circle")
    assert found.shape == source.shape
    assert not torch.allclose(found, source)
    assert torch.equal(found, edited(model, "a blue circle"))
    assert not torch.equal(found, edited(model, "a blue circle", seed=1))


def test_a_step_of_an_edit_without_inversion_is_the_difference_of_the_predictions_over_the_step(
    model: StableDiffusion,
) -> None:
    """One step, at guidance 1: x_0 moves by (s_0 - s_1) (eps(edit) - eps(source)), s = sqrt((1 - a) / a)."""
    source = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    schedule = DDIMSchedule.from_config(model.scheduler_config, steps=1)
    noise = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(1))
    clean, noisy = schedule.alphas_cumprod
    x = noisy**0.5 * source + (1 - noisy) ** 0.5 * noise
    with torch.inference_mode():
        before, after = (
            model.unet(
                x, schedule.timesteps[0], encoder_hidden_states=encode_prompt(model, text).expand(2, -1, -1)
            ).sample
            for text in ("a red circle", "a blue circle")
        )
    moved = (((1 - clean) / clean) ** 0.5 - ((1 - noisy) / noisy) ** 0.5) * (after - before)
    found = edited(model, "a blue circle", steps=1, fraction=1.0, guidance_scale=1.0)
    torch.testing.assert_close(found - source, moved, atol=1e-5, rtol=1e-4)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("fraction", [0.0, 1.5])
def test_a_fraction_of_no_steps_or_more_than_all_is_refused(fraction: float) -> None:
    with pytest.raises(WaveOpsError, match="fraction of the steps"):
        SharedNoiseSettings(fraction=fraction)
