"""What is computed on a torch device, held against the same step beside it."""

from __future__ import annotations

from time import perf_counter

import cv2
import numpy as np
import pytest
import torch

from tests._propagation import make_case, paint, tensor
from wave_ops.propagation import PropagationSettings, blending, fusion, guides, propagate_interval, selection
from wave_ops.propagation.detail import restore_detail
from wave_ops.propagation.on_device import detail as device_detail
from wave_ops.propagation.on_device import guides as device_guides
from wave_ops.propagation.on_device import mixing
from wave_ops.propagation.on_device.grid import Grid
from wave_ops.propagation.on_device.synthesis import Exemplars, shrink, synthesise

SIZES = [(12, 17), (16, 24), (9, 5)]


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return request.param


def image(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 255, (*size, 3)).astype(np.float32)


def first(values: np.ndarray, device: str) -> torch.Tensor:
    """Channel-last values as channel-first ones."""
    return tensor(values, device)[0]


def assert_same(got: torch.Tensor, expected: np.ndarray, *, atol: float = 0.0) -> None:
    """Hold channel-first values against channel-last ones."""
    np.testing.assert_allclose(np.moveaxis(got.cpu().numpy(), 0, -1), expected, atol=atol, rtol=1e-5)


def some_flow(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 3, (2, *size)).astype(np.float32)


@pytest.mark.parametrize("size", [*SIZES, (1, 7)])
def test_edges_are_the_same(size, device):
    frame = image(size).astype(np.uint8)
    got = device_guides.edge_guide(tensor(frame.astype(np.float32), device))
    assert_same(got[0], guides.edge_guide(frame))


@pytest.mark.parametrize("size", SIZES)
def test_positions_are_the_same(size, device):
    own = device_guides.own_positions(2, size, torch.device(device))
    np.testing.assert_array_equal(own[1].cpu(), guides.own_positions(*size))
    assert_same(device_guides.position_guide(own)[1], guides.position_guide(guides.own_positions(*size)))


@pytest.mark.parametrize("size", SIZES)
def test_carried_matches_are_the_same(size, device):
    matches, flow = np.random.default_rng(2).uniform(0, 9, (2, *size)).astype(np.float32), some_flow(size)
    moved, by = (torch.from_numpy(values).to(device)[None] for values in (matches, flow))
    got = device_guides.carry_matches(moved, by)[0].cpu()
    np.testing.assert_allclose(got, guides.carry_matches(matches, flow), atol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.98, 1.0])
@pytest.mark.parametrize("size", SIZES)
def test_filled_holes_are_the_same(size, share, device):
    values = np.moveaxis(image(size), -1, 0)
    holes = np.random.default_rng(3).random(size) < share
    args = (torch.from_numpy(array).to(device)[None] for array in (values, holes))
    np.testing.assert_allclose(device_guides.fill_holes(*args)[0].cpu(), guides.fill_holes(values, holes), rtol=1e-4)


@pytest.mark.parametrize("size", SIZES)
def test_a_smaller_image_is_the_same(size, device):
    half = (size[0] + 1) // 2, (size[1] + 1) // 2
    expected = cv2.resize(image(size), half[::-1], interpolation=cv2.INTER_AREA)
    assert_same(shrink(tensor(image(size), device), half)[0], expected, atol=1e-3)


def test_lab_and_back_are_the_same(device):
    colours = image((30, 40))
    lab = blending.rgb_to_lab(colours)
    assert_same(mixing.rgb_to_lab(first(colours, device)), lab, atol=2e-3)
    assert_same(mixing.lab_to_rgb(first(lab * 1.2, device)), blending.lab_to_rgb(lab * 1.2), atol=2e-3)


@pytest.mark.parametrize("flat", [False, True])
def test_the_blend_is_the_same(flat, device):
    one, other, chosen = (image((20, 30), seed) for seed in range(3))
    if flat:
        one = np.full_like(one, 83.3)
    share = np.random.default_rng(4).random((20, 30), np.float32)
    for weight, same in ((0.3, 0.3), (share, torch.from_numpy(share).to(device))):
        got = mixing.blend(*(first(values, device) for values in (one, other, chosen)), weight=same)
        assert_same(got, blending.blend(one, other, chosen, weight=weight), atol=1e-2)


def test_the_shares_of_the_blend_are_the_same(device):
    errors = [image((20, 30), seed)[..., 0] * 1000 for seed in range(2)]
    got = mixing.blend_weights(*(torch.from_numpy(error.copy()).to(device) for error in errors), weight=0.3)
    np.testing.assert_allclose(got.cpu(), selection.blend_weights(*errors, weight=0.3), rtol=1e-5)


