from __future__ import annotations

from math import hypot

import pytest
import torch
from torch import Tensor

from wave_ops.errors import WaveOpsError
from wave_ops.masks import WarpMaskSettings, colour_residual, occlusion_mask, warp_mask
from wave_ops.metrics import mask_precision_recall
from wave_ops.scenes.rendering import Scene, render
from wave_ops.scenes.specs import random_scene
from wave_ops.warp import backward_warp, flow_positions


def random_flow(seed: int) -> Tensor:
    return torch.randn(1, 2, 9, 11, generator=torch.Generator().manual_seed(seed)) * 0.6


def moving_square() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return prev, cur, flow to prev and flow to cur: a red square of 4 px moves 3 px to the right on grey ground."""
    prev, cur = torch.full((2, 1, 3, 12, 16), 0.5)
    to_prev, to_cur = torch.zeros(2, 1, 2, 12, 16)
    red = torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1)
    prev[0, :, 4:8, 4:8], cur[0, :, 4:8, 7:11] = red, red
    to_prev[0, 0, 4:8, 7:11], to_cur[0, 0, 4:8, 4:8] = -3, 3
    return prev, cur, to_prev, to_cur


def test_only_the_uncovered_ground_behind_a_moving_square_is_occluded() -> None:
    _, _, to_prev, to_cur = moving_square()
    expected = torch.zeros(1, 12, 16, dtype=torch.bool)
    expected[:, 4:8, 4:7] = True
    assert torch.equal(occlusion_mask(to_prev, to_cur), expected)


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize(("relative", "absolute"), [(0.01, 0.5), (0.2, 0.3), (0.0, 0.9)])
def test_the_occlusion_rule_equals_the_formula_pixel_by_pixel(relative, absolute, squared) -> None:
    to_prev, to_cur = random_flow(0), random_flow(1)
    back = backward_warp(to_cur, to_prev)
    mask = occlusion_mask(to_prev, to_cur, relative=relative, absolute=absolute, squared=squared)
    power = 2 if squared else 1
    for row in range(9):
        for column in range(11):
            f, g = to_prev[0, :, row, column].tolist(), back[0, :, row, column].tolist()
            miss = hypot(f[0] + g[0], f[1] + g[1]) ** power
            allowed = relative * (hypot(*f) ** power + hypot(*g) ** power) + absolute
            outside = not (-0.5 <= column + f[0] <= 10.5 and -0.5 <= row + f[1] <= 8.5)
            assert bool(mask[0, row, column]) == (miss > allowed or outside)


def test_the_random_flows_of_the_formula_are_partly_occluded() -> None:
    mask = occlusion_mask(random_flow(0), random_flow(1))
    assert 0.1 < mask.float().mean() < 0.9


def test_points_that_leave_the_frame_are_occluded_even_where_the_flows_agree() -> None:
    to_prev, to_cur = torch.zeros(2, 1, 2, 6, 8)
    to_prev[:, 0], to_cur[:, 0] = -2, 2
    expected = torch.zeros(1, 6, 8, dtype=torch.bool)
    expected[..., :2] = True
    assert torch.equal(occlusion_mask(to_prev, to_cur), expected)


def test_a_flow_that_is_not_a_number_is_occluded() -> None:
    assert occlusion_mask(torch.full((1, 2, 3, 3), torch.nan), torch.zeros(1, 2, 3, 3)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_long_flows_that_agree_are_not_occluded_in_any_precision(dtype) -> None:
    to_prev, to_cur = torch.zeros(2, 1, 2, 4, 600, dtype=dtype)
    to_prev[:, 0], to_cur[:, 0] = -300, 300
    assert not occlusion_mask(to_prev, to_cur)[..., 300:].any()


def test_the_colour_residual_is_the_mean_over_channels_of_the_absolute_difference() -> None:
    prev, cur, to_prev, _ = moving_square()
    expected = torch.zeros(1, 12, 16)
    expected[:, 4:8, 4:7] = 0.5  # the ground is compared with the red square: 0.5 in each channel
    torch.testing.assert_close(colour_residual(prev, cur, to_prev), expected)


def test_the_warp_mask_is_where_neither_occluded_nor_changed_in_colour() -> None:
    prev, cur, to_prev, to_cur = moving_square()
    cur[:, :, 0] += torch.tensor([0.12, 0.0, 0.0]).view(1, 3, 1)  # residual 0.04 is too much
    cur[:, :, 1] += 0.03
    expected = ~occlusion_mask(to_prev, to_cur)
    expected[:, 0] = False
    assert torch.equal(
        warp_mask(prev, cur, to_prev, to_cur, settings=WarpMaskSettings(residual_threshold=0.0399)), expected
    )
    assert warp_mask(prev, cur, to_prev, to_cur, settings=WarpMaskSettings(residual_threshold=0.05))[:, 0].all()


def test_the_default_threshold_is_the_one_that_the_authors_ran() -> None:
    prev, flow = torch.zeros(1, 3, 1, 8), torch.zeros(1, 2, 1, 8)
    residual = torch.linspace(0.005, 0.075, 8)
    ran = 1 - 5 * (2 * residual) > 0.6
    assert torch.equal(warp_mask(prev, prev + residual, flow, flow)[0, 0], ran)


def test_a_scene_transition_switches_warping_off() -> None:
    prev, cur = torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8)
    assert not warp_mask(prev, cur, torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 8, 8)).any()


def layers(scene: Scene) -> Tensor:
    """Return the layer of each pixel, 0 for the ground: (time, height, width)."""
    masks = torch.from_numpy(scene.object_masks)
    return (masks * torch.arange(1, masks.shape[1] + 1).view(1, -1, 1, 1)).sum(dim=1)


def on_one_layer(scene: Scene, to_prev: Tensor) -> Tensor:
    """Return where the four pixels around a match are of one layer, so that no mixture of flows is sampled there."""
    shown = layers(scene)[:-1].double()[:, None]
    low = flow_positions(to_prev).floor()
    grid = flow_positions(torch.zeros_like(to_prev))
    corners = [
        backward_warp(shown, (low + torch.tensor(step).view(1, 2, 1, 1) - grid).double(), mode="nearest")
        for step in ([0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0])
    ]
    stacked = torch.cat(corners, dim=1)
    return stacked.amin(dim=1) == stacked.amax(dim=1)


@pytest.mark.parametrize(("hard", "objects"), [(False, 1), (True, 1), (True, 2)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_mask_of_the_true_flow_equals_the_true_occlusion_away_from_edges(seed, hard, objects) -> None:
    scene = render(random_scene(seed, size=(64, 96), frame_count=6, objects=objects, hard=hard))
    to_prev, to_cur = torch.from_numpy(scene.flow_to_prev), torch.from_numpy(scene.flow_to_cur)
    mask, truth = occlusion_mask(to_prev, to_cur), torch.from_numpy(scene.occlusion_to_prev)
    sure = on_one_layer(scene, to_prev)
    precision, recall = mask_precision_recall(mask, truth)
    assert recall > 0.95
    assert precision > 0.7
    assert (mask == truth)[sure].double().mean() > 0.998


@pytest.mark.parametrize("options", [{"relative": -0.1}, {"absolute": -0.1}])
def test_negative_thresholds_are_refused(options) -> None:
    with pytest.raises(WaveOpsError, match="at least 0"):
        occlusion_mask(torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 3), **options)


@pytest.mark.usefixtures("unchecked")
def test_inputs_of_different_grids_are_refused() -> None:
    with pytest.raises(WaveOpsError, match="one grid"):
        occlusion_mask(torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 4))
    with pytest.raises(WaveOpsError, match="one shape"):
        colour_residual(torch.zeros(1, 3, 3, 3), torch.zeros(1, 3, 3, 4), torch.zeros(1, 2, 3, 3))


def test_the_tolerance_at_the_pixel_takes_the_length_of_the_return_flow_there() -> None:
    to_prev = torch.zeros(1, 2, 1, 8)
    to_cur = torch.zeros(1, 2, 1, 8)
    to_prev[:, 0, 0, 2] = 3.0  # leads to column 5, from where the flow leads back to 2.4
    to_cur[:, 0, 0, 5] = -2.4
    to_cur[:, 0, 0, 2] = 100.0  # a length of 100 at the pixel itself allows 1 px more
    distance_allowed = {"match": 0.01 * (3 + 2.4) + 0.5, "pixel": 0.01 * (3 + 100) + 0.5}
    for where, allowed in distance_allowed.items():
        assert bool(occlusion_mask(to_prev, to_cur, tolerance_at=where)[0, 0, 2]) == (allowed < 0.6)


@pytest.mark.parametrize("wrong", [{"relative": -0.1}, {"residual_threshold": float("nan")}, {"tolerance_at": "q"}])
def test_wrong_constants_of_the_warp_mask_are_refused(wrong: dict[str, object], unchecked: None) -> None:
    with pytest.raises(WaveOpsError):
        WarpMaskSettings(**wrong)
