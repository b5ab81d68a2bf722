"""Ways to invert: what the rows are, what they share, and that a broken one is seen in the figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from tasks.evaluation.comparison import EvaluationClip, Method, Outcome
from tasks.evaluation.comparisons import keyframes
from tasks.evaluation.comparisons.inversion import COMPARISON, InversionComparison
from tasks.evaluation.comparisons.keyframes import (
    Bench,
    Handling,
    Orders,
    PairFlows,
    Warping,
    masked_warps,
    measured,
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


def row(name: str, *, steps: int) -> Method:
    return Method(name=name, factors={**METHODS[name].factors, "steps": steps})


def run(clip: EvaluationClip, *methods: Method, comparison: InversionComparison = COMPARISON) -> list[Outcome]:
    return [outcome for _, outcome in comparison.measure(clip, methods, EMBEDDED)]


@pytest.fixture(scope="module")
def clip() -> EvaluationClip:
    return recoloured(random_scene(4, size=(SIDE, SIDE), frame_count=5))


@pytest.fixture
def bench(clip: EvaluationClip) -> Bench:
    return Bench(clip, EMBEDDED, handling=Handling())


def test_the_grid_is_whole_and_its_first_row_is_the_baseline() -> None:
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


def test_names_and_factors_are_distinct_and_of_one_form() -> None:
    factors = [tuple(method.factors.items()) for method in METHODS.values()]
    assert len(set(factors)) == len(METHODS)
    assert {tuple(dict(items)) for items in factors} == {
        ("warp", "window", "warped", "noise_point", "refinements", "steps")
    }


def test_a_rows_figures_are_those_of_inverting_and_sampling_back(clip: EvaluationClip, bench: Bench) -> None:
    ((outcome),) = run(clip, row("group, published, previous point, 1 refinement", steps=3))
    settings = InversionSettings(
        schedule=WarpSchedule(steps=3, window="published"), noise_point="previous", refinements=1
    )
    with loaded_model(EMBEDDED.model, device="cpu", dtype="float32") as model:
        given, stored = encode_frames(model, clip.frames[[0, 4]]), []
        rest = {"source_prompt": clip.caption, "warps": masked_warps(bench.flows(), Warping()), "settings": settings}
        invert(model, given, callback=lambda _, x: stored.append(x), **rest)
        back = reconstruct(model, stored[-1], orders=step_orders(2, settings), **rest)
    assert outcome.scores["latent error"] == pytest.approx(float((back - given).square().mean().sqrt()), rel=1e-4)
    squared = np.square(outcome.frames.astype(float) - clip.frames[[0, 4]]).mean(axis=(1, 2, 3))
    assert outcome.scores["PSNR"] == pytest.approx(float((10 * np.log10(255**2 / squared)).mean()))
    np.testing.assert_array_equal(outcome.reference, clip.frames[[0, 4]])
    assert set(outcome.scores) == {measure.name for measure in COMPARISON.measures}


def test_calls_of_the_unet_are_counted_with_all_keyframes_as_one(clip: EvaluationClip) -> None:
    rows = [row(name, steps=3) for name in ("plain", "group, previous point", "group, previous point, 2 refinements")]
    assert [outcome.scores["UNet calls"] for outcome in run(clip, *rows)] == [3 + 3, 3 + 3, 9 + 3]


def test_rows_share_an_inversion_and_count_it_each(clip: EvaluationClip, monkeypatch: pytest.MonkeyPatch) -> None:
    inverted = []
    monkeypatch.setattr(
        keyframes, "invert", lambda *args, **rest: inverted.append(rest["warps"]) or invert(*args, **rest)
    )
    rows = [row(name, steps=2) for name in ("plain", "group", "group, sampling only")]
    assert [outcome.scores["UNet calls"] for outcome in run(clip, *rows)] == [4, 4, 4]
    assert len(inverted) == 2


def test_a_clip_of_one_frame_needs_no_flow(clip: EvaluationClip) -> None:
    still = replace(clip, frames=clip.frames[:1], scene=None, edits=())
    (plain, group) = run(still, row("plain", steps=2), row("group", steps=2))
    assert plain.scores["PSNR"] == group.scores["PSNR"]


def test_a_count_ends_with_its_block_even_after_an_error() -> None:
    with loaded_model(EMBEDDED.model, device="cpu", dtype="float32") as model:
        with pytest.raises(InterruptedError), measured(model):
            raise InterruptedError
        assert not model.unet._forward_pre_hooks


def test_the_masks_are_the_methods_own_in_both_directions(bench: Bench) -> None:
    flows, warps = bench.flows(), masked_warps(bench.flows(), Warping())
    ((first, second),) = flows.pairs
    images = flows.images[first][None], flows.images[second][None]
    forth = warp_mask(*images, flows.to_prev, flows.to_cur)[0]
    back = warp_mask(*images[::-1], flows.to_cur, flows.to_prev)[0]
    assert torch.equal(warps.mask[first, second], forth)
    assert torch.equal(warps.mask[second, first], back)
    assert 0 < forth.float().mean() < 1


@pytest.mark.parametrize(
    "laxer", [Warping(residual=None), Warping(occlusion=None), Warping(residual=0.08), Warping(occlusion="squared")]
)
def test_a_laxer_rule_warps_more(bench: Bench, laxer: Warping) -> None:
    strict, lax = (masked_warps(bench.flows(), warping).mask[0, 1] for warping in (Warping(), laxer))
    assert (lax | ~strict).all()
    assert lax.sum() > strict.sum()


def test_without_a_mask_everything_is_warped(bench: Bench) -> None:
    assert masked_warps(bench.flows(), Warping(residual=None, occlusion=None)).mask[1, 0].all()


def test_true_warps_are_the_scenes_own(clip: EvaluationClip, bench: Bench) -> None:
    warps = bench.warps(Warping(flow="true"))
    for pair, (here, there) in {(0, 1): (4, 0), (1, 0): (0, 4)}.items():
        flow, hidden = match_frames(clip.scene, here, there)
        np.testing.assert_array_equal(warps.flow_to_prev[pair].numpy(), flow)
        np.testing.assert_array_equal(warps.mask[pair].numpy(), ~hidden)
    assert true_warps(clip.scene, (0, 4), [(0, 1)]).mask.keys() == {(0, 1), (1, 0)}


def inverted_mask(flows: PairFlows, warping: Warping) -> PairWarps:
    right = masked_warps(flows, warping)
    return replace(right, mask={pair: ~mask for pair, mask in right.mask.items()})


def negated_flow(flows: PairFlows, warping: Warping) -> PairWarps:
    right = masked_warps(flows, warping)
    return replace(right, flow_to_prev={pair: -flow for pair, flow in right.flow_to_prev.items()})


def swapped_orders(orders: Orders) -> Orders:
    return tuple(order[::-1] for order in orders)


@pytest.fixture(scope="module")
def sliding() -> list[EvaluationClip]:
    return [sliding_clip(seed) for seed in range(6)]


def scores_of(clips: list[EvaluationClip], method: Method, handling: Handling) -> Callable[[str], list[float]]:
    comparison = InversionComparison(handling=handling)
    outcomes = [run(clip, method, comparison=comparison)[0] for clip in clips]
    return lambda name: [outcome.scores[name] for outcome in outcomes]


def test_an_inverted_mask_and_a_negated_flow_are_seen_in_the_figures(sliding: list[EvaluationClip]) -> None:
    method = row("group, sampling only", steps=6)
    right = scores_of(sliding, method, Handling())
    for broken in (inverted_mask, negated_flow):
        wrong = scores_of(sliding, method, Handling(warps=broken))
        assert paired_difference(wrong("PSNR"), right("PSNR"), better="higher").verdict == "worse", broken


def test_orders_that_are_not_used_again_are_seen_in_the_figures(sliding: list[EvaluationClip]) -> None:
    method = row("group", steps=6)
    right, wrong = (scores_of(sliding, method, Handling(orders=orders)) for orders in (tuple, swapped_orders))
    assert paired_difference(wrong("PSNR"), right("PSNR"), better="higher").verdict == "worse"