@pytest.mark.parametrize("size", [*SIZES, (1, 9), (9, 1)])
def test_fusion_is_the_same(size, device):
    one, other, values = (image(size, seed) for seed in range(3))
    chosen = np.random.default_rng(5).random(size) < 0.5
    gradients = fusion.selected_gradients(one, other, chosen)
    same = mixing.selected_gradients(first(one, device), first(other, device), torch.from_numpy(chosen).to(device))
    for got, expected in zip(same, gradients, strict=True):
        assert_same(got, expected, atol=1e-4)
    expected = fusion.fuse_gradients(values, *gradients, weights=(2.5, 0.5, 0.0))
    assert_same(mixing.fuse_gradients(first(values, device), *same, weights=(2.5, 0.5, 0.0)), expected, atol=1e-3)


@pytest.mark.parametrize("edit", ["none", "inverted", "flat", "unlike"])
@pytest.mark.parametrize("size", [*SIZES, (40, 64)])
def test_restored_detail_is_the_same(size, edit, device):
    seen = image(size)
    edited = {"none": seen, "inverted": 255 - seen, "flat": np.full_like(seen, 83.3), "unlike": image(size, 1)}[edit]
    painted, frame = edited + image(size, 2) / 50, seen + image(size, 3) / 10
    expected = restore_detail(painted, seen=seen, frame=frame)
    guided = {"seen": tensor(seen, device), "frame": tensor(frame, device)}
    got = device_detail.restore_detail(tensor(painted, device), **guided)
    assert_same(got[0], expected, atol=1e-2)


def test_detail_of_two_frames_at_once_is_that_of_each_alone(device):
    painted, seen, frame = (torch.cat([tensor(image((12, 17), s + n), device) for n in (0, 9)]) for s in range(3))
    both = device_detail.restore_detail(painted, seen=seen, frame=frame)
    for one in (np.s_[:1], np.s_[1:]):
        alone = device_detail.restore_detail(painted[one], seen=seen[one], frame=frame[one])
        torch.testing.assert_close(both[one], alone)


@pytest.mark.parametrize("size", SIZES)
def test_use_is_the_overlap_of_all_matched_patches(size, device):
    grid = Grid(2, size, seed=0, device=torch.device(device))
    matches = grid.random_places()
    uses = grid.uses(matches).view(2, size[0] + 4, size[1] + 4)[:, 2:-2, 2:-2].cpu()
    rows, columns = (values.cpu().numpy() for values in grid.coordinates(matches))
    y, x = np.mgrid[: size[0], : size[1]]
    for exemplar in range(2):
        down = np.clip(5 - np.abs(y[..., None] - rows[exemplar, 0]), 0, None)
        across = np.clip(5 - np.abs(x[..., None] - columns[exemplar, 0]), 0, None)
        np.testing.assert_array_equal(uses[exemplar], (down * across).sum(axis=-1))


def test_two_exemplars_at_once_give_what_each_gives_alone(make_texture, device):
    frame, target, other = (make_texture(40, 40, seed=s).astype(np.uint8) for s in (0, 1, 3))
    cases = [make_case(frame, make_texture(40, 40, seed=2), target), make_case(target, frame, other)]
    style, source, target_guides, starts = zip(*cases, strict=True)
    both = [torch.cat([tensor(one, device) for one in ones]) for ones in (style, *zip(*source, strict=True))]
    exemplars = Exemplars.build(both[0], both[1:], settings=PropagationSettings(rounds=4))
    guided = [torch.cat([tensor(one, device) for one in ones]) for ones in zip(*target_guides, strict=True)]
    together = synthesise(exemplars, guided, starts=[torch.from_numpy(np.stack(starts)).to(device)])
    for index, case in enumerate(cases):
        alone = paint(*case, settings=PropagationSettings(rounds=4), device=device)
        np.testing.assert_array_equal(together.matches[index].cpu(), alone.matches)


@pytest.mark.parametrize("size", [(17, 23), (48, 48), (64, 64)])
def test_the_patch_error_is_that_of_the_compiled_search(make_texture, size, device):
    frame, target = (make_texture(*size, seed=s).astype(np.uint8) for s in (0, 1))
    case = make_case(frame, make_texture(*size, seed=2), target)
    got, expected = paint(*case, device=device).error, paint(*case).error
    assert got.mean() <= 1.05 * expected.mean()
    assert np.median(got) <= 1.05 * np.median(expected)


def test_an_interval_is_nearly_the_same(make_square, device):
    frames, to_prev, to_cur = make_square(5, 40, 64)
    ends = {"first": 255 - frames[0], "last": 255 - frames[-1], "flows_to_prev": to_prev, "flows_to_cur": to_cur}
    settings = PropagationSettings(rounds=3)
    got, expected = (propagate_interval(frames, **ends, settings=settings, device=d) for d in (device, None))
    assert np.abs(got.astype(int) - expected).mean() < 1


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_an_interval_of_eight_frames_of_512_pixels_takes_a_second(make_square):
    frames, to_prev, to_cur = make_square(9, 512, 512)
    ends = {"first": 255 - frames[0], "last": 255 - frames[-1], "flows_to_prev": to_prev, "flows_to_cur": to_cur}
    propagate_interval(frames, **ends, device="cuda")  # loads what is loaded on first use
    began = perf_counter()
    propagate_interval(frames, **ends, device="cuda")
    assert perf_counter() - began < 1
