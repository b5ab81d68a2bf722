from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse import diags, eye, kron, vstack
from scipy.sparse.linalg import spsolve

from wave_ops.errors import WaveOpsError
from wave_ops.propagation.compositing import (
    blend,
    blend_weights,
    composite,
    fuse_gradients,
    lab_to_rgb,
    rgb_to_lab,
    select,
    selected_gradients,
    selection_weight,
    warp_selection,
)


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(0, 255, shape)).to(dtype)


def test_the_symmetric_weight_treats_both_keyframes_alike():
    for length in range(2, 12):
        for i in range(1, length):
            assert selection_weight(i, length) == pytest.approx(1 - selection_weight(length - i, length))


def test_the_symmetric_weight_is_i_over_k():
    assert [selection_weight(i, 4) for i in range(1, 4)] == [0.25, 0.5, 0.75]


def test_the_published_weight_is_i_minus_1_over_k_minus_1():
    assert [selection_weight(i, 5, kind="published") for i in range(1, 5)] == [0, 0.25, 0.5, 0.75]
    assert selection_weight(1, 2, kind="published") == 0


@pytest.mark.parametrize("index", [0, 8, -1])
def test_keyframes_are_never_selected(index):
    with pytest.raises(WaveOpsError):
        selection_weight(index, 8)


@pytest.mark.parametrize(
    ("first", "last", "taken"),
    [
        (10.0, 1.0, True),  # 2.5 >= 0.75
        (1.0, 10.0, False),  # 0.25 < 7.5
        (3.0, 1.0, True),  # 0.75 >= 0.75
        (3.0, 2.0, False),  # 0.75 < 1.5, though 2.25 >= 0.5
    ],
)
def test_a_pixel_is_taken_where_the_weighted_first_error_is_not_the_smaller(first, last, taken):
    errors = torch.tensor([[first]]), torch.tensor([[last]])
    assert select(*errors, weight=0.25).tolist() == [[taken]]


def test_a_pixel_that_switched_before_stays_switched():
    switched = torch.tensor([[True, False]])
    assert select(torch.zeros(1, 2), torch.ones(1, 2), weight=0.5, switched=switched).tolist() == [[True, False]]


def test_a_switched_pixel_moves_with_the_flow(torch_device):
    chosen = torch.zeros(1, 6, 8, dtype=torch.bool, device=torch_device)
    chosen[0, 2, 3] = True
    flow = torch.tensor([-2.2, -1.4], device=torch_device).view(1, 2, 1, 1).expand(1, 2, 6, 8)
    warped = warp_selection(chosen, flow, torch.zeros_like(chosen))
    assert warped[0].nonzero().tolist() == [[3, 5]]  # from about (2, 1) away


def test_a_pixel_without_a_match_in_the_frame_before_is_not_switched():
    disoccluded = torch.zeros(1, 4, 4, dtype=torch.bool)
    disoccluded[0, 1, 2] = True
    warped = warp_selection(torch.ones(1, 4, 4, dtype=torch.bool), torch.zeros(1, 2, 4, 4), disoccluded)
    assert (~warped[0]).nonzero().tolist() == [[1, 2]]


def test_where_both_fit_equally_well_the_weight_is_that_of_time():
    error = torch.full((20, 20), 500.0)
    torch.testing.assert_close(blend_weights(error, error, weight=0.3), torch.full((20, 20), 0.3))


def test_where_only_one_fits_it_gets_all_the_weight():
    first = torch.zeros(20, 40)
    first[:, 20:] = 1e6
    weights = blend_weights(first, 1e6 - first, weight=0.5)
    assert weights[:, :14].max() < 1e-3
    assert weights[:, 26:].min() > 1 - 1e-3


def test_errors_are_averaged_over_9_pixels_and_raised_by_100(torch_device):
    errors = [noise(12, 13, seed=seed, dtype=torch.float32) * 10 for seed in range(2)]
    padded = [np.pad(error.numpy().astype(float), 4, mode="edge") for error in errors]
    weights = blend_weights(*(error.to(torch_device) for error in errors), weight=0.3)
    for y, x in np.ndindex(12, 13):
        first, last = (error[y : y + 9, x : x + 9].mean() + 100 for error in padded)
        assert weights[y, x].item() == pytest.approx(0.3 * first / (0.3 * first + 0.7 * last), rel=1e-4)


