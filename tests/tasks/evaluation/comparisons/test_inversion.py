"""Inversion methods: the grid, what methods share, and metrics that show a wrong inversion."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tasks.evaluation.clips.clip import EvaluationClip, split_shots
from tasks.evaluation.comparisons import keyframes
from tasks.evaluation.comparisons.comparison import Method, Outcome
from tasks.evaluation.comparisons.inversion import COMPARISON
from tasks.evaluation.comparisons.keyframes import (
    KeyframeContext,
    Orders,
    PairFlows,
    Warping,
    masked_warps,
    measure_cost,
    true_warps,
)
from tasks.evaluation.statistics import paired_difference
from tasks.models.loading import loaded_model
from tests._editing_clips import EMBEDDED, SIDE, recoloured, sliding_clip
from wave_ops.diffusion import encode_frames
from wave_ops.feature_warping import PairWarps
from wave_ops.inversion import InversionSettings, invert, reconstruct, step_orders
from wave_ops.masks import warp_mask
from wave_ops.scenes.rendering import match_frames
from wave_ops.scenes.specs import random_scene
from wave_ops.schedule import WarpSchedule

METHODS = {method.name: method for method in COMPARISON.methods(quick=False)}


def method_of(name: str, *, steps: int) -> Method:
    return Method(name=name, factors={**METHODS[name].factors, "steps": steps})


def run(clip: EvaluationClip, *methods: Method) -> list[Outcome]:
    return [outcome for _, outcome in COMPARISON.measure(clip, methods, EMBEDDED)]


@pytest.fixture(scope="module")
def clip() -> EvaluationClip:
    return recoloured(random_scene(4, size=(SIDE, SIDE), frame_count=5))


@pytest.fixture
def context(clip: EvaluationClip) -> KeyframeContext:
    return KeyframeContext(clip, EMBEDDED)


def test_the_grid_is_complete_and_its_first_method_is_the_baseline() -> None:
    assert len(METHODS) == 7 * 4 * 3 + 1
    assert next(iter(METHODS)) == COMPARISON.baseline
    assert METHODS["group"].factors == {
        "warp": "group",
        "window": "aligned",
        "warped": "both ways",
        "noise_point": "extrapolated",
        "refinements": 0,
        "steps": 50,
    }
    quick = COMPARISON.methods(quick=True)
    assert len(quick) == 7 * 2 + 1
    assert {method.factors["steps"] for method in quick} == {20}
    assert COMPARISON.baseline in {method.name for method in quick}


def test_factors_are_distinct_and_have_the_same_keys() -> None:
    factors = [tuple(method.factors.items()) for method in METHODS.values()]
    assert len(set(factors)) == len(METHODS)
    assert {tuple(dict(items)) for items in factors} == {
        ("warp", "window", "warped", "noise_point", "refinements", "steps")
    }


def test_the_metrics_of_a_method_are_those_of_inversion_and_reconstruction(
    clip: EvaluationClip, context: KeyframeContext
) -> None:
    (outcome,) = run(clip, method_of("group, published, previous point, 1 refinement", steps=3))
    settings = InversionSettings(
        schedule=WarpSchedule(steps=3, window="published"),
        seed=context.shuffle_seed,
        noise_point="previous",
        refinements=1,
    )
    with loaded_model(EMBEDDED.model, device="cpu", dtype="float32") as model:
        encoded, stored = encode_frames(model, clip.frames[[0, 4]]), []
        rest = {"source_prompt": clip.caption, "warps": masked_warps(context.flows(), Warping()), "settings": settings}
        invert(model, encoded, callback=lambda _, x: stored.append(x), **rest)
        back = reconstruct(model, stored[-1], orders=step_orders(2, settings), **rest)
    assert outcome.scores["latent error"] == pytest.approx(float((back - encoded).square().mean().sqrt()), rel=1e-4)
    squared = np.square(outcome.frames.astype(float) - clip.frames[[0, 4]]).mean(axis=(1, 2, 3))
    assert outcome.scores["PSNR"] == pytest.approx(float((10 * np.log10(255**2 / squared)).mean()))
    np.testing.assert_array_equal(outcome.reference, clip.frames[[0, 4]])
    assert set(outcome.scores) == {measure.name for measure in COMPARISON.measures}


def test_a_batch_of_all_keyframes_counts_as_one_unet_call(clip: EvaluationClip) -> None:
    methods = [
        method_of(name, steps=3) for name in ("plain", "group, previous point", "group, previous point, 2 refinements")
    ]
    assert [outcome.scores["UNet calls"] for outcome in run(clip, *methods)] == [3 + 3, 3 + 3, 9 + 3]


def test_methods_share_an_inversion_and_each_count_its_calls(
    clip: EvaluationClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    inverted = []
    monkeypatch.setattr(
        keyframes, "invert", lambda *args, **rest: inverted.append(rest["warps"]) or invert(*args, **rest)
    )
    methods = [method_of(name, steps=2) for name in ("plain", "group", "group, sampling only")]
    assert [outcome.scores["UNet calls"] for outcome in run(clip, *methods)] == [4, 4, 4]
    assert len(inverted) == 2


def test_a_clip_of_one_frame_needs_no_flow(clip: EvaluationClip) -> None:
    still = replace(clip, frames=clip.frames[:1], scene=None, edits=())
    (plain, group) = run(still, method_of("plain", steps=2), method_of("group", steps=2))
    assert plain.scores["PSNR"] == group.scores["PSNR"]


def test_unet_calls_are_no_longer_counted_after_an_error_in_the_context() -> None:
    with loaded_model(EMBEDDED.model, device="cpu", dtype="float32") as model:
        with pytest.raises(InterruptedError), measure_cost(model):
            raise InterruptedError
        assert not model.unet._forward_pre_hooks


def test_the_masks_are_those_of_the_method_in_both_directions(context: KeyframeContext) -> None:
    flows, warps = context.flows(), masked_warps(context.flows(), Warping())
    ((first, second),) = flows.pairs
    images = flows.images[first][None], flows.images[second][None]
    forward = warp_mask(*images, flows.to_prev, flows.to_cur)[0]
    backward = warp_mask(*images[::-1], flows.to_cur, flows.to_prev)[0]
    assert torch.equal(warps.mask[first, second], forward)
    assert torch.equal(warps.mask[second, first], backward)
    assert 0 < forward.float().mean() < 1


@pytest.mark.parametrize(
    "looser", [Warping(residual=None), Warping(occlusion=None), Warping(residual=0.08), Warping(occlusion="squared")]
)
def test_a_less_strict_rule_warps_more_pixels(context: KeyframeContext, looser: Warping) -> None:
    strict, loose = (masked_warps(context.flows(), warping).mask[0, 1] for warping in (Warping(), looser))
    assert (loose | ~strict).all()
    assert loose.sum() > strict.sum()


def test_without_rules_every_pixel_is_warped(context: KeyframeContext) -> None:
    assert masked_warps(context.flows(), Warping(residual=None, occlusion=None)).mask[1, 0].all()


def test_true_warps_are_the_flow_and_visibility_of_the_scene(clip: EvaluationClip, context: KeyframeContext) -> None:
    warps = context.warps(Warping(flow="true"))
    for pair, (here, there) in {(0, 1): (4, 0), (1, 0): (0, 4)}.items():
        flow, hidden = match_frames(clip.scene, here, there)
        np.testing.assert_array_equal(warps.flow_to_prev[pair].numpy(), flow)
        np.testing.assert_array_equal(warps.mask[pair].numpy(), ~hidden)
    assert true_warps(clip.scene, (0, 4), [(0, 1)]).mask.keys() == {(0, 1), (1, 0)}


def inverted_mask(flows: PairFlows, warping: Warping) -> PairWarps:
    warps = masked_warps(flows, warping)
    return replace(warps, mask={pair: ~mask for pair, mask in warps.mask.items()})


def negated_flow(flows: PairFlows, warping: Warping) -> PairWarps:
    warps = masked_warps(flows, warping)
    return replace(warps, flow_to_prev={pair: -flow for pair, flow in warps.flow_to_prev.items()})


def reversed_orders(count: int, settings: InversionSettings) -> Orders:
    """Return other orders than those of the inversion, for sampling back."""
    return tuple(order[::-1] for order in step_orders(count, settings))


@pytest.fixture(scope="module")
def sliding() -> list[EvaluationClip]:
    return [sliding_clip(seed) for seed in range(6)]


def psnr_of(clips: list[EvaluationClip], method: Method) -> list[float]:
    return [run(clip, method)[0].scores["PSNR"] for clip in clips]


def test_an_inverted_mask_and_a_negated_flow_lower_the_psnr(
    sliding: list[EvaluationClip], monkeypatch: pytest.MonkeyPatch
) -> None:
    method = method_of("group, sampling only", steps=6)
    correct = psnr_of(sliding, method)
    for mistake in (inverted_mask, negated_flow):
        monkeypatch.setattr(keyframes, "masked_warps", mistake)
        wrong = psnr_of(sliding, method)
        assert paired_difference(wrong, correct, better="higher").verdict == "worse", mistake


def test_sampling_in_other_orders_than_the_inversion_lowers_the_psnr(
    sliding: list[EvaluationClip], monkeypatch: pytest.MonkeyPatch
) -> None:
    method = method_of("group", steps=6)
    correct = psnr_of(sliding, method)
    monkeypatch.setattr(keyframes, "step_orders", reversed_orders)
    wrong = psnr_of(sliding, method)
    assert paired_difference(wrong, correct, better="higher").verdict == "worse"


def test_each_clip_and_seed_draws_its_own_orders(clip: EvaluationClip) -> None:
    clips = [replace(clip, digest=digest) for digest in ("a", "a", "b")]
    seeds = [KeyframeContext(each, EMBEDDED).shuffle_seed for each in clips]
    others = [{"seed": 1}, {"shuffle_seed": 1}, {"seed": 1, "shuffle_seed": 1}]
    seeds += [KeyframeContext(clips[0], replace(EMBEDDED, **other)).shuffle_seed for other in others]
    assert seeds[0] == seeds[1]
    assert len(set(seeds)) == 5
    drawn = {step_orders(6, InversionSettings(seed=seed)) for seed in seeds}
    assert len(drawn) == 5


def test_each_shot_is_inverted_by_itself_with_its_own_caption(clip: EvaluationClip) -> None:
    specs = [random_scene(seed, size=(SIDE, SIDE), frame_count=5) for seed in (4, 6)]
    both = recoloured(*specs)
    (together,) = run(both, method_of("group", steps=2))
    alone = [run(shot, method_of("group", steps=2))[0] for shot in split_shots(both)]
    np.testing.assert_array_equal(together.frames, np.concatenate([outcome.frames for outcome in alone]))
    assert together.scores["UNet calls"] == 4
    other = replace(both, scene=None, caption=both.caption)
    assert not np.array_equal(together.frames, run(other, method_of("group", steps=2))[0].frames)
