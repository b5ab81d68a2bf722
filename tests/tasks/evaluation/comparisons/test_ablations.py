"""Ablations: each method changes one choice, and its metrics can be measured."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import get_args

import pytest

from tasks.evaluation.clips.clip import EvaluationClip
from tasks.evaluation.comparisons.ablations import ANCHOR, MASK, REFINEMENT, SITES, STEPS, WINDOW
from tasks.evaluation.comparisons.comparison import Method, Outcome
from tasks.evaluation.comparisons.editing import EditingComparison, Recipe
from tasks.evaluation.comparisons.keyframes import KeyframeContext, SiteChoice
from tests._editing_clips import EMBEDDED, SIDE, recoloured
from wave_ops.scenes.specs import random_scene
from wave_ops.sites import resolve_sites

ABLATIONS = (ANCHOR, MASK, REFINEMENT, SITES, STEPS, WINDOW)
FEW = 6  # with fewer, no step reaches so little further than the one before that its noise point is extrapolated


@cache
def clip() -> EvaluationClip:
    # The digest decides the orders: in one of the few steps the later keyframe is the first of the order
    return replace(recoloured(random_scene(4, size=(SIDE, SIDE), frame_count=5)), digest="clip")


def edited(ablation: EditingComparison, *, quick: bool) -> list[Method]:
    """Return the methods without the reference rows."""
    return [method for method in ablation.methods(quick=quick) if not method.reference]


@cache
def run(name: str) -> dict[str, Outcome]:
    """Run the first and the last method of an ablation."""
    (ablation,) = (each for each in ABLATIONS if each.name == name)
    chosen = edited(ablation, quick=True)[:: len(ablation.recipes) - 1]
    rows = [Method(name=each.name, factors={**each.factors, "steps": FEW}) for each in chosen]
    return {method.name: outcome for method, outcome in ablation.measure(clip(), rows, EMBEDDED)}


@pytest.mark.parametrize("ablation", ABLATIONS, ids=lambda each: each.name)
def test_only_the_baseline_is_the_full_method(ablation: EditingComparison) -> None:
    recipes = {method.name: Recipe(**method.factors) for method in edited(ablation, quick=False)}
    assert recipes.pop(ablation.baseline) == Recipe()
    assert len({*recipes.values(), Recipe()}) == len(recipes) + 1


@pytest.mark.parametrize("ablation", ABLATIONS, ids=lambda each: each.name)
def test_methods_return_different_frames_and_only_declared_metrics(ablation: EditingComparison) -> None:
    outcomes = run(ablation.name)
    assert len({outcome.frames.tobytes() for outcome in outcomes.values()}) == len(outcomes) == 2
    known = {measure.name for measure in ablation.measures}
    assert all(set(outcome.scores) <= known for outcome in outcomes.values())
    assert all(("warp fidelity" in outcome.scores) == ablation.reconstructs for outcome in outcomes.values())


def test_a_choice_of_sites_changes_only_where_features_are_warped() -> None:
    context, found = (
        KeyframeContext(clip(), EMBEDDED),
        [],
    )
    for choice in get_args(SiteChoice):
        with context.model(choice) as model:
            found.append(resolve_sites(model.unet, sites=model.sites))
    method, more, fewer, resnets, attentions = found
    assert resnets == replace(method, warp_attentions=())
    assert attentions == replace(method, warp_resnets=())
    assert {name.partition(".resnets")[0] for name in set(more.warp_resnets) - set(method.warp_resnets)} == {
        "up_blocks.0"
    }
    assert {name.partition(".resnets")[0] for name in set(method.warp_resnets) - set(fewer.warp_resnets)} == {
        "up_blocks.1"
    }
    assert fewer.extend_attentions == method.extend_attentions != fewer.warp_attentions
    assert (more.inject_attentions, more.inject_resnets) == (method.inject_attentions, method.inject_resnets)


def test_refinements_cost_unet_calls_and_the_extrapolated_point_costs_none() -> None:
    outcomes = run("refinement")
    assert [outcome.scores["UNet calls"] for outcome in outcomes.values()] == [2 * FEW, 4 * FEW]


@pytest.mark.parametrize("quick", [False, True])
def test_methods_of_the_comparison_of_steps_keep_their_steps_in_a_quick_run(quick: bool) -> None:
    assert [method.factors["steps"] for method in edited(STEPS, quick=quick)] == [50, 20, 10, 20, 10]
    assert {method.factors["steps"] for method in edited(ANCHOR, quick=quick)} == {20 if quick else 50}


@pytest.mark.parametrize("ablation", ABLATIONS, ids=lambda each: each.name)
def test_the_last_rows_are_the_source_a_mix_and_the_true_edit(ablation: EditingComparison) -> None:
    for quick in (False, True):
        rows = ablation.methods(quick=quick)[-3:]
        assert [row.name for row in rows] == ["source unchanged", "half source, half truth", "true edit"]
        assert all(row.reference for row in rows)
