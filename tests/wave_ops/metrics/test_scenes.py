from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from wave_ops.errors import WaveOpsError
from wave_ops.metrics import (
    attribute_fractions,
    attribute_hits,
    mixed_frames,
    object_overlap,
    outside_objects,
    preservation,
    true_warp_error,
)
from wave_ops.scenes.rendering import Scene, cut, render, shade
from wave_ops.scenes.specs import SceneSpec, edit_spec, random_scene

SPEC = random_scene(3, frame_count=4)
ATTRIBUTES = ("colour", "shape", "texture", "background_colour", "background_texture")


@pytest.fixture(scope="module")
def scene() -> Scene:
    return render(SPEC)


def words(spec: SceneSpec, index: int = 0) -> dict[str, str]:
    item, ground = spec.objects[index], spec.background
    return dict(zip(ATTRIBUTES, (item.colour, item.shape, item.texture, ground.colour, ground.texture), strict=True))


def other(value: str, *choices: str) -> Any:
    return next(choice for choice in choices if choice != value)


def test_every_true_frame_has_the_wanted_attributes(scene: Scene) -> None:
    assert attribute_fractions(scene.frames, scene.object_masks[:, 0], words(SPEC)) == dict.fromkeys(ATTRIBUTES, 1.0)


def test_an_edit_of_half_of_the_frames_has_the_fraction_one_half_and_changes_no_other_attribute(scene: Scene) -> None:
    colour = other(SPEC.background.colour, other(SPEC.objects[0].colour, "red", "blue"), "purple")
    recoloured = edit_spec(SPEC, colour=colour)
    frames = np.concatenate([render(recoloured).frames[:2], scene.frames[2:]])
    fractions = attribute_fractions(frames, scene.object_masks[:, 0], words(recoloured))
    assert fractions == dict.fromkeys(ATTRIBUTES, 1.0) | {"colour": 0.5}


def test_a_reshaped_object_is_found_by_the_mask_of_the_source(scene: Scene) -> None:
    reshaped = edit_spec(SPEC, shape=other(SPEC.objects[0].shape, "star", "square"))
    mask = scene.object_masks[:, 0]
    assert attribute_fractions(render(reshaped).frames, mask, {"shape": reshaped.objects[0].shape}) == {"shape": 1}
    assert attribute_fractions(scene.frames, mask, {"shape": reshaped.objects[0].shape}) == {"shape": 0}


def test_frames_without_the_object_are_ignored(scene: Scene) -> None:
    masks, frames = scene.object_masks[:, 0].copy(), scene.frames.copy()
    masks[1:] = False
    masks[1, 0, 0] = True  # a single pixel is too small for an object
    frames[1:] = 0
    assert attribute_fractions(frames, masks, words(SPEC)) == dict.fromkeys(ATTRIBUTES, 1.0)
    assert object_overlap(frames, masks, colour=words(SPEC)["colour"], background=words(SPEC)["background_colour"]) > 0
    nothing = attribute_fractions(frames, np.zeros_like(masks), {"colour": "red"})
    assert math.isnan(nothing["colour"])
    assert math.isnan(object_overlap(frames, np.zeros_like(masks), colour="red", background="blue"))


def test_frames_of_which_the_true_shape_cannot_be_classified_are_not_counted() -> None:
    unfiltered = []
    for seed in range(100, 104):
        spec = random_scene(seed, frame_count=4, hard=True)
        drawn = render(spec)
        mask, shape = drawn.object_masks[:, 0], {"shape": spec.objects[0].shape}
        readable = attribute_hits(drawn.frames, mask, shape)
        unfiltered.append(attribute_fractions(drawn.frames, mask, shape)["shape"])
        filtered = attribute_fractions(drawn.frames, mask, shape, readable=readable)["shape"]
        assert filtered == 1 if readable["shape"].any() else math.isnan(filtered)
    assert np.mean(unfiltered) < 0.9  # objects of hard scenes leave the frame, where the classifier is wrong


def test_only_readable_frames_are_counted(scene: Scene) -> None:
    frames, wanted = scene.frames.copy(), {name: words(SPEC)[name] for name in ("colour", "shape")}
    frames[:2] = 0
    readable = {"colour": np.array([False, True, True, True]), "shape": np.zeros(4, bool)}
    fractions = attribute_fractions(frames, scene.object_masks[:, 0], wanted, readable=readable)
    assert fractions["colour"] == pytest.approx(2 / 3)
    assert math.isnan(fractions["shape"])


def test_hits_are_returned_for_each_frame(scene: Scene) -> None:
    frames, masks = scene.frames.copy(), scene.object_masks[:, 0].copy()
    frames[1], masks[3] = 0, False
    hits = attribute_hits(frames, masks, {"shape": SPEC.objects[0].shape})
    assert {name: values.tolist() for name, values in hits.items()} == {"shape": [True, False, True, False]}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("readable", [{}, {"colour": np.ones(3, bool)}])
