"""Classification of frames."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from wave_ops.errors import WaveOpsError
from wave_ops.scenes.reading import Attributes, read_attributes
from wave_ops.scenes.rendering import render, render_frame
from wave_ops.scenes.sampling import random_frame
from wave_ops.scenes.specs import SceneSpec, edit_spec, random_scene
from wave_ops.scenes.vocabulary import COLOURS, TEXTURES


def truth(spec: SceneSpec, index: int = 0) -> Attributes:
    item, ground = spec.objects[index], spec.background
    return Attributes(
        colour=item.colour,
        shape=item.shape,
        texture=item.texture,
        background_colour=ground.colour,
        background_texture=ground.texture,
    )


@pytest.mark.parametrize("masked", [False, True])
def test_true_frames_of_one_object_are_classified_correctly(masked: bool) -> None:
    right = 0
    for seed in range(60):
        spec = random_scene(7_000 + seed, frame_count=2)
        scene = render(spec)
        mask = scene.object_masks[1, 0] if masked else None
        right += read_attributes(scene.frames[1], mask) == truth(spec)
    assert right >= 60 * 0.99


def test_each_of_two_objects_is_classified_inside_its_mask() -> None:
    right = 0
    for seed in range(20):
        spec = random_scene(8_000 + seed, frame_count=1, objects=2)
        scene = render(spec)
        right += sum(read_attributes(scene.frames[0], scene.object_masks[0, i]) == truth(spec, i) for i in range(2))
    assert right >= 40 * 0.97


def test_frames_of_another_size_are_classified_correctly() -> None:
    for seed in range(5):
        spec = random_scene(seed, size=(160, 240), frame_count=1)
        assert read_attributes(render(spec).frames[0]) == truth(spec)


def test_shape_and_texture_of_an_edited_object_are_classified_inside_the_mask_of_the_source() -> None:
    for seed in range(10):
        spec = random_scene(seed, frame_count=1)
        mask = render(spec).object_masks[0, 0]
        colours = (spec.objects[0].colour, spec.background.colour)
        new = next(colour for colour in COLOURS if colour not in colours)
        edited = edit_spec(spec, colour=new, shape="star" if spec.objects[0].shape != "star" else "circle")
        found = read_attributes(render(edited).frames[0], mask)
        assert replace(found, colour=new) == truth(edited)


@pytest.mark.parametrize(("fraction", "reached"), [(0.9, True), (0.65, True), (0.5, False), (0.1, False)])
def test_a_colour_is_reached_where_it_covers_most_of_the_mask(fraction: float, reached: bool) -> None:
    spec = replace(random_scene(4, size=(128, 128), frame_count=1), supersampling=1)
    blue, white = (edit_spec(spec, colour=name, background_colour="red") for name in ("blue", "white"))
    scene, other = render(blue), render(white)
    mask = scene.object_masks[0, 0]
    frame, rows = scene.frames[0].copy(), np.flatnonzero(mask.ravel())
    rest = rows[: round((1 - fraction) * len(rows))]
    frame.reshape(-1, 3)[rest] = other.frames[0].reshape(-1, 3)[rest]
    expected = "blue" if reached else "white" if fraction < 0.4 else None
    assert read_attributes(frame, mask).colour == expected


def test_the_texture_of_an_object_is_classified() -> None:
    spec = random_scene(4, size=(128, 128), frame_count=1)
    for texture in TEXTURES:
        textured = replace(spec, objects=(replace(spec.objects[0], texture=texture),))
        scene = render(textured)
        assert read_attributes(scene.frames[0], scene.object_masks[0, 0]).texture == texture


def test_a_frame_without_an_object_has_no_shape() -> None:
    frame = np.full((64, 64, 3), (38, 76, 186), np.uint8)
    assert read_attributes(frame) == Attributes(
        colour=None, shape=None, texture=None, background_colour="blue", background_texture="plain"
    )


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("frame", "mask", "words"),
    [
        (np.zeros((8, 8, 3), np.float32), None, "uint8 frame"),
        (np.zeros((8, 8), np.uint8), None, "uint8 frame"),
        (np.zeros((8, 8, 3), np.uint8), np.ones((4, 4), bool), "mask of size"),
        (np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), bool), "that is not empty"),
    ],
)
def test_wrong_frames_and_masks_are_refused(frame: np.ndarray, mask: np.ndarray | None, words: str) -> None:
    with pytest.raises(WaveOpsError, match=words):
        read_attributes(frame, mask)


def test_a_training_frame_matches_its_caption() -> None:
    for seed in (1, 2, 4, 7, 8, 11):
        frame, caption = random_frame(seed)
        found = read_attributes(frame)
        assert f"{found.colour} {found.shape} over" in caption
        assert found.background_colour in caption


def test_every_fifth_training_frame_has_two_objects() -> None:
    assert [" and " in random_frame(seed)[1] for seed in range(20, 31)] == [
        True,
        *[False] * 4,
        True,
        *[False] * 4,
        True,
    ]


def test_every_third_training_frame_is_hard() -> None:
    for seed in (3, 4):
        frame, _ = random_frame(seed)
        progress = float(np.random.default_rng((seed, 1)).random())
        same = [
            np.array_equal(frame, render_frame(random_scene(seed, size=(128, 128), hard=hard), progress))
            for hard in (False, True)
        ]
        assert same == [seed % 3 != 0, seed % 3 == 0]
