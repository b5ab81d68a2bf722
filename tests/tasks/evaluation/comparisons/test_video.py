"""Whole edited videos: every known fault is seen in a named metric, and rows change only what they name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.errors import TaskInputError
from tasks.evaluation.clips.clip import Edit, EvaluationClip
from tasks.evaluation.comparisons.comparison import Method, Outcome
from tasks.evaluation.comparisons.video import COMPARISON, KEYFRAME_INTERVAL, ROWS, VideoSettings, changed
from tasks.evaluation.comparisons.video_metrics import VideoScorer
from tests._editing_clips import EMBEDDED, SIDE, edited_clip, recoloured
from wave_ops.errors import WaveOpsError
from wave_ops.scenes.rendering import render_frame
from wave_ops.scenes.specs import edit_spec, random_scene
from wave_ops.schedule import WarpSchedule

Frames = NDArray[np.uint8]

FRAMES = 17
MADE = [method for method in COMPARISON.methods(quick=False) if not method.reference]
# A plain object: nothing of it can be lost by a texture that the checker reads
SPEC = random_scene(6, size=(SIDE, SIDE), frame_count=FRAMES)
SPEC = replace(SPEC, objects=(replace(SPEC.objects[0], texture="plain", colour="blue"),))


@pytest.fixture(scope="module")
def clip() -> EvaluationClip:
    return edited_clip(SPEC, colour="red")


@pytest.fixture(scope="module")
def scorer(clip: EvaluationClip) -> VideoScorer:
    return VideoScorer(clip, EMBEDDED)


def scores_of(scorer: VideoScorer, frames: Frames) -> dict[str, float]:
    return scorer.scores(frames, keyframes=scorer.keyframes(KEYFRAME_INTERVAL))


def _mixed(source: Frames, truth: Frames) -> Frames:
    return np.rint((source.astype(float) + truth) / 2).astype(np.uint8)


def _saturated(frames: Frames, factors: NDArray[np.float64]) -> Frames:
    """Multiply the saturation of each frame."""
    made = []
    for frame, factor in zip(frames, factors, strict=True):
        hsv = cv2.cvtColor(frame.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
        hsv[..., 1] = np.clip(hsv[..., 1] * factor, 0, 1)
        made.append(np.rint(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255).astype(np.uint8))
    return np.stack(made)


def _between_keyframes() -> NDArray[np.float64]:
    """Return 0 at keyframes, and up to 1 in the middle between them."""
    return np.sin(np.pi * np.arange(FRAMES) / KEYFRAME_INTERVAL) ** 2


def test_the_true_edit_is_without_fault(scorer: VideoScorer) -> None:
    found = scores_of(scorer, scorer.reference)
    assert found["frames that pass everything"] == found["edit success"] == found["rest kept"] == 1
    assert found["PSNR to true edit"] == 100
    for name in ("warp error over true edit", "pulse", "pulse of contrast", "drift"):
        assert found[name] == 0
    assert found["passing, middles less keyframes"] == found["PSNR, middles less keyframes"] == 0


@pytest.mark.parametrize("make", [lambda source, _: source, _mixed], ids=["does nothing", "ghost"])
def test_no_frame_passes_of_an_editor_that_does_nothing_or_mixes(
    make: Callable[[Frames, Frames], Frames], scorer: VideoScorer
) -> None:
    found = scores_of(scorer, make(scorer.source, scorer.reference))
    assert found["frames that pass everything"] == found["edit success"] == 0
    assert "preservation if successful" not in found
    assert "warp error if successful" not in found


def test_an_editor_of_single_frames_is_seen_in_the_warp_error_alone() -> None:
    """Each frame is a right answer by itself: a prompt does not say where a texture starts."""
    kept = {"dotted", "checked", "striped"} - {SPEC.background.texture}
    clip = edited_clip(SPEC, kind="background texture", background_texture=min(kept))
    truth, scorer = clip.edits[0].truth, VideoScorer(clip, EMBEDDED)
    spec, rng = truth.shots[0], np.random.default_rng(0)
    frames = []
    for index in range(FRAMES):
        x, y = rng.uniform(-0.5, 0.5, 2)
        start, end = (replace(pose, x=x, y=y) for pose in (spec.background.motion.start, spec.background.motion.end))
        ground = replace(spec.background, motion=replace(spec.background.motion, start=start, end=end))
        frames.append(render_frame(replace(spec, background=ground), spec.progress(index)))
    found = scores_of(scorer, np.stack(frames))
    assert found["frames that pass everything"] == 1
    assert found["warp error over true edit"] > 3
    assert found["warp error if successful"] == found["warp error"]


def test_a_blend_whose_colour_beats_with_the_keyframes_is_seen_in_the_pulse_alone(scorer: VideoScorer) -> None:
    found = scores_of(scorer, _saturated(scorer.reference, 1 - 0.15 * _between_keyframes()))
    assert found["frames that pass everything"] == 1
    assert found["pulse"] > 10
    steady = scores_of(scorer, _saturated(scorer.reference, np.full(FRAMES, 0.85)))
    assert steady["pulse"] < 1
    assert found["drift"] < 1


def test_colours_that_fade_are_seen_in_the_drift(scorer: VideoScorer) -> None:
    found = scores_of(scorer, _saturated(scorer.reference, np.linspace(1, 0.8, FRAMES)))
    assert found["drift"] > 5
    assert found["pulse"] < 1
    assert found["frames that pass everything"] == 1


def test_middles_that_show_the_source_are_seen_next_to_the_keyframes(scorer: VideoScorer) -> None:
    weights = 0.5 * (_between_keyframes() > 0.1)[:, None, None, None]
    frames = np.rint((1 - weights) * scorer.reference + weights * scorer.source).astype(np.uint8)
    found = scores_of(scorer, frames)
    assert found["passing, middles less keyframes"] == -1
    assert found["PSNR, middles less keyframes"] < -20


def test_settings_are_changed_by_their_place_and_the_rest_is_kept() -> None:
    found = changed(
        VideoSettings(), {"schedule.steps": 7, "inversion.noise_point": "previous", "keyframe_interval": 3}
    ).joined()
    schedule = WarpSchedule(steps=7)
    default = VideoSettings()
    assert found.inversion == replace(default.inversion, noise_point="previous", schedule=schedule)
    assert found.editing == replace(default.editing, schedule=schedule)
    assert (found.keyframe_interval, found.propagation) == (3, default.propagation)
    weights = changed(default, {"propagation.gradient_weights": [1.0, 2.0, 3.0]}).propagation.gradient_weights
    assert weights == (1.0, 2.0, 3.0)


@pytest.mark.parametrize("place", ["speed", "inversion.speed", "keyframe_interval.size"])
def test_an_unknown_setting_is_refused_by_its_place(place: str) -> None:
    with pytest.raises(TaskInputError, match="Unknown setting"):
        changed(VideoSettings(), {place: 1})


@pytest.mark.usefixtures("unchecked")
def test_a_value_that_the_settings_refuse_is_an_error() -> None:
    with pytest.raises(WaveOpsError, match="noise_point"):
        changed(VideoSettings(), {"inversion.noise_point": "later"})


@pytest.mark.parametrize("name", ROWS)
def test_every_row_is_settings_of_its_own(name: str) -> None:
    advised = {"editing.keep": True, "editing.paste": True}
    product = changed(VideoSettings(), {**advised, "schedule.steps": 30})
    others = [changed(product, row) for other, row in ROWS.items() if other != name]
    assert changed(product, ROWS[name]) not in others


@pytest.mark.parametrize("quick", [False, True])
def test_methods_start_with_the_baseline_and_end_with_the_reference_rows(quick: bool) -> None:
    methods = COMPARISON.methods(quick=quick)
    assert methods[0].name == COMPARISON.baseline
    assert [method.reference for method in methods] == [False] * (len(methods) - 3) + [True] * 3
    assert {tuple(method.factors) for method in methods} == {("settings", "frames")}
    steps = {method.factors["settings"]["schedule.steps"] for method in methods if not method.reference}
    assert steps == {20, 50}


def run(clip: EvaluationClip, *names: str, **changes: Any) -> dict[str, Outcome]:
    rows = [method for method in MADE if method.name in names]
    few = [
        Method(name=row.name, factors={**row.factors, "settings": {**row.factors["settings"], **changes}})
        for row in rows
    ]
    return {method.name: outcome for method, outcome in COMPARISON.measure(clip, few, EMBEDDED)}


@pytest.fixture(scope="module")
def short() -> EvaluationClip:
    return recoloured(random_scene(4, size=(SIDE, SIDE), frame_count=9))


def test_rows_differ_in_what_they_change_and_leave_the_clip_as_it_is(short: EvaluationClip) -> None:
    before = short.frames.copy()
    found = run(
        short, "default", "contrast-preserving blend", "colour map", "each frame alone", **{"schedule.steps": 2}
    )
    np.testing.assert_array_equal(short.frames, before)
    frames = {name: outcome.frames for name, outcome in found.items()}
    assert len({each.tobytes() for each in frames.values()}) == 4
    for name in ("contrast-preserving blend", "colour map"):
        np.testing.assert_array_equal(frames[name][[0, 8]], frames["default"][[0, 8]])  # the keyframes are shared
        assert found[name].scores["UNet calls"] == found["default"].scores["UNet calls"] == 4 + 9  # of the mask
    declared = {measure.name for measure in COMPARISON.measures}
    for name, outcome in found.items():
        assert set(outcome.scores) <= declared
        assert ("pulse" in outcome.scores) == (name != "each frame alone")  # nothing is between keyframes there
    np.testing.assert_array_equal(found["default"].reference, short.edits[0].truth.frames)


def test_each_shot_is_edited_by_itself(short: EvaluationClip) -> None:
    spec, other = short.scene.shots[0], random_scene(9, size=(SIDE, SIDE), frame_count=9)
    both = recoloured(spec, replace(edit_spec(other), frame_count=9))
    alone = run(short, "default", **{"schedule.steps": 2})["default"].frames
    together = run(replace(both, digest=short.digest), "default", **{"schedule.steps": 2})["default"].frames
    assert len(together) == 18
    assert np.abs(together[8].astype(int) - alone[8]).mean() < 5  # other orders, no other shot
    assert np.abs(together[9].astype(int) - alone[8]).mean() > 20


def test_a_real_clip_is_measured_without_a_true_edit_and_needs_no_controlnet(short: EvaluationClip) -> None:
    real = replace(short, group="real", scene=None, edits=(Edit(kind="prompt", prompt=short.edits[0].prompt),))
    found = run(real, "default", "ControlNet", **{"schedule.steps": 2})
    assert set(found["default"].scores) == {"warp error", "warp error over source", "UNet calls", "seconds"}
    assert found["ControlNet"].scores == {}
    references = [method for method in COMPARISON.methods(quick=True) if method.reference]
    rows = {method.name: outcome.scores for method, outcome in COMPARISON.measure(real, references, EMBEDDED)}
    assert rows["source unchanged"]["warp error over source"] == 0
    assert rows["true edit"] == rows["half source, half truth"] == {}
