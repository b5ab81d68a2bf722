"""The torch search: its memory layout, batches, and results next to those of the compiled search."""

from __future__ import annotations

from time import perf_counter

import numpy as np
import pytest
import torch

from tests._propagation import make_case, paint
from wave_ops.propagation import Guides, PropagationSettings, propagate_interval, torch_synthesis
from wave_ops.propagation.torch_grid import Grid


@pytest.mark.parametrize("size", [(12, 17), (16, 24), (9, 5)])
def test_usage_is_the_overlap_of_all_matched_patches(size, torch_device):
    grid = Grid(2, size, seed=0, device=torch.device(torch_device))
    matches = grid.random_places()
    usage = grid.usage(matches).view(2, size[0] + 4, size[1] + 4)[:, 2:-2, 2:-2].cpu()
    rows, columns = (values.cpu().numpy() for values in grid.coordinates(matches))
    y, x = np.mgrid[: size[0], : size[1]]
    for exemplar in range(2):
        down = np.clip(5 - np.abs(y[..., None] - rows[exemplar, 0]), 0, None)
        across = np.clip(5 - np.abs(x[..., None] - columns[exemplar, 0]), 0, None)
        np.testing.assert_array_equal(usage[exemplar], (down * across).sum(axis=-1))


def test_the_border_correction_makes_up_for_the_overlap_that_is_cut_off():
    """Where every pixel is matched to itself, each patch is used equally."""
    grid = Grid(1, (11, 8), seed=0, device=torch.device("cpu"))
    usage = grid.usage(grid.own_place).view(15, 12) * grid.border_correction
    torch.testing.assert_close(usage[2:-2, 2:-2], torch.full((11, 8), 625.0))


def test_a_place_has_the_coordinates_that_it_was_made_of():
    grid = Grid(2, (7, 9), seed=0, device=torch.device("cpu"))
    rows, columns = grid.coordinates(grid.own_place)
    for exemplar in range(2):
        assert torch.equal(rows[exemplar, 0], grid.rows)
        assert torch.equal(columns[exemplar, 0], grid.columns)


def test_two_exemplars_at_once_are_matched_as_each_alone(make_texture, torch_device):
    frame, target, other = (make_texture(40, 40, seed=s).astype(np.uint8) for s in (0, 1, 3))
    cases = [make_case(frame, make_texture(40, 40, seed=2), target), make_case(target, frame, other)]
    settings = PropagationSettings(rounds=4)
    style, source, target_guides, start = zip(*cases, strict=True)
    exemplars = torch_synthesis.Exemplars.build(
        _batch(style, torch_device), _guides(source, torch_device), settings=settings
    )
    together = torch_synthesis.synthesise(
        exemplars, _guides(target_guides, torch_device), starts=[_batch(start, torch_device)]
    )
    for index, case in enumerate(cases):
        alone = paint(*case, settings=settings, device=torch_device)
        assert torch.equal(together.matches[index].cpu(), alone.matches[0])


def _batch(tensors: tuple[torch.Tensor, ...], device: str) -> torch.Tensor:
    return torch.cat(tensors).to(device)


def _guides(guides: tuple[Guides, ...], device: str) -> Guides:
    return Guides(*(_batch(tensors, device) for tensors in zip(*guides, strict=True)))


@pytest.mark.parametrize("size", [(17, 23), (48, 48), (64, 64)])
def test_its_patch_errors_are_near_those_of_the_compiled_search(make_texture, size, torch_device):
    frame, target = (make_texture(*size, seed=s).astype(np.uint8) for s in (0, 1))
    case = make_case(frame, make_texture(*size, seed=2), target)
    got, expected = paint(*case, device=torch_device).error, paint(*case).error
    assert got.mean() <= 1.05 * expected.mean()
    assert np.median(got) <= 1.05 * np.median(expected)


def test_an_interval_is_nearly_that_of_the_compiled_search(make_square, torch_device):
    frames, to_prev, to_cur = make_square(5, 40, 64)
    ends = {"first": 255 - frames[0], "last": 255 - frames[-1], "flows_to_prev": to_prev, "flows_to_cur": to_cur}
    settings = PropagationSettings(rounds=3)
    got, expected = (propagate_interval(frames, **ends, settings=settings, device=d) for d in (torch_device, None))
    assert np.abs(got.astype(int) - expected).mean() < 1


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_an_interval_of_eight_frames_of_512_pixels_takes_a_second(make_square):
    frames, to_prev, to_cur = make_square(9, 512, 512)
    ends = {"first": 255 - frames[0], "last": 255 - frames[-1], "flows_to_prev": to_prev, "flows_to_cur": to_cur}
    propagate_interval(frames, **ends, device="cuda")  # loads the kernels
    began = perf_counter()
    propagate_interval(frames, **ends, device="cuda")
    assert perf_counter() - began < 1
