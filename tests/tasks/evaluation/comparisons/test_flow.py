"""Flow estimators against true flow: perfect and negated flow, thresholds, folders of .flo files, flow images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tasks.errors import TaskInputError
from tasks.evaluation.clips.clip import EvaluationClip
from tasks.evaluation.clips.true_flow import FlowClip
from tasks.evaluation.comparisons.comparison import Outcome
from tasks.evaluation.comparisons.flow import COMPARISON
from tasks.models.flow_estimators import FlowIdentity
from tests._evaluation import RESOURCES
from tests._flo import write_flo
from wave_ops.flow import build_raft
from wave_ops.flow_colours import flow_pictures, longest_of
from wave_ops.scenes.rendering import Scene, cut, render
from wave_ops.scenes.specs import random_scene

METHODS = {method.name: method for method in COMPARISON.methods(quick=False)}


def clip_of(scene: Scene) -> EvaluationClip:
    return EvaluationClip(
        name="clip", group="calm", frames=scene.frames, caption="", edits=(), scene=scene, cuts=scene.cuts
    )


@pytest.fixture(scope="module")
def clip() -> EvaluationClip:
    return clip_of(render(random_scene(3, size=(64, 64), frame_count=6, hard=True)))


def perfect(clip: EvaluationClip, *, factor: float = 1.0) -> Callable[[Any, Any], Any]:
    """Return an estimator that returns the true flow of a clip, times a factor."""
    scene = clip.scene
    assert scene is not None

    def estimate(prev: Any, cur: Any) -> Any:
        pair = next(
            i
            for i in range(len(clip.frames) - 1)
            if (clip.frames[i] == prev).all() and (clip.frames[i + 1] == cur).all()
        )
        return factor * scene.flow_to_prev[pair], factor * scene.flow_to_cur[pair]

    return estimate


def run(clip: EvaluationClip, name: str = "DIS medium", resources: Any = RESOURCES) -> Outcome:
    ((_, outcome),) = COMPARISON.measure(clip, [METHODS[name]], resources)
    return outcome


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Return a function that replaces DIS by another estimator."""

    def put(estimate: Any) -> None:
        monkeypatch.setattr("tasks.evaluation.comparisons.flow.dis_flow", lambda _: estimate)

    return put


def test_the_true_flow_has_no_error(clip: EvaluationClip, use: Callable[[Any], None]) -> None:
    use(perfect(clip))
    outcome = run(clip)
    assert outcome.scores["end-point error"] == 0
    assert outcome.scores["mask precision"] > 0.97
    assert outcome.scores["warped from afar"] == pytest.approx(1 - outcome.scores["mask precision"])
    np.testing.assert_array_equal(outcome.frames, outcome.reference)


def test_the_error_of_a_negated_flow_is_twice_the_motion(clip: EvaluationClip, use: Callable[[Any], None]) -> None:
    use(perfect(clip, factor=-1))
    scores = run(clip).scores
    assert clip.scene is not None
    lengths = np.hypot(*np.stack([clip.scene.flow_to_prev, clip.scene.flow_to_cur]).swapaxes(0, 2).swapaxes(1, 2))
    assert scores["end-point error"] == pytest.approx(2 * lengths.mean(), rel=1e-4)


def test_dis_has_a_lower_error_than_zero_flow_and_detects_occlusions(use: Callable[[Any], None]) -> None:
    calm = clip_of(render(random_scene(8, size=(64, 64), frame_count=6)))
    found = run(calm).scores
    use(perfect(calm, factor=0))
    still = run(calm).scores
    assert found["end-point error, visible"] < 0.3 * still["end-point error, visible"]
    assert found["occlusion recall"] > 0.5
    assert still["occlusion recall"] == 0


def test_the_error_of_visible_pixels_leaves_out_the_occluded_ones(
    clip: EvaluationClip, use: Callable[[Any], None]
) -> None:
    assert clip.scene is not None
    hidden = clip.scene.occlusion_to_prev

    def wrong_where_hidden(prev: Any, cur: Any) -> Any:
        pair = next(i for i in range(len(clip.frames) - 1) if (clip.frames[i] == prev).all())
        to_prev, to_cur = perfect(clip)(prev, cur)
        return to_prev + 5 * hidden[pair], to_cur

    use(wrong_where_hidden)
    scores = run(clip).scores
    assert scores["end-point error, visible"] == 0
    assert scores["end-point error"] == pytest.approx(5 * np.sqrt(2) * hidden.mean() / 2, rel=1e-4)


def test_a_stricter_residual_warps_fewer_pixels_and_no_residual_most(clip: EvaluationClip) -> None:
    names = ["DIS medium, residual 0.02", "DIS medium", "DIS medium, residual 0.08", "DIS medium, no residual"]
    fractions = [run(clip, name).scores["warped"] for name in names]
    assert fractions == sorted(fractions)
    assert fractions[0] < fractions[-1]


