from __future__ import annotations

import numpy as np
import pytest

from wave_ops.propagation.blending import blend, lab_to_rgb, rgb_to_lab


def test_every_colour_survives_lab_and_back():
    levels = np.arange(0, 256, 5, dtype=np.float32)
    colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(len(levels), -1, 3)
    back = lab_to_rgb(rgb_to_lab(colours))
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, colours, atol=0.01)


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
    got = rgb_to_lab(np.array([[rgb]], np.float32))[0, 0]
    np.testing.assert_allclose(got, [lab[0] * 2.55, lab[1] + 128, lab[2] + 128], atol=0.05)


def test_the_blend_has_the_mean_and_deviation_of_the_chosen_image():
    first, last, chosen = np.random.default_rng(0).uniform(0, 255, (3, 20, 30, 3)).astype(np.float32)
    mix = blend(first, last, chosen, weight=0.3)
    np.testing.assert_allclose(mix.mean(axis=(0, 1)), chosen.mean(axis=(0, 1)), rtol=1e-4)
    np.testing.assert_allclose(mix.std(axis=(0, 1)), chosen.std(axis=(0, 1)), rtol=1e-4)


def test_the_blend_is_the_published_recipe():
    first, last, chosen = np.random.default_rng(1).uniform(0, 255, (3, 20, 30, 3))
    weight = 0.25
    for channel in range(3):
        a, b, c = first[..., channel], last[..., channel], chosen[..., channel]
        a = (a - a.mean()) / a.std() * 256 / 36 + 128
        b = (b - b.mean()) / b.std() * 256 / 36 + 128
        mix = (1 - weight) * a + weight * b
        expected = (mix - mix.mean()) / mix.std() * c.std() + c.mean()
        np.testing.assert_allclose(blend(first, last, chosen, weight=weight)[..., channel], expected)


def test_a_map_of_weights_mixes_each_pixel_by_its_own():
    first, last, chosen = np.random.default_rng(3).uniform(0, 255, (3, 8, 9, 3))
    halves = np.zeros((8, 9))
    halves[:, 5:] = 1
    mix = blend(first, last, chosen, weight=halves)
    for part, image in ((np.s_[:, :5], first), (np.s_[:, 5:], last)):
        for channel in range(3):  # within a part, a candidate is only stretched and moved
            assert np.corrcoef(mix[part][..., channel].ravel(), image[part][..., channel].ravel())[0, 1] > 1 - 1e-9


def test_two_equal_candidates_blend_to_themselves():
    image = np.random.default_rng(2).uniform(0, 255, (8, 9, 3))
    np.testing.assert_allclose(blend(image, image, image, weight=0.5), image)


def test_images_without_contrast_blend_to_the_chosen_mean():
    flat = np.full((6, 7, 3), 83.3, np.float32)
    np.testing.assert_allclose(blend(flat, flat + 1, flat, weight=0.5), flat, atol=1e-4)
