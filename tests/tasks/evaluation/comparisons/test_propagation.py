"""Propagation methods: baselines against their formulas, scores against the true edit, and wrong flow."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tasks.evaluation.clips.clip import Edit, EvaluationClip
from tasks.evaluation.clips.scene_clips import EDIT_KINDS
from tasks.evaluation.comparisons.comparison import Method, Outcome
from tasks.evaluation.comparisons.editing import Recipe, edit_clip_keyframes
from tasks.evaluation.comparisons.keyframes import KeyframeContext
from tasks.evaluation.comparisons.propagation import COMPARISON
from tasks.evaluation.comparisons.propagation_baselines import BASELINES
from tasks.evaluation.comparisons.reference_rows import REFERENCE_ROWS
from tasks.models.checkpoints import resolve_model
from tests._editing_clips import EMBEDDED, SIDE, edited_clip
from tests._evaluation import RESOURCES
from wave_ops.flow import dis_flow
from wave_ops.propagation import KeyframeInterval
from wave_ops.scenes.rendering import cut, render
from wave_ops.scenes.specs import SceneSpec, edit_spec, random_scene

METHODS = {method.name: method for method in COMPARISON.methods(quick=False)}
SIZE = (48, 48)


def recoloured(*shots: SceneSpec) -> EvaluationClip:
    """Draw a clip of one or two shots; the edit turns the first object white."""
    edited = [edit_spec(spec, colour="white") for spec in shots]
    scene, truth = (render(specs[0]) if len(specs) == 1 else cut(*specs) for specs in (shots, edited))
    edit = Edit(kind="colour", prompt="", truth=truth)
    return EvaluationClip(
        name="clip", group="calm", frames=scene.frames, caption="", edits=(edit,), scene=scene, cuts=scene.cuts
    )


@pytest.fixture(scope="module")
def clip() -> EvaluationClip:
    return recoloured(random_scene(4, size=SIZE, frame_count=9))


@pytest.fixture(scope="module")
def outcomes(clip: EvaluationClip) -> dict[str, Outcome]:
    chosen = [method for method in METHODS.values() if method.factors["keyframes"] == "true"]
    return {method.name: outcome for method, outcome in COMPARISON.measure(clip, chosen, RESOURCES)}


def run(clip: EvaluationClip, name: str, resources: Any = RESOURCES) -> Outcome:
    ((_, outcome),) = COMPARISON.measure(clip, [METHODS[name]], resources)
    return outcome


@pytest.fixture
def interval() -> KeyframeInterval:
    """Return five frames of a texture that moves left by one pixel per frame; the edit is the negative."""
    wide = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
    frames = np.stack([wide[:, i : i + 32] for i in range(5)])
    to_prev = np.zeros((4, 2, 24, 32), np.float32)
    to_prev[:, 0] = 1
    return KeyframeInterval(
        frames=frames, first=255 - frames[0], last=255 - frames[4], to_prev=to_prev, to_cur=-to_prev
    )


def test_the_nearest_keyframe_is_the_nearer_one_and_in_the_middle_the_earlier(interval: KeyframeInterval) -> None:
    expected = [interval.first, interval.first, interval.last]
    np.testing.assert_array_equal(BASELINES["nearest keyframe"](interval), expected)


def test_a_cross_fade_is_linear_in_time(interval: KeyframeInterval) -> None:
    first, last = interval.first.astype(float), interval.last.astype(float)
    expected = [0.75 * first + 0.25 * last, 0.5 * first + 0.5 * last, 0.25 * first + 0.75 * last]
    np.testing.assert_allclose(BASELINES["cross-fade"](interval), expected, atol=0.51)


@pytest.mark.parametrize("name", ["flow warp", "two-way warp"])
def test_a_warp_along_the_true_flow_is_exact_where_both_keyframes_are_visible(
    interval: KeyframeInterval, name: str
) -> None:
    warped = BASELINES[name](interval)
    np.testing.assert_array_equal(warped[:, :, 4:-4], 255 - interval.frames[1:-1, :, 4:-4])


def test_the_full_method_is_closer_to_the_true_edit_than_every_baseline(outcomes: dict[str, Outcome]) -> None:
    for name in set(BASELINES) - {"colour map"}:
        for measure in ("PSNR", "SSIM", "PSNR of what changes"):
            assert outcomes["full"].scores[measure] > outcomes[name].scores[measure]
    assert 1 < outcomes["full"].scores["warp error ratio"] < outcomes["nearest keyframe"].scores["warp error ratio"]


def test_psnr_and_gain_follow_from_the_frames(clip: EvaluationClip, outcomes: dict[str, Outcome]) -> None:
    assert clip.edits[0].truth is not None
    made, truth = outcomes["flow warp"].frames, clip.edits[0].truth.frames
    assert made is not None
    squared = np.square((made[1:-1].astype(float) - truth[1:-1]) / 255).mean(axis=(1, 2, 3))
    assert outcomes["flow warp"].scores["PSNR"] == pytest.approx(float(np.mean(-10 * np.log10(squared))), abs=1e-3)
    gain = outcomes["full"].scores["PSNR"] - outcomes["flow warp"].scores["PSNR"]
    assert outcomes["full"].scores["gain over flow warp"] == pytest.approx(gain)
    assert outcomes["flow warp"].scores["gain over flow warp"] == 0


def test_every_declared_metric_is_measured_and_no_other(outcomes: dict[str, Outcome]) -> None:
    for outcome in outcomes.values():
        named = {measure.name for measure in COMPARISON.measures if ", " not in measure.name}
        assert set(outcome.scores) == {*named, "PSNR, colour"}
        assert outcome.scores["PSNR, colour"] == outcome.scores["PSNR"]


def test_keyframes_stay_unchanged(clip: EvaluationClip, outcomes: dict[str, Outcome]) -> None:
    assert clip.edits[0].truth is not None
    for outcome in outcomes.values():
        assert outcome.frames is not None
        np.testing.assert_array_equal(outcome.frames[[0, 8]], clip.edits[0].truth.frames[[0, 8]])
        np.testing.assert_array_equal(outcome.reference, clip.edits[0].truth.frames)


def test_each_setting_of_the_full_method_changes_the_frames(outcomes: dict[str, Outcome]) -> None:
    results = [outcome.frames for name, outcome in outcomes.items() if name.startswith("full")]
    assert len({frames.tobytes() for frames in results if frames is not None}) == len(results) == 8


def test_a_negated_flow_lowers_the_psnr(
    clip: EvaluationClip, outcomes: dict[str, Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    estimate = dis_flow()

    def negated(prev: Any, cur: Any) -> Any:
        return tuple(-flow for flow in estimate(prev, cur))

    monkeypatch.setattr("tasks.evaluation.comparisons.propagation.load_flow", lambda *_, **__: negated)
    # Above 60 dB only rounding is left, and restored detail compensates most of a wrong flow
    for name, least in {"flow warp": 1, "full, no detail": 1, "full, published guides": 0.5, "full": 0.25}.items():
        assert run(clip, name).scores["PSNR"] < outcomes[name].scores["PSNR"] - least


def test_nothing_is_propagated_across_a_cut() -> None:
    shots = [random_scene(seed, size=SIZE, frame_count=count) for seed, count in ((4, 3), (5, 2))]
    outcome = run(recoloured(*shots), "nearest keyframe")
    truth = [render(edit_spec(spec, colour="white")).frames for spec in shots]
    assert outcome.frames is not None
    np.testing.assert_array_equal(outcome.frames[3:], truth[1])
    np.testing.assert_array_equal(outcome.frames[1], truth[0][0])


def test_a_real_clip_is_edited_by_a_permutation_of_its_colours(clip: EvaluationClip) -> None:
    real = replace(clip, edits=(Edit(kind="prompt", prompt="a painting"),), scene=None)
    outcome = run(real, "nearest keyframe")
    assert outcome.frames is not None
    np.testing.assert_array_equal(outcome.frames[8], clip.frames[8][..., [1, 2, 0]])
    assert np.isfinite(outcome.scores["warp error ratio"])
    assert run(real, "full, true flow").scores == {}


def test_rough_keyframes_are_the_round_trip_through_the_vae() -> None:
    spec = random_scene(4, size=(64, 64), frame_count=9)
    clip, resources = recoloured(spec), replace(RESOURCES, model=resolve_model("embedded"))
    rough = run(clip, "nearest keyframe, rough keyframes", resources).frames
    assert clip.edits[0].truth is not None
    assert rough is not None
    error = np.abs(rough[[0, 8]].astype(float) - clip.edits[0].truth.frames[[0, 8]]).mean()
    assert 0 < error < 10


@pytest.mark.parametrize("quick", [True, False])
def test_methods_differ_in_name_and_factors_and_include_the_baseline(quick: bool) -> None:
    methods: tuple[Method, ...] = COMPARISON.methods(quick=quick)
    assert COMPARISON.baseline in {method.name for method in methods}
    assert len({method.name for method in methods}) == len(methods)
    assert len({tuple(sorted(method.factors.items(), key=str)) for method in methods}) == len(methods)
    assert len({frozenset(method.factors) for method in methods}) == 1


def test_the_clips_have_two_intervals_and_every_kind_of_edit() -> None:
    clips = COMPARISON.clips(quick=True, count=4, seed=0)
    assert clips[0].frames.shape == (17, 128, 128, 3)
    assert {clip.edits[0].kind for clip in clips} == set(EDIT_KINDS)


@pytest.mark.parametrize("quick", [True, False])
def test_rough_keyframes_lead_and_each_method_is_compared_with_the_full_one_with_its_keyframes(quick: bool) -> None:
    methods = COMPARISON.methods(quick=quick)
    kinds = [method.factors["keyframes"] for method in methods if not method.reference]
    assert list(dict.fromkeys(kinds)) == ["round trip", "edited", "true"]
    assert methods[0].name == COMPARISON.baseline
    by_name = {method.name: method for method in methods}
    for method in methods:
        if not method.reference:
            baseline = by_name[method.baseline]
            assert baseline.factors["way"] == "full"
            assert baseline.factors["keyframes"] == method.factors["keyframes"]


def test_a_colour_map_is_exact_where_the_edit_is_one_and_knows_no_place(interval: KeyframeInterval) -> None:
    mapped = BASELINES["colour map"](interval)
    assert np.abs(mapped.astype(int) - (255 - interval.frames[1:-1])).max() <= 16  # colours that no keyframe has
    one_colour = np.full_like(interval.frames, 100)
    first, last = np.full_like(interval.first, 50), np.full_like(interval.last, 50)
    first[:12], last[:12] = 150, 150
    halved = BASELINES["colour map"](replace(interval, frames=one_colour, first=first, last=last))
    assert (halved == 100).all()  # one colour has one image, the mean


def test_a_colour_map_and_flow_warp_do_not_replace_propagation_of_a_new_shape() -> None:
    spec = random_scene(4, size=SIZE, frame_count=9)
    shape = "ring" if spec.objects[0].shape != "ring" else "square"
    scene, truth = render(spec), render(edit_spec(spec, shape=shape))
    clip = EvaluationClip(
        name="clip",
        group="calm",
        frames=scene.frames,
        caption="",
        edits=(Edit(kind="shape", prompt="", truth=truth),),
        scene=scene,
    )
    full, mapped = (run(clip, name).scores for name in ("full", "colour map"))
    assert full["PSNR, shape"] == full["PSNR"] > mapped["PSNR"] + 3


def test_edited_keyframes_come_from_the_model_and_count_only_where_one_result_is_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tasks.evaluation.comparisons.propagation._EDITING_STEPS", 2)
    spec = random_scene(4, size=(SIDE, SIDE), frame_count=9)
    for kind, change in {"colour": {"colour": "white"}, "shape": {"shape": "ring"}}.items():
        clip = edited_clip(spec, kind=kind, **change)
        outcome = run(clip, "nearest keyframe, edited keyframes", EMBEDDED)
        assert outcome.frames is not None
        expected, _ = edit_clip_keyframes(KeyframeContext(clip, EMBEDDED, interval=8), Recipe(steps=2))
        np.testing.assert_array_equal(outcome.frames[[0, 8]], expected)
        assert ("PSNR" in outcome.scores) == (kind == "colour")
        assert "warp error ratio" in outcome.scores


def test_the_reference_rows_are_the_source_a_mix_and_the_true_edit(clip: EvaluationClip) -> None:
    found = {
        method.name: outcome
        for method, outcome in COMPARISON.measure(clip, [METHODS[name] for name in REFERENCE_ROWS], RESOURCES)
    }
    assert found["true edit"].scores["PSNR"] == 100
    assert found["source unchanged"].scores["PSNR"] < found["half source, half truth"].scores["PSNR"] < 100
    assert "seconds" not in found["true edit"].scores
