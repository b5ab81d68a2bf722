"""Other methods on the same clips and metrics as ours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tasks.evaluation.clips.clip import Edit, EvaluationClip
from tasks.evaluation.comparisons.comparison import Method, Outcome
from tasks.evaluation.comparisons.peers import COMPARISON, OURS, PEERS
from tasks.evaluation.comparisons.video_metrics import VideoScorer
from tests._editing_clips import EMBEDDED, SIDE, recoloured
from wave_ops.scenes.specs import edit_spec, random_scene

FRAMES = 3


def run(clip: EvaluationClip, *names: str) -> dict[str, Outcome]:
    chosen = [_with_two_steps(row) for row in COMPARISON.methods(quick=True) if row.name in names]
    return {method.name: outcome for method, outcome in COMPARISON.measure(clip, chosen, EMBEDDED)}


def _with_two_steps(row: Method) -> Method:
    if row.reference:
        return row
    return replace(row, factors={**row.factors, "settings": {**row.factors["settings"], "schedule.steps": 2}})


@pytest.fixture(scope="module")
def clip() -> EvaluationClip:
    return recoloured(random_scene(4, size=(SIDE, SIDE), frame_count=FRAMES))


@pytest.fixture(scope="module")
def found(clip: EvaluationClip) -> dict[str, Outcome]:
    return run(clip, "each frame alone", *PEERS)


@pytest.mark.parametrize("quick", [False, True])
def test_our_rows_come_first_then_the_others_then_the_reference_rows(quick: bool) -> None:
    methods = COMPARISON.methods(quick=quick)
    names = [method.name for method in methods]
    assert names[0] == COMPARISON.baseline
    ours = [name for name in OURS if name in names]
    assert names[:-3] == [*ours, *PEERS]
    assert len(ours) == (4 if quick else 5)
    assert [method.reference for method in methods] == [False] * (len(methods) - 3) + [True] * 3
    assert {tuple(method.factors) for method in methods} == {("peer", "settings", "frames")}


def test_every_method_edits_every_frame_by_itself_and_is_measured(
    clip: EvaluationClip, found: dict[str, Outcome]
) -> None:
    assert set(found) == {"each frame alone", *PEERS}
    assert len({outcome.frames.tobytes() for outcome in found.values()}) == len(found)
    declared = {measure.name for measure in COMPARISON.measures}
    for name, outcome in found.items():
        assert outcome.frames.shape == clip.frames.shape
        assert outcome.frames.dtype == np.uint8
        assert set(outcome.scores) <= declared
        assert "pulse" not in outcome.scores
        np.testing.assert_array_equal(outcome.reference, clip.edits[0].truth.frames)
        assert np.abs(outcome.frames.astype(int) - clip.frames).mean() < 60, name


def test_the_cost_of_a_method_includes_its_inversion(found: dict[str, Outcome]) -> None:
    calls = {name: outcome.scores["UNet calls"] for name, outcome in found.items()}
    assert calls.pop("FlowEdit") == 1
    assert set(calls.values()) == {2 + 2}


def test_each_shot_is_edited_by_itself(clip: EvaluationClip, found: dict[str, Outcome]) -> None:
    spec = clip.scene.shots[0]
    other = edit_spec(random_scene(9, size=(SIDE, SIDE), frame_count=FRAMES))
    both = replace(recoloured(spec, other), digest=clip.digest)
    together = run(both, "Text2Video-Zero")["Text2Video-Zero"].frames
    assert len(together) == 2 * FRAMES
    assert np.abs(together[:FRAMES].astype(int) - found["Text2Video-Zero"].frames).mean() < 1


def test_a_real_clip_is_measured_without_a_true_edit(clip: EvaluationClip) -> None:
    real = replace(clip, scene=None, edits=(Edit(kind="prompt", prompt=clip.edits[0].prompt),))
    found = run(real, "VidToMe", "true edit")
    assert set(found["VidToMe"].scores) == {"warp error", "warp error over source", "UNet calls", "seconds"}
    assert found["true edit"].scores == {}


def test_preservation_of_a_real_clip_is_measured_outside_its_mask(clip: EvaluationClip) -> None:
    inside = np.zeros((FRAMES, 2 * SIDE, 2 * SIDE), np.bool_)
    inside[:, :, :SIDE] = True
    real = replace(clip, scene=None, mask=inside, edits=(Edit(kind="prompt", prompt=clip.edits[0].prompt),))
    scorer = VideoScorer(real, EMBEDDED)
    for changed, expected in ((slice(0, SIDE // 2), 60), (slice(SIDE // 2 + SIDE // 8, SIDE), None)):
        frames = clip.frames.copy()
        frames[:, :, changed] = 255 - frames[:, :, changed]
        found = scorer.scores(frames, keyframes=range(FRAMES))["preservation"]
        assert found == expected or (expected is None and found < 15)


def test_our_rows_and_the_reference_rows_are_measured_as_in_the_comparison_of_videos(clip: EvaluationClip) -> None:
    found = run(clip, "WAVE", "WAVE, every frame", "source unchanged")
    assert found["WAVE"].frames.shape == clip.frames.shape
    assert "pulse" in found["WAVE"].scores
    assert "pulse" not in found["WAVE, every frame"].scores
    np.testing.assert_array_equal(found["source unchanged"].frames, clip.frames)
