"""Poses, motions, shapes and patterns."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wave_ops.scenes.geometry import MAX_RADIUS, Motion, Points, Pose, dark_half, inside
from wave_ops.scenes.vocabulary import Shape, Texture

poses = st.builds(Pose, x=st.floats(-1, 1), y=st.floats(-1, 1), angle=st.floats(-4, 4), scale=st.floats(0.1, 3))


def grid(first: float, last: float, count: int) -> Points:
    x, y = np.meshgrid(np.linspace(first, last, count), np.linspace(first, last, count))
    return x, y


GRID = grid(-1.5, 1.5, 601)


@given(pose=poses, x=st.floats(-2, 2), y=st.floats(-2, 2))
def test_to_layer_inverts_to_frame(pose: Pose, x: float, y: float) -> None:
    back = pose.to_layer(pose.to_frame((np.array(x), np.array(y))))
    np.testing.assert_allclose(back, (x, y), atol=1e-9)


def test_a_quarter_turn_maps_right_to_down() -> None:
    turned = Pose(x=1.0, y=2.0, angle=np.pi / 2, scale=3.0).to_frame((np.array(1.0), np.array(0.0)))
    np.testing.assert_allclose(turned, (1.0, 5.0), atol=1e-12)


@given(start=poses, end=poses, arc=st.floats(-0.5, 0.5))
def test_a_motion_begins_and_ends_at_its_poses(start: Pose, end: Pose, arc: float) -> None:
    motion = Motion(start=start, end=end, arc=arc)
    for found, wanted in ((motion.at(0.0), start), (motion.at(1.0), end)):
        np.testing.assert_allclose(
            (found.x, found.y, found.angle, found.scale), (wanted.x, wanted.y, wanted.angle, wanted.scale), atol=1e-9
        )


def test_an_arc_moves_the_middle_of_a_path_sideways() -> None:
    middle = Motion(start=Pose(), end=Pose(x=0.4), arc=0.1).at(0.5)
    np.testing.assert_allclose((middle.x, middle.y), (0.2, 0.1))


@pytest.mark.parametrize("shape", get_args(Shape))
def test_no_shape_exceeds_the_maximum_radius(shape: Shape) -> None:
    assert np.hypot(*GRID)[inside(shape, GRID)].max() <= MAX_RADIUS


@pytest.mark.parametrize(
    ("shape", "area"),
    [
        ("circle", np.pi * 0.92**2),
        ("square", 1.64**2),
        ("triangle", 3 * np.sqrt(3) / 4 * 1.3**2),
        ("star", 5 * 1.28 * 0.56 * np.sin(np.pi / 5)),
        ("ring", np.pi * (1.04**2 - 0.52**2)),
    ],
)
def test_a_shape_has_the_area_of_its_formula(shape: Shape, area: float) -> None:
    assert inside(shape, GRID).mean() * 9 == pytest.approx(area, rel=0.01)


def test_triangle_and_star_stand_with_a_corner_up() -> None:
    top, bottom = (np.array(0.0), np.array(-1.2)), (np.array(0.0), np.array(1.2))
    for shape in ("triangle", "star"):
        assert inside(shape, top)
        assert not inside(shape, bottom)


@pytest.mark.parametrize(("texture", "fraction"), [("striped", 0.5), ("checked", 0.5), ("dotted", np.pi * 0.29**2)])
def test_a_pattern_darkens_its_fraction_of_the_surface_and_repeats(texture: Texture, fraction: float) -> None:
    dark = dark_half(texture, grid(0.005, 3.995, 400))
    assert dark is not None
    assert dark.mean() == pytest.approx(fraction, abs=0.01)
    np.testing.assert_array_equal(dark[:, :300], dark[:, 100:])


def test_a_plain_surface_has_no_dark_part() -> None:
    assert dark_half("plain", GRID) is None