def test_every_colour_survives_lab_and_back(torch_device):
    levels = torch.arange(0, 256, 5, dtype=torch.float32, device=torch_device)
    colours = torch.stack(torch.meshgrid(levels, levels, levels, indexing="ij")).flatten(2)
    back = lab_to_rgb(rgb_to_lab(colours))
    assert back.dtype == torch.float32
    torch.testing.assert_close(back, colours, atol=0.01, rtol=0)


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        ((255, 255, 255), (100, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
        ((119, 119, 119), (50.03, 0, 0)),
    ],
)
def test_known_colours_have_their_known_lab(rgb, lab):
    got = rgb_to_lab(torch.tensor(rgb, dtype=torch.float32).view(3, 1, 1)).flatten()
    torch.testing.assert_close(got, torch.tensor([lab[0] * 2.55, lab[1] + 128, lab[2] + 128]), atol=0.05, rtol=0)


def test_the_blend_has_the_mean_and_deviation_of_the_chosen_image():
    first, last, chosen = noise(3, 3, 20, 30)
    mix = blend(first, last, chosen, weight=0.3)
    torch.testing.assert_close(mix.mean(dim=(1, 2)), chosen.mean(dim=(1, 2)))
    torch.testing.assert_close(mix.std(dim=(1, 2)), chosen.std(dim=(1, 2)))


def test_the_blend_is_the_published_recipe():
    first, last, chosen = noise(3, 3, 20, 30, seed=1).numpy()
    got = blend(*map(torch.from_numpy, (first, last, chosen)), weight=0.25)
    for channel in range(3):
        a, b = ((x[channel] - x[channel].mean()) / x[channel].std() * 256 / 36 + 128 for x in (first, last))
        mix = 0.75 * a + 0.25 * b
        expected = (mix - mix.mean()) / mix.std() * chosen[channel].std() + chosen[channel].mean()
        np.testing.assert_allclose(got[channel], expected)


def test_in_single_precision_the_mean_of_a_large_flat_image_is_exact():
    """A plain running sum of 512 x 512 equal numbers would be off by more than a level."""
    flat = torch.full((3, 512, 512), 37.3)
    flat[:, 0, 0] = 255
    mix = blend(flat, flat, flat, weight=0.5)
    torch.testing.assert_close(mix, flat, atol=0.01, rtol=0)


def test_a_map_of_weights_mixes_each_pixel_by_its_own():
    first, last, chosen = noise(3, 3, 8, 9, seed=3)
    halves = torch.zeros(8, 9, dtype=torch.float64)
    halves[:, 5:] = 1
    mix = blend(first, last, chosen, weight=halves)
    for part, image in ((np.s_[:, :5], first), (np.s_[:, 5:], last)):
        for channel in range(3):  # within a part, a candidate is only shifted and scaled
            pair = torch.stack((mix[channel][part].flatten(), image[channel][part].flatten()))
            assert torch.corrcoef(pair)[0, 1] > 1 - 1e-9


def test_two_equal_candidates_blend_to_themselves():
    image = noise(3, 8, 9, seed=2)
    torch.testing.assert_close(blend(image, image, image, weight=0.5), image)


def test_images_without_contrast_blend_to_the_chosen_mean():
    flat = torch.full((3, 6, 7), 83.3)
    torch.testing.assert_close(blend(flat, flat + 1, flat, weight=0.5), flat, atol=1e-4, rtol=0)


def least_squares(values: np.ndarray, gradient_x: np.ndarray, gradient_y: np.ndarray, weight: float) -> np.ndarray:
    """Stack |x - values|^2 and g^2 |grad x - gradient|^2 as one sparse system and solve it."""
    height, width = values.shape
    across = kron(eye(height), diags([-1.0, 1.0], [0, 1], shape=(width - 1, width)))
    down = kron(diags([-1.0, 1.0], [0, 1], shape=(height - 1, height)), eye(width))
    rows = vstack([eye(height * width), weight * across, weight * down]).tocsc()
    right = np.concatenate([values.ravel(), weight * gradient_x.ravel(), weight * gradient_y.ravel()])
    return spsolve(rows.T @ rows, rows.T @ right).reshape(height, width)