def test_readable_frames_are_required_for_every_attribute_and_frame(readable: Any, scene: Scene) -> None:
    with pytest.raises(WaveOpsError, match="readable frames of colour"):
        attribute_fractions(scene.frames, scene.object_masks[:, 0], {"colour": "red"}, readable=readable)


def test_each_of_two_objects_is_classified_in_its_own_mask() -> None:
    spec = random_scene(8_001, frame_count=1, objects=2)
    drawn = render(spec)
    for index in range(2):
        assert set(attribute_fractions(drawn.frames, drawn.object_masks[:, index], words(spec, index)).values()) == {
            1.0
        }


def test_the_overlap_is_high_on_true_frames_and_falls_as_the_object_moves_away(scene: Scene) -> None:
    names, mask = words(SPEC), scene.object_masks[:, 0]
    colours = {"colour": names["colour"], "background": names["background_colour"]}
    overlaps = [object_overlap(scene.frames, np.roll(mask, shift, axis=2), **colours) for shift in (0, 6, 64 // 2)]
    assert overlaps[0] > 0.9
    assert overlaps[0] > overlaps[1] > overlaps[2]
    moved = np.roll(mask, 6, axis=2)
    expected = np.mean([(a & b).sum() / (a | b).sum() for a, b in zip(mask, moved, strict=True)])
    assert overlaps[1] == pytest.approx(expected, abs=0.05)


def test_a_larger_region_of_the_colour_elsewhere_is_not_the_object() -> None:
    frames = np.full((1, 40, 40, 3), shade("blue", 0.84).astype(np.uint8))
    frames[0, 5:15, 5:15] = frames[0, 20:40, 20:40] = shade("red", 1.0).astype(np.uint8)
    mask = np.zeros((1, 40, 40), bool)
    mask[0, 5:15, 5:15] = True
    assert object_overlap(frames, mask, colour="red", background="blue") == 1


def test_the_overlap_of_a_missing_object_is_0(scene: Scene) -> None:
    ground = words(SPEC)["background_colour"]
    absent = other(ground, other(words(SPEC)["colour"], "purple", "cyan"), "yellow")
    assert object_overlap(scene.frames, scene.object_masks[:, 0], colour=absent, background=ground) == 0


@pytest.mark.parametrize(
    ("change", "weight", "mixed"),
    [
        *((change, weight, weight == 0.5) for change in ("colour", "shape", "texture") for weight in (0.0, 0.5, 1.0)),
        ("colour", 0.35, True),
        ("colour", 0.65, True),
        ("colour", 0.1, False),
        ("colour", 0.9, False),
    ],
)
def test_a_frame_between_source_and_edit_is_a_mix(change: str, weight: float, mixed: bool) -> None:
    spec = random_scene(3, frame_count=2, size=(128, 128))
    source = render(spec).frames
    new: dict[str, Any] = {
        "colour": {"colour": "white"},
        "shape": {"shape": other(spec.objects[0].shape, "star", "circle")},
        "texture": {"background_texture": other(spec.background.texture, "dotted", "checked")},
    }[change]
    truth = render(edit_spec(spec, **new)).frames
    frames = np.rint((1 - weight) * source + weight * truth).astype(np.uint8)
    assert mixed_frames(frames, source, truth).tolist() == [mixed, mixed]


def test_a_soft_edit_is_no_mix() -> None:
    spec = random_scene(3, frame_count=1, size=(128, 128))
    source, truth = (render(edit_spec(spec, shape=shape)).frames for shape in ("circle", "star"))
    soft = cv2.GaussianBlur(truth[0], (0, 0), 1.5)[None]
    assert mixed_frames(soft, source, truth).tolist() == [False]


def test_another_colour_that_is_not_between_both_is_no_mix() -> None:
    spec = random_scene(3, frame_count=1, size=(128, 128))
    red, blue, green = (render(edit_spec(spec, colour=colour)).frames for colour in ("red", "blue", "green"))
    assert mixed_frames(green, red, blue).tolist() == [False]


@pytest.mark.usefixtures("unchecked")
def test_clips_of_different_lengths_are_refused() -> None:
    frames = np.zeros((2, 4, 4, 3), np.uint8)
    with pytest.raises(WaveOpsError, match="three uint8 clips of one shape"):
        mixed_frames(frames, frames, frames[:1])


def test_preservation_is_the_psnr_of_the_masked_pixels_of_all_frames() -> None:
    source = np.full((2, 4, 6, 3), 100, np.uint8)
    edited, outside = source.copy(), np.zeros((2, 4, 6), bool)
    outside[:, :, 3:] = True
    edited[:, :, :3] = 255
    edited[0, 0, 3] = 51  # 12 pixels outside in each frame, one of 24 differs by 49
    assert preservation(edited, source, outside) == pytest.approx(10 * math.log10(255**2 / (49**2 / 24)))
    assert preservation(source, edited, outside) == preservation(edited, source, outside)


def test_preservation_is_infinite_without_change_and_not_a_number_without_pixels() -> None:
    frames = np.zeros((1, 4, 4, 3), np.uint8)
    assert preservation(frames, frames, np.ones((1, 4, 4), bool)) == math.inf
    assert math.isnan(preservation(frames, frames, np.zeros((1, 4, 4), bool)))


@pytest.mark.parametrize("margin", [0, 1, 3])
def test_outside_excludes_the_objects_and_their_margin(margin: int) -> None:
    masks = np.random.default_rng(0).random((3, 2, 12, 15)) < 0.01
    expected = np.ones((3, 12, 15), bool)
    for t, _, y, x in np.argwhere(masks):
        expected[t, max(y - margin, 0) : y + margin + 1, max(x - margin, 0) : x + margin + 1] = False
    assert np.array_equal(outside_objects(masks, margin=margin), expected)


@pytest.mark.parametrize(("size", "margin"), [(16, 1), (64, 2), (128, 4)])
def test_the_margin_grows_with_the_frame(size: int, margin: int) -> None:
    masks = np.zeros((1, 1, size, size), bool)
    masks[0, 0, size // 2, size // 2] = True
    assert (~outside_objects(masks)).sum() == (2 * margin + 1) ** 2


def test_an_edit_of_the_object_does_not_change_the_outside(scene: Scene) -> None:
    item, ground = words(SPEC)["colour"], words(SPEC)["background_colour"]
    recoloured = render(edit_spec(SPEC, colour=other(ground, other(item, "red", "blue"), "purple")))
    assert preservation(recoloured.frames, scene.frames, outside_objects(scene.object_masks)) == math.inf
    assert preservation(recoloured.frames, scene.frames, ~scene.object_masks[:, 0]) < 40  # its soft edge


def test_the_true_warp_error_is_lower_for_a_steady_clip_than_for_a_flickering_or_frozen_one(scene: Scene) -> None:
    flicker = scene.frames.copy()
    flicker[1::2] = flicker[1::2] // 2
    frozen = np.repeat(scene.frames[:1], len(scene.frames), axis=0)
    steady = true_warp_error(scene.frames, scene)
    assert 0 < steady < 0.01
    assert true_warp_error(flicker, scene) > 2 * steady
    assert true_warp_error(frozen, scene) > steady


def test_pairs_across_a_cut_do_not_count(scene: Scene) -> None:
    joined = cut(SPEC, SPEC)
    assert true_warp_error(joined.frames, joined) == pytest.approx(true_warp_error(scene.frames, scene), rel=1e-5)


def test_a_clip_of_one_frame_has_no_warp_error() -> None:
    still = render(random_scene(0, frame_count=1))
    assert math.isnan(true_warp_error(still.frames, still))


@pytest.mark.parametrize(
    ("wanted", "named"), [({"color": "red"}, "attribute of colour"), ({"shape": "heart"}, "shape of circle")]
)
def test_unknown_attributes_and_values_are_refused(wanted: dict[str, str], named: str, scene: Scene) -> None:
    with pytest.raises(WaveOpsError, match=named):
        attribute_fractions(scene.frames, scene.object_masks[:, 0], wanted)


def test_an_unknown_colour_is_refused(scene: Scene) -> None:
    with pytest.raises(WaveOpsError, match="colour of red"):
        object_overlap(scene.frames, scene.object_masks[:, 0], colour="grey", background="blue")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("change", [lambda f: f[:2], lambda f: f[:, :32], lambda f: f.astype(np.float32)])
def test_frames_that_do_not_fit_the_masks_are_refused(change: Any, scene: Scene) -> None:
    frames: NDArray[Any] = change(scene.frames)
    mask = scene.object_masks[:, 0]
    for measure in (
        lambda: attribute_fractions(frames, mask, {}),
        lambda: object_overlap(frames, mask, colour="red", background="blue"),
        lambda: preservation(frames, scene.frames, mask),
        lambda: preservation(scene.frames, frames, mask),
    ):
        with pytest.raises(WaveOpsError, match="uint8 frames"):
            measure()
    if frames.dtype == np.uint8:
        with pytest.raises(WaveOpsError, match="like the scene's"):
            true_warp_error(frames, scene)


@pytest.mark.usefixtures("unchecked")
def test_masks_without_objects_and_negative_margins_are_refused(scene: Scene) -> None:
    with pytest.raises(WaveOpsError, match="object, height, width"):
        outside_objects(scene.object_masks[:, 0])
    with pytest.raises(WaveOpsError, match="at least 0"):
        outside_objects(scene.object_masks, margin=-1)
