"""Recipes of editing: the grid of methods, and metrics that separate correct edits from wrong ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from tasks.evaluation.clips.clip import Edit, EvaluationClip
from tasks.evaluation.clips.scene_clips import scene_clips
from tasks.evaluation.comparisons.comparison import Method, Outcome, Resources
from tasks.evaluation.comparisons.edit_metrics import EditScorer
from tasks.evaluation.comparisons.editing import COMPARISON, Recipe
from tasks.evaluation.comparisons.keyframes import KeyframeContext, Warping, masked_warps
from tasks.models.checkpoints import resolve_controlnet
from tasks.models.loading import loaded_model
from tests._editing_clips import EMBEDDED, SIDE, edited_clip, recoloured
from tests._perception import lpips_weights, save_tiny_clip
from wave_ops.diffusion import decode_latents, encode_frames
from wave_ops.editing import EditingSettings, edit
from wave_ops.inversion import InversionSettings, invert, step_orders
from wave_ops.scenes.rendering import render
from wave_ops.scenes.specs import edit_spec, random_scene
from wave_ops.schedule import WarpSchedule

METHODS = {method.name: method for method in COMPARISON.methods(quick=False) if not method.reference}
REFERENCES = {method.name: method for method in COMPARISON.methods(quick=False) if method.reference}
SPEC = random_scene(4, size=(SIDE, SIDE), frame_count=5)
STEPS = 3


def run(clip: EvaluationClip, *names: str, resources: Resources = EMBEDDED, **factors: Any) -> dict[str, Outcome]:
    rows = [Method(name=name, factors={**METHODS[name].factors, "steps": STEPS, **factors}) for name in names]
    return {method.name: outcome for method, outcome in COMPARISON.measure(clip, rows, resources)}


def scores_of(
    clip: EvaluationClip, frames: NDArray[np.uint8], *, resources: Resources = EMBEDDED
) -> Mapping[str, float]:
    """Measure given keyframes, without running a model."""
    context = KeyframeContext(clip, resources)
    return EditScorer(context).scores(0, context.fit(frames))


@pytest.fixture(scope="module")
def clip() -> EvaluationClip:
    return recoloured(SPEC)


@pytest.fixture(scope="module")
def real(clip: EvaluationClip) -> EvaluationClip:
    edit = Edit(kind="prompt", prompt=clip.edits[0].prompt)
    return replace(clip, group="real", scene=None, edits=(edit,))


def test_the_grid_is_the_ladder_with_and_without_injection_and_controlnet() -> None:
    assert len(METHODS) == 5 * 2 * 2
    quick = [method for method in COMPARISON.methods(quick=True) if not method.reference]
    assert [method.name for method in quick] == ["full", "warp + extended", "warp", "no warp", "independent"]
    assert COMPARISON.baseline == "full"
    assert all(
        (method.factors["steps"], method.factors["injection"], method.factors["controlnet"]) == (20, 0.5, False)
        for method in quick
    )


def test_factors_are_distinct_and_have_the_same_keys() -> None:
    factors = [tuple(method.factors.items()) for method in METHODS.values()]
    assert len(set(factors)) == len(METHODS)
    assert len({tuple(dict(items)) for items in factors}) == 1


def test_the_baseline_is_the_full_method() -> None:
    assert Recipe(**METHODS["full"].factors) == Recipe()


def test_the_independent_method_edits_each_frame_as_if_it_were_alone(clip: EvaluationClip) -> None:
    edited = run(clip, "independent")["independent"].frames
    settings = EditingSettings(
        schedule=WarpSchedule(steps=STEPS, warp_fraction=0.0), guidance_scale=EMBEDDED.model.advice.guidance_scale
    )
    with loaded_model(EMBEDDED.model, device="cpu", dtype="float32") as model:
        for frame, expected in zip(clip.frames[[0, 4]], edited, strict=True):
            latents = [encode_frames(model, frame[None])]
            rest = {"source_prompt": clip.caption, "warps": None}
            keep = InversionSettings(schedule=WarpSchedule(steps=STEPS))
            invert(model, latents[0], settings=keep, callback=lambda _, x, kept=latents: kept.append(x), **rest)
            x = edit(
                model,
                latents.__getitem__,
                prompt=clip.edits[0].prompt,
                negative_prompt=EMBEDDED.model.advice.negative_prompt,
                orders=step_orders(1, keep),
                settings=settings,
                **rest,
            )
            assert np.abs(decode_latents(model, x)[0].astype(int) - expected).max() <= 1


def test_the_full_method_inverts_and_edits_with_the_same_warps_and_orders(clip: EvaluationClip) -> None:
    outcome = run(clip, "full", anchor="time")["full"]
    context, keep = (
        KeyframeContext(clip, EMBEDDED),
        InversionSettings(schedule=WarpSchedule(steps=STEPS), seed=KeyframeContext(clip, EMBEDDED).shuffle_seed),
    )
    advice = EMBEDDED.model.advice
    with loaded_model(EMBEDDED.model, device="cpu", dtype="float32") as model:
        latents = [encode_frames(model, clip.frames[[0, 4]])]
        rest = {"source_prompt": clip.caption, "warps": masked_warps(context.flows(), Warping())}
        invert(model, latents[0], settings=keep, callback=lambda _, x: latents.append(x), **rest)
        x = edit(
            model,
            latents.__getitem__,
            prompt=clip.edits[0].prompt,
            negative_prompt=advice.negative_prompt,
            orders=step_orders(2, keep),
            settings=EditingSettings(
                schedule=WarpSchedule(steps=STEPS), guidance_scale=advice.guidance_scale, anchor="time"
            ),
            **rest,
        )
        np.testing.assert_array_equal(decode_latents(model, x), outcome.frames)
    assert outcome.scores["UNet calls"] == 2 * STEPS
    np.testing.assert_array_equal(outcome.reference, clip.edits[0].truth.frames[[0, 4]])


def test_every_method_of_the_ladder_returns_other_frames(clip: EvaluationClip) -> None:
    outcomes = run(clip, "full", "warp + extended", "warp", "no warp", "independent", "full, no injection")
    assert len({outcome.frames.tobytes() for outcome in outcomes.values()}) == 6
    known = {measure.name for measure in COMPARISON.measures}
    assert all(set(outcome.scores) <= known for outcome in outcomes.values())
    assert all({"rest kept", "preservation", "warp error", "seconds"} <= set(each.scores) for each in outcomes.values())


def test_the_controlnet_changes_the_edit_and_without_one_its_methods_have_no_scores(clip: EvaluationClip) -> None:
    name = "full, ControlNet"
    assert run(clip, name) == {name: Outcome(scores={})}
    controlled = replace(EMBEDDED, controlnet=resolve_controlnet("auto", model=EMBEDDED.model))
    outcomes = run(clip, "full", name, resources=controlled)
    assert not np.array_equal(outcomes["full"].frames, outcomes[name].frames)


def test_scores_of_several_edits_are_averaged_and_the_frames_are_those_of_the_first(clip: EvaluationClip) -> None:
    other = replace(clip.edits[0], prompt=clip.caption)
    both, first, second = (
        run(replace(clip, edits=edits), "independent")["independent"]
        for edits in ((clip.edits[0], other), clip.edits, (other,))
    )
    for name in ("preservation", "warp error"):
        assert both.scores[name] == pytest.approx((first.scores[name] + second.scores[name]) / 2)
    np.testing.assert_array_equal(both.frames, first.frames)


def test_a_real_clip_has_only_the_metrics_that_need_no_ground_truth(real: EvaluationClip) -> None:
    outcome = run(real, "warp")["warp"]
    assert set(outcome.scores) == {"warp error", "warp error over source", "UNet calls", "seconds"}
    np.testing.assert_array_equal(outcome.reference, real.frames[[0, 4]])
    assert run(real, "warp", flow="true")["warp"].scores == {}


def test_lpips_and_clip_are_measured_if_their_networks_are_there(real: EvaluationClip, tmp_path: Path) -> None:
    save_file(lpips_weights(), tmp_path / "lpips.safetensors")
    networks = replace(
        EMBEDDED,
        lpips_weights=str(tmp_path / "lpips.safetensors"),
        clip_model=str(save_tiny_clip(tmp_path / "clip")),
    )
    found = scores_of(real, real.frames, resources=networks)
    assert found["LPIPS to source"] == 0
    assert -1 <= found["CLIP text alignment"] <= 1
    assert found["CLIP frame accuracy"] in (0, 0.5, 1)
    still = scores_of(real, real.frames[[0] * 5], resources=networks)
    assert still["CLIP consistency"] == pytest.approx(1) != found["CLIP consistency"]


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("colour", {"colour": "white"}),
        ("shape", {"shape": "ring"}),
        ("background colour", {"background_colour": "white"}),
        ("background texture", {"background_texture": "striped"}),
    ],
)
def test_the_true_edit_scores_best_in_every_metric_and_the_source_in_all_but_edit_success(
    kind: str, change: dict[str, Any]
) -> None:
    spec = random_scene(6, size=(SIDE, SIDE), frame_count=5)
    clip = edited_clip(spec, kind=kind, **change)
    true, source = scores_of(clip, clip.edits[0].truth.frames), scores_of(clip, clip.frames)
    assert (true["edit success"], true["rest kept"], true["frames that pass everything"]) == (1, 1, 1)
    assert (source["edit success"], source["rest kept"], source["frames that pass everything"]) == (0, 1, 0)
    assert ("colour success" in true) == (kind == "colour")
    assert ("PSNR to true edit" in true) == ("colour" in kind)  # one of many right answers for the others
    assert true.get("PSNR to true edit", 100) == 100 > source.get("PSNR to true edit", 0)
    assert true["preservation"] == true["preservation if successful"] == source["preservation"] == 60
    assert true["object overlap"] > 0.9
    assert true["warp error if successful"] == true["warp error"]
    assert (source["warp error over source"], true["warp error over true edit"]) == (0, 0)


def test_the_reference_rows_need_no_model(
    clip: EvaluationClip, real: EvaluationClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.evaluation.comparisons.keyframes.loaded_model", None)
    outcomes = {method.name: outcome for method, outcome in COMPARISON.measure(clip, REFERENCES.values(), EMBEDDED)}
    truth = clip.edits[0].truth.frames[[0, 4]]
    np.testing.assert_array_equal(outcomes["source unchanged"].frames, clip.frames[[0, 4]])
    np.testing.assert_array_equal(outcomes["true edit"].frames, truth)
    mixed = (clip.frames[[0, 4]].astype(float) + truth) / 2
    assert np.abs(outcomes["half source, half truth"].frames - mixed).max() <= 0.5
    assert {name: outcome.scores["frames that pass everything"] for name, outcome in outcomes.items()} == {
        "source unchanged": 0,
        "half source, half truth": 0,
        "true edit": 1,
    }
    found = {method.name: outcome for method, outcome in COMPARISON.measure(real, REFERENCES.values(), EMBEDDED)}
    assert found["source unchanged"].scores["warp error over source"] == 0
    assert found["true edit"].scores == found["half source, half truth"].scores == {}


def test_preservation_and_warp_error_are_also_measured_where_the_edit_came_through(clip: EvaluationClip) -> None:
    """Frames that keep the source are the best preserved, and those do not count."""
    truth, context = clip.edits[0].truth.frames, KeyframeContext(clip, EMBEDDED, interval=1)
    outside = np.maximum(truth, 20) - 20  # a fault that changes everything
    frames = np.concatenate([clip.frames[:1], outside[1:4], clip.frames[4:]])
    found = EditScorer(context).scores(0, frames)
    assert found["edit success"] == pytest.approx(3 / 5)
    assert found["preservation if successful"] < found["preservation"] - 1
    steady = EditScorer(context).scores(0, outside)
    assert found["warp error if successful"] < 1.5 * steady["warp error"] < found["warp error"] / 2
    assert found["preservation if successful"] == pytest.approx(steady["preservation if successful"], abs=0.3)
    failed = EditScorer(context).scores(0, clip.frames)
    assert not {"preservation if successful", "warp error if successful"} & set(failed)


def test_an_object_that_loses_its_texture_is_not_kept() -> None:
    spec = random_scene(4, size=(SIDE, SIDE), frame_count=5)
    striped, plain = (
        replace(spec, objects=(replace(spec.objects[0], texture=texture),)) for texture in ("striped", "plain")
    )
    clip, lost = recoloured(striped), recoloured(plain).edits[0].truth.frames
    found = scores_of(clip, lost)
    assert (found["edit success"], found["rest kept"], found["frames that pass everything"]) == (1, 0, 0)


def test_an_edit_that_mixes_the_shots_of_a_cut_is_seen() -> None:
    clip = next(each for each in scene_clips(4, seed=0, frame_count=9) if each.group == "cut")
    context = KeyframeContext(clip, EMBEDDED, interval=1)
    truth = clip.edits[0].truth.frames
    mixed = truth.copy()
    mixed[5:] = np.rint((truth[5:].astype(float) + truth[:4]) / 2)  # the first shot shows through the second
    right, wrong = (EditScorer(context).scores(0, frames) for frames in (truth, mixed))
    assert right["frames that pass everything"] == 1
    assert wrong["frames that pass everything"] <= 5 / 9


def test_a_change_of_anything_else_lowers_rest_kept_and_preservation(clip: EvaluationClip) -> None:
    truth = clip.edits[0].truth
    changed = render(edit_spec(truth.shots[0], background_colour="purple"))
    found = scores_of(clip, changed.frames)
    assert found["edit success"] == 1
    assert found["rest kept"] == 0
    assert found["preservation"] < 20


def test_a_change_of_the_other_object_lowers_rest_kept() -> None:
    spec = random_scene(3, size=(SIDE, SIDE), frame_count=5, objects=2)
    clip = recoloured(spec)
    truth = clip.edits[0].truth.shots[0]
    free = {"red", "green", "cyan"} - {item.colour for item in truth.objects} - {truth.background.colour}
    changed = scores_of(clip, render(edit_spec(truth, colour=min(free), object_index=1)).frames)
    assert (changed["edit success"], changed["rest kept"]) == (1, 0)
    assert scores_of(clip, clip.edits[0].truth.frames)["rest kept"] == 1


def test_flicker_raises_the_warp_error_by_its_mean_square(clip: EvaluationClip) -> None:
    frames = clip.frames.copy()
    frames[4] = np.maximum(frames[4], 20) - 20
    drop = frames[4].astype(float) - clip.frames[4]
    found = scores_of(clip, frames)
    assert found["warp error over source"] == pytest.approx(1e3 * np.square(drop / 255).mean(), rel=0.3)


def test_warp_errors_do_not_compare_frames_across_a_cut() -> None:
    shots = [replace(SPEC, frame_count=5), random_scene(9, size=(SIDE, SIDE), frame_count=5)]
    clip = recoloured(*shots)
    alone = [scores_of(recoloured(spec), spec_frames) for spec, spec_frames in zip(shots, _halves(clip), strict=True)]
    together = scores_of(clip, clip.frames)
    assert together["warp error"] == pytest.approx(np.mean([each["warp error"] for each in alone]), rel=1e-4)
    real = replace(clip, scene=None, edits=(Edit(kind="prompt", prompt=""),))
    assert scores_of(real, clip.frames)["warp error"] < 5 * together["warp error"]


def _halves(clip: EvaluationClip) -> list[NDArray[np.uint8]]:
    return [clip.frames[:5], clip.frames[5:]]


def test_warp_errors_leave_out_pixels_that_a_change_of_shape_covers_or_uncovers(clip: EvaluationClip) -> None:
    reshaped = edited_clip(SPEC, kind="shape", shape="ring" if SPEC.objects[0].shape != "ring" else "square")
    context = KeyframeContext(reshaped, EMBEDDED)
    flow, valid = EditScorer(context).motion(0)
    before, after = (scene.object_masks[4, 0] for scene in (reshaped.scene, reshaped.edits[0].truth))
    assert not valid[0].numpy()[before != after].any()
    assert valid[0].numpy()[before & after].mean() > 0.8
    assert torch.isfinite(flow).all()
