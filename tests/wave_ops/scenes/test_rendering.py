"""Rendered clips and their ground truth."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from wave_ops.errors import WaveOpsError
from wave_ops.scenes.geometry import Motion, Pose
from wave_ops.scenes.rendering import Scene, cut, match_frames, render, render_frame, shade
from wave_ops.scenes.specs import Background, SceneObject, SceneSpec, random_scene

STILL = Motion(start=Pose(), end=Pose())


def shifting_circle(pixels: int, *, pan: int = 0) -> SceneSpec:
    """A circle that moves right, and a background that moves down, by whole pixels of a 64 x 64 frame."""
    path = Motion(start=Pose(scale=0.2), end=Pose(x=pixels / 64, scale=0.2))
    return SceneSpec(
        objects=(SceneObject(shape="circle", colour="red", texture="dotted", motion=path),),
        background=Background(
            colour="blue", texture="checked", motion=Motion(start=Pose(), end=Pose(y=pan / 64)), period=0.2
        ),
        frame_count=2,
    )


def test_a_clip_is_uint8_rgb_with_ground_truth_of_its_size() -> None:
    scene = render(random_scene(0, size=(48, 80), frame_count=3, objects=2))
    assert scene.frames.shape == (3, 48, 80, 3)
    assert scene.frames.dtype == np.uint8
    assert scene.flow_to_prev.shape == scene.flow_to_cur.shape == (2, 2, 48, 80)
    assert scene.occlusion_to_prev.shape == scene.occlusion_to_cur.shape == (2, 48, 80)
    assert scene.object_masks.shape == (3, 2, 48, 80)


def test_a_clip_of_one_frame_has_no_flow() -> None:
    assert render(random_scene(0, frame_count=1)).flow_to_prev.shape == (0, 2, 64, 64)


def test_a_shift_by_whole_pixels_shifts_object_and_background_exactly() -> None:
    scene = render(shifting_circle(3, pan=2))
    before, after = scene.object_masks[:, 0]
    np.testing.assert_array_equal(after[:, 3:], before[:, :-3])
    kept = cv2.erode(after.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    np.testing.assert_array_equal(scene.frames[1][kept], np.roll(scene.frames[0], 3, axis=1)[kept])
    far = ~cv2.dilate((before | after).astype(np.uint8), np.ones((7, 7), np.uint8)).astype(bool)
    far[:2] = False
    np.testing.assert_array_equal(scene.frames[1][far], np.roll(scene.frames[0], 2, axis=0)[far])


def test_flow_points_to_the_previous_and_the_next_position_of_each_layer() -> None:
    scene = render(shifting_circle(3, pan=2))
    before, after = scene.object_masks[:, 0]
    for flow, mask, sign in ((scene.flow_to_prev[0], after, -1), (scene.flow_to_cur[0], before, 1)):
        np.testing.assert_allclose(flow[:, mask], np.array([[3.0], [0.0]]) * sign * np.ones(mask.sum()), atol=1e-5)
        np.testing.assert_allclose(flow[:, ~mask], np.array([[0.0], [2.0]]) * sign * np.ones((~mask).sum()), atol=1e-5)


def test_pixels_that_were_covered_or_outside_are_occluded() -> None:
    scene = render(shifting_circle(5, pan=2))
    before, after = scene.object_masks[:, 0]
    expected = ~after & np.roll(before, 2, axis=0)
    expected[:2] = True  # the background came in from above
    np.testing.assert_array_equal(scene.occlusion_to_prev[0], expected)
    expected = ~before & np.roll(after, -2, axis=0)
    expected[-2:] = True
    np.testing.assert_array_equal(scene.occlusion_to_cur[0], expected)


def test_the_flow_includes_rotation_and_scale() -> None:
    path = Motion(start=Pose(scale=0.3), end=Pose(angle=np.pi / 2, scale=0.15))
    spec = replace(shifting_circle(0), size=(65, 65))
    scene = render(replace(spec, objects=(replace(spec.objects[0], motion=path),)))
    # 10 px right of the centre moves to 5 px below it
    np.testing.assert_allclose(scene.flow_to_cur[0][:, 32, 42], (-10, 5), atol=1e-4)


@pytest.mark.parametrize(("seed", "hard"), [(0, False), (1, False), (2, True), (3, True)])
def test_warping_by_the_true_flow_restores_pixels_that_are_not_occluded(seed: int, hard: bool) -> None:
    scene = render(random_scene(seed, size=(96, 128), frame_count=5, objects=2, hard=hard))
    for index in range(4):
        assert warp_error(scene, index) < 0.012


@pytest.mark.parametrize(("seed", "hard"), [(4, False), (5, True)])
def test_both_flows_invert_each_other_where_nothing_is_occluded(seed: int, hard: bool) -> None:
    scene = render(random_scene(seed, size=(96, 96), frame_count=6, objects=2, hard=hard))
    flow, back = scene.flow_to_prev[2], scene.flow_to_cur[2]
    y, x = np.mgrid[:96, :96].astype(np.float32)
    returned = [cv2.remap(part, x + flow[0], y + flow[1], cv2.INTER_LINEAR) for part in back]
    lost = np.hypot(flow[0] + returned[0], flow[1] + returned[1])[~scene.occlusion_to_prev[2]]
    # Interpolation mixes two motions only along the outlines
    assert float(np.quantile(lost, 0.9)) < 0.02


def warp_error(scene: Scene, index: int) -> float:
    """Compute the mean error of frame index + 1, warped from frame index, away from occlusions and outlines."""
    flow = scene.flow_to_prev[index]
    y, x = np.mgrid[: flow.shape[1], : flow.shape[2]].astype(np.float32)
    warped = cv2.remap(scene.frames[index], x + flow[0], y + flow[1], cv2.INTER_LINEAR)
    error = np.abs(warped.astype(float) - scene.frames[index + 1]).mean(axis=-1) / 255
    # A pixel next to an occluded one mixes both layers
    seen = ~cv2.dilate(scene.occlusion_to_prev[index].astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
    edges = np.abs(np.diff(scene.object_masks[index + 1].argmax(axis=0), prepend=0)) > 0
    return float(error[seen & ~cv2.dilate(edges.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)].mean())


def test_antialiasing_preserves_the_area_of_a_disc() -> None:
    spec = shifting_circle(0)
    plain = replace(spec, background=replace(spec.background, texture="plain"))
    disc = replace(plain, objects=(replace(plain.objects[0], texture="plain"),), supersampling=8)
    frame = render_frame(disc, 0.0).astype(float)
    red, blue = np.rint(shade("red", 1.0)[0]), np.rint(shade("blue", 0.84)[0])
    covered = ((frame[..., 0] - blue) / (red - blue)).sum()
    assert covered == pytest.approx(np.pi * (0.92 * 0.2 * 64) ** 2, rel=0.01)


def test_a_scene_is_the_same_at_any_size() -> None:
    small, large = (render_frame(random_scene(5, size=(side, side)), 0.3) for side in (64, 256))
    shrunk = cv2.resize(large, (64, 64), interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(float) - shrunk).mean() < 1.0


def test_object_masks_never_overlap() -> None:
    scene = render(random_scene(2, objects=2, hard=True))
    assert scene.object_masks.sum(axis=1).max() == 1


def test_across_a_cut_flow_is_zero_and_every_pixel_occluded() -> None:
    scene = cut(random_scene(0, frame_count=3), random_scene(1, frame_count=4, objects=2))
    assert scene.cuts == (3,)
    assert scene.frames.shape[0] == 7
    assert scene.object_masks.shape[:2] == (7, 2)
    assert scene.occlusion_to_prev[2].all()
    assert scene.occlusion_to_cur[2].all()
    assert not scene.flow_to_prev[2].any()
    assert not scene.flow_to_cur[2].any()
    assert not scene.occlusion_to_prev[1].all()


def test_a_cut_between_sizes_is_refused() -> None:
    with pytest.raises(WaveOpsError, match="need one size"):
        cut(random_scene(0), random_scene(1, size=(32, 32)))


def test_matching_neighbours_returns_the_scenes_flow_and_occlusion() -> None:
    scene = render(random_scene(5, frame_count=4, hard=True))
    for here, there, flows, hidden in (
        (2, 1, scene.flow_to_prev, scene.occlusion_to_prev),
        (1, 2, scene.flow_to_cur, scene.occlusion_to_cur),
    ):
        flow, unseen = match_frames(scene, here, there)
        np.testing.assert_array_equal(flow, flows[1])
        np.testing.assert_array_equal(unseen, hidden[1])


def test_the_flow_between_distant_frames_is_their_whole_displacement() -> None:
    spec = replace(shifting_circle(6, pan=2), frame_count=3)
    scene = render(spec)
    flow, hidden = match_frames(scene, 0, 2)
    mask = scene.object_masks[0, 0]
    np.testing.assert_allclose(flow[:, mask], np.array([[6.0], [0.0]]) * np.ones(mask.sum()), atol=1e-5)
    assert not hidden[mask].any()
    still, _ = match_frames(scene, 1, 1)
    np.testing.assert_allclose(still, 0, atol=1e-5)


def test_frames_match_inside_their_shot_and_not_across_a_cut() -> None:
    first, second = (random_scene(seed, frame_count=3) for seed in (1, 2))
    scene = cut(first, second)
    flow, hidden = match_frames(scene, 2, 3)
    assert not flow.any()
    assert hidden.all()
    np.testing.assert_array_equal(match_frames(scene, 5, 3)[0], match_frames(render(second), 2, 0)[0])


@pytest.mark.parametrize("frame_index", [-1, 4])
def test_matching_a_frame_outside_the_scene_is_refused(frame_index: int) -> None:
    with pytest.raises(WaveOpsError, match="4 frames"):
        match_frames(render(random_scene(1, frame_count=4)), 0, frame_index)
