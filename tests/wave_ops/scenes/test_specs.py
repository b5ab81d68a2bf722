"""Specifications of scenes."""

from __future__ import annotations

import pytest

from wave_ops.errors import WaveOpsError
from wave_ops.scenes.specs import edit_spec, random_scene


def test_the_same_seed_draws_the_same_scene_and_another_seed_another_one() -> None:
    assert random_scene(3) == random_scene(3)
    assert random_scene(3) != random_scene(4)


@pytest.mark.parametrize("objects", [1, 2])
@pytest.mark.parametrize("hard", [False, True])
def test_the_colours_of_a_scene_differ(objects: int, hard: bool) -> None:
    for seed in range(50):
        spec = random_scene(seed, objects=objects, hard=hard)
        assert len({spec.background.colour, *(item.colour for item in spec.objects)}) == objects + 1


@pytest.mark.parametrize("objects", [1, 2])
def test_a_calm_object_keeps_its_centre_inside_the_frame(objects: int) -> None:
    for seed in range(50):
        for item in random_scene(seed, objects=objects).objects:
            for progress in (0.0, 0.5, 1.0):
                pose = item.motion.at(progress)
                assert max(abs(pose.x), abs(pose.y)) < 0.5


def test_two_calm_objects_start_in_the_order_of_the_caption() -> None:
    for seed in range(50):
        first, second = random_scene(seed, objects=2).objects
        assert first.motion.start.x < 0 < second.motion.start.x


def test_a_scene_of_three_objects_is_refused() -> None:
    with pytest.raises(WaveOpsError, match="one or two objects, got 3"):
        random_scene(0, objects=3)


@pytest.mark.parametrize("wrong", [{"size": (0, 64)}, {"frame_count": 0}])
def test_a_scene_without_pixels_or_frames_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(WaveOpsError, match="at least one pixel, one frame"):
        random_scene(0, **wrong)  # type: ignore[arg-type]


def test_an_edit_changes_the_given_attributes_and_keeps_every_motion() -> None:
    spec = random_scene(1, objects=2)
    edited = edit_spec(spec, colour="white", shape="ring", background_colour="green", object_index=1)
    assert edited.objects[0] == spec.objects[0]
    assert (edited.objects[1].colour, edited.objects[1].shape) == ("white", "ring")
    assert edited.objects[1].motion == spec.objects[1].motion
    assert edited.background.colour == "green"
    assert edited.background.texture == spec.background.texture


def test_an_edit_without_attributes_changes_nothing() -> None:
    assert edit_spec(random_scene(1)) == random_scene(1)


def test_an_edit_of_a_missing_object_is_refused() -> None:
    with pytest.raises(WaveOpsError, match="no object 1"):
        edit_spec(random_scene(1), object_index=1)