def test_across_a_cut_flow_has_no_error_but_warped_pixels_lower_the_mask_precision(use: Callable[[Any], None]) -> None:
    scene = cut(*(random_scene(seed, size=(64, 64), frame_count=2) for seed in (1, 2)))
    clip = clip_of(scene)

    def wild_at_the_cut(prev: Any, cur: Any) -> Any:
        across = (scene.frames[1] == prev).all()
        to_prev, to_cur = perfect(clip)(prev, cur)
        return to_prev + 7 * across, to_cur - 7 * across

    use(wild_at_the_cut)
    assert run(clip).scores["end-point error"] == 0
    loose = run(clip, "DIS medium, no residual").scores
    assert loose["mask precision"] < run(clip).scores["mask precision"] - 0.1


def test_raft_has_scores_only_if_its_weights_are_there(clip: EvaluationClip, tmp_path: Path) -> None:
    assert run(clip, "RAFT small").scores == {}
    torch.manual_seed(0)
    path = tmp_path / "raft_small.safetensors"
    save_file(build_raft("small").state_dict(), path)
    resources = replace(RESOURCES, flow=FlowIdentity(name="raft", location=str(path)))
    short = replace(clip, frames=clip.frames[:2], scene=None)
    assert run(short, "RAFT large", resources).scores == {}
    assert set(run(short, "RAFT small", resources).scores) == {"warped", "seconds"}


def write_middlebury(folder: Path, flow: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    folder.mkdir(parents=True)
    frames = np.random.default_rng(0).integers(0, 256, (2, *flow.shape[1:], 3), np.uint8)
    for number, frame in zip((10, 11), frames, strict=True):
        Image.fromarray(frame).save(folder / f"frame{number}.png")
    write_flo(folder / "flow10.flo", flow)
    return frames


def test_unknown_flow_in_the_layout_of_middlebury_does_not_count(tmp_path: Path, use: Callable[[Any], None]) -> None:
    truth = np.full((2, 40, 48), 2.0, np.float32)
    truth[:, :10] = np.nan
    frames = write_middlebury(tmp_path / "RubberWhale", truth)
    (clip,) = COMPARISON.manifest_clips(tmp_path, count=None)
    assert isinstance(clip, FlowClip)
    assert (clip.name, clip.group, bool(clip.digest)) == ("RubberWhale/flow10", "true flow", True)
    np.testing.assert_array_equal(clip.frames, frames)
    guess = np.full((2, 40, 48), 2.0, np.float32)
    guess[0] += 3
    use(lambda prev, cur: (np.full_like(guess, 99), guess))
    scores = run(clip).scores
    assert scores["end-point error"] == pytest.approx(3)
    assert "mask precision" not in scores


def test_the_layout_of_flying_chairs_is_read_up_to_the_count(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for kind in ("img1", "img2"):
            Image.new("RGB", (12, 8)).save(tmp_path / f"{name}_{kind}.ppm")
        write_flo(tmp_path / f"{name}_flow.flo", np.zeros((2, 8, 12), np.float32))
    assert [clip.name for clip in COMPARISON.manifest_clips(tmp_path, count=None)] == ["a_flow", "b_flow"]
    assert [clip.name for clip in COMPARISON.manifest_clips(tmp_path, count=1)] == ["a_flow"]


def test_an_unusable_folder_is_an_error_that_names_the_reason(tmp_path: Path) -> None:
    def message() -> str:
        with pytest.raises(TaskInputError) as caught:
            COMPARISON.manifest_clips(tmp_path / "set", count=None)
        return str(caught.value)

    assert "There is no folder" in message()
    (tmp_path / "set").mkdir()
    assert "contains no .flo file" in message()
    write_flo(tmp_path / "set" / "flow10.flo", np.zeros((2, 8, 12), np.float32))
    assert "expected flow10 and flow11 or frame10 and frame11" in message()
    for number in (10, 11):
        Image.new("RGB", (8, 8)).save(tmp_path / "set" / f"frame{number}.png")
    assert "differ in size" in message()
    (tmp_path / "set" / "frame10.png").write_bytes(b"no picture")
    assert "cannot be used" in message()


def test_a_flow_image_is_white_for_no_motion_and_grey_for_unknown_flow() -> None:
    flow = np.zeros((1, 2, 1, 4), np.float32)
    flow[0, 0] = [[0, 4, np.nan, -4]]
    (picture,) = flow_pictures(flow, longest=longest_of(flow))
    np.testing.assert_array_equal(picture[0], [[255, 255, 255], [255, 0, 0], [128, 128, 128], [0, 255, 255]])


@pytest.mark.parametrize("quick", [True, False])
def test_methods_differ_in_name_and_factors_and_include_the_baseline(quick: bool) -> None:
    methods = COMPARISON.methods(quick=quick)
    assert COMPARISON.baseline in {method.name for method in methods}
    assert len({method.name for method in methods}) == len(methods)
    assert len({str(sorted(method.factors.items())) for method in methods}) == len(methods)


def test_every_metric_is_measured_on_scenes(clip: EvaluationClip) -> None:
    assert set(run(clip).scores) == {measure.name for measure in COMPARISON.measures}


def test_half_of_the_clips_are_keyframes_of_the_same_scenes() -> None:
    slow, fast = COMPARISON.clips(quick=True, count=2, seed=0)
    assert (len(slow.frames), len(fast.frames)) == (17, 3)
    np.testing.assert_array_equal(slow.frames[[0, 8, 16]], fast.frames)
    assert slow.digest != fast.digest