@pytest.mark.parametrize("size", [(12, 17), (17, 12), (16, 24), (1, 9), (9, 1), (2, 2)])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-4 * 255), (torch.float64, 1e-9)])
def test_the_cosine_solution_is_the_sparse_least_squares_solution(size, dtype, atol, torch_device):
    height, width = size
    weights = (2.5, 0.5, 0.0)
    parts = [noise(3, *shape, dtype=dtype) for shape in (size, (height, width - 1), (height - 1, width))]
    fused = fuse_gradients(*(part.to(torch_device) for part in parts), weights=weights)
    assert fused.dtype == dtype
    for channel, weight in enumerate(weights):
        expected = least_squares(*(part[channel].double().numpy() for part in parts), weight)
        np.testing.assert_allclose(fused[channel].cpu(), expected, atol=atol, rtol=0)


def test_an_image_with_its_own_gradients_stays_as_it_is():
    image = noise(3, 16, 24, seed=2)
    gradients = selected_gradients(image, image + 50, torch.zeros(16, 24, dtype=torch.bool))
    torch.testing.assert_close(fuse_gradients(image, *gradients, weights=(2.5, 0.5, 0.5)), image)


def test_the_step_between_two_selected_candidates_is_not_a_gradient():
    first, last = torch.zeros(1, 4, 6), torch.full((1, 4, 6), 100.0)
    checkers = (torch.arange(24) % 2 == 0).view(4, 6)
    assert not any(gradient.any() for gradient in selected_gradients(first, last, checkers))


def test_gradients_come_from_the_candidate_selected_at_the_pixel():
    first, last = noise(2, 3, 5, 7, seed=3)
    chosen = noise(5, 7, seed=4) < 128
    gradient_x, gradient_y = selected_gradients(first, last, chosen)
    for y, x in np.ndindex(5, 7):
        image = last if chosen[y, x] else first
        if x < 6:
            assert torch.equal(gradient_x[:, y, x], image[:, y, x + 1] - image[:, y, x])
        if y < 4:
            assert torch.equal(gradient_y[:, y, x], image[:, y + 1, x] - image[:, y, x])


def test_shapes_that_do_not_belong_together_are_an_error(unchecked):
    values = torch.zeros(3, 4, 5)
    with pytest.raises(WaveOpsError, match="gradients of shapes"):
        fuse_gradients(values, torch.zeros(3, 4, 5), torch.zeros(3, 3, 5), weights=(1, 1, 1))
    with pytest.raises(WaveOpsError, match="weights"):
        fuse_gradients(values, torch.zeros(3, 4, 4), torch.zeros(3, 3, 5), weights=(1, 1))


def test_a_batch_is_composited_as_each_image_alone(torch_device):
    first, last = noise(2, 2, 3, 12, 13, dtype=torch.float32).to(torch_device)
    errors = noise(2, 2, 12, 13, seed=1, dtype=torch.float32).to(torch_device)
    options = {"kind": "contrast", "gradient_weights": (2.5, 0.5, 0.5)}
    chosen, weights = select(*errors, weight=0.4), blend_weights(*errors, weight=0.4)
    both = composite(first, last, chosen, weight=weights, **options)
    for index in range(2):
        alone = composite(first[index], last[index], chosen[index], weight=weights[index], **options)
        torch.testing.assert_close(both[index], alone, atol=1e-3, rtol=0)


def test_a_mix_of_candidates_that_disagree_stays_between_them_where_the_published_blend_leaves_their_range():
    """Half of both frames is one flat colour; the other half is noise, in which the candidates disagree."""
    first, last = (noise(3, 16, 32, seed=seed, dtype=torch.float32) for seed in (0, 1))
    flat = torch.tensor([60.0, 120.0, 200.0])[:, None, None]
    first[..., :16], last[..., :16] = flat, flat
    chosen = torch.zeros(16, 32, dtype=torch.bool)
    mixed, contrast = (composite(first, last, chosen, weight=0.5, kind=kind)[..., :16] for kind in ("mix", "contrast"))
    assert (mixed - flat).abs().max() < 0.1
    assert (contrast - flat).abs().max() > 5
