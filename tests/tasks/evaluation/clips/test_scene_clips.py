from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from tasks.errors import TaskInputError
from tasks.evaluation.clips.clip import Edit, EvaluationClip, split_shots
from tasks.evaluation.clips.scene_clips import EDIT_KINDS, EDITED_ATTRIBUTE, GROUPS, scene_clips
from wave_ops.scenes.reading import Attributes, read_attributes
from wave_ops.scenes.rendering import render
from wave_ops.scenes.specs import edit_spec

SIZE = (32, 32)


@pytest.fixture(scope="module")
def clips() -> tuple[EvaluationClip, ...]:
    return scene_clips(20, seed=1, frame_count=9, size=SIZE)


def in_group(clips: tuple[EvaluationClip, ...], group: str) -> list[EvaluationClip]:
    return [clip for clip in clips if clip.group == group]


def test_20_clips_contain_every_kind_of_edit_in_every_group(clips: tuple[EvaluationClip, ...]) -> None:
    assert {(clip.group, clip.edits[0].kind) for clip in clips} == set(product(GROUPS, EDIT_KINDS))


def test_16_clips_contain_at_least_three_kinds_of_edit_in_every_group(clips: tuple[EvaluationClip, ...]) -> None:
    kinds = defaultdict(set)
    for clip in clips[:16]:
        kinds[clip.group].add(clip.edits[0].kind)
    assert set(kinds) == set(GROUPS)
    assert min(map(len, kinds.values())) == 3


def test_a_clip_does_not_depend_on_the_number_of_clips(clips: tuple[EvaluationClip, ...]) -> None:
    again = scene_clips(3, seed=1, frame_count=9, size=SIZE)
    assert [clip.digest for clip in again] == [clip.digest for clip in clips[:3]]
    np.testing.assert_array_equal(again[2].frames, clips[2].frames)


@pytest.mark.parametrize(
    "other", [{"seed": 2}, {"frame_count": 10}, {"size": (32, 48)}, {"kinds": ("background colour",)}]
)
def test_every_argument_changes_the_digest(other: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {"seed": 1, "frame_count": 9, "size": SIZE}
    one, another = (scene_clips(1, **given)[0] for given in (arguments, arguments | other))
    assert one.digest != another.digest


def test_names_and_digests_are_distinct(clips: tuple[EvaluationClip, ...]) -> None:
    assert len({clip.name for clip in clips}) == len({clip.digest for clip in clips}) == 20


def test_the_edit_changes_one_attribute_and_nothing_else(clips: tuple[EvaluationClip, ...]) -> None:
    for clip in clips:
        (edit,) = clip.edits
        attribute = EDITED_ATTRIBUTE[edit.kind]
        for before, after in zip(clip.scene.shots, edit.truth.shots, strict=True):
            value = getattr(after.background, attribute.removeprefix("background_"), None)
            value = value if edit.kind.startswith("background") else getattr(after.objects[0], attribute)
            assert edit_spec(before, **{attribute: value}) == after != before
        assert clip.caption == ", then ".join(spec.caption for spec in clip.scene.shots)
        assert edit.prompt == ", then ".join(spec.caption for spec in edit.truth.shots)
        assert edit.truth.frames.shape == clip.frames.shape == (9, *SIZE, 3)


def test_the_checker_reads_every_attribute_in_the_true_edit() -> None:
    for clip in in_group(scene_clips(16, seed=3, frame_count=2, size=(64, 64)), "calm"):
        truth = clip.edits[0].truth
        item, ground = truth.shots[0].objects[0], truth.shots[0].background
        for frame, masks in zip(truth.frames, truth.object_masks, strict=True):
            assert read_attributes(frame, masks[0]) == Attributes(
                colour=item.colour,
                shape=item.shape,
                texture=item.texture,
                background_colour=ground.colour,
                background_texture=ground.texture,
            )


def test_the_shots_of_a_cut_are_different_scenes_without_a_colour_in_common(
    clips: tuple[EvaluationClip, ...],
) -> None:
    for clip in in_group(clips, "cut"):
        assert clip.cuts == clip.edits[0].truth.cuts == (5,)
        colours = [{spec.objects[0].colour, spec.background.colour} for spec in clip.scene.shots]
        assert [len(found) for found in colours] == [2, 2]
        assert not colours[0] & colours[1]


def test_each_shot_is_a_clip_with_its_own_scene_and_prompts(clips: tuple[EvaluationClip, ...]) -> None:
    for clip in clips:
        shots = split_shots(clip)
        assert len(shots) == (2 if clip.group == "cut" else 1)
        np.testing.assert_array_equal(np.concatenate([shot.frames for shot in shots]), clip.frames)
        truths = [shot.edits[0].truth for shot in shots]
        np.testing.assert_array_equal(np.concatenate([truth.frames for truth in truths]), clip.edits[0].truth.frames)
        for spec, edited, shot in zip(clip.scene.shots, clip.edits[0].truth.shots, shots, strict=True):
            alone = render(spec)
            assert (shot.caption, shot.edits[0].prompt, shot.cuts) == (spec.caption, edited.caption, ())
            for name in ("frames", "flow_to_prev", "flow_to_cur", "occlusion_to_prev", "occlusion_to_cur"):
                np.testing.assert_array_equal(getattr(shot.scene, name), getattr(alone, name))
            np.testing.assert_array_equal(shot.scene.object_masks, alone.object_masks)


def test_the_shots_of_a_real_clip_keep_its_prompt(clips: tuple[EvaluationClip, ...]) -> None:
    clip = replace(clips[3], scene=None, caption="a film", edits=(Edit(kind="prompt", prompt="a painting"),))
    first, second = split_shots(clip)
    assert [(len(shot.frames), shot.caption, shot.edits[0].prompt) for shot in (first, second)] == [
        (5, "a film", "a painting"),
        (4, "a film", "a painting"),
    ]
    assert first.digest != second.digest


def test_of_two_crossing_objects_the_second_occludes_a_part_of_the_first_but_never_all(
    clips: tuple[EvaluationClip, ...],
) -> None:
    for clip in in_group(clips, "occlusion"):
        areas = clip.scene.object_masks[:, 0].sum(axis=(1, 2))
        assert areas[3:6].min() < 0.85 * min(areas[0], areas[-1])
        assert areas.min() > 0.15 * areas.max()
        middles = [np.argwhere(masks).mean(axis=0)[1] for masks in clip.scene.object_masks[[0, -1]].reshape(4, *SIZE)]
        assert middles[0] < middles[1]
        assert middles[2] > middles[3]


def test_hard_motion_is_faster_than_calm(clips: tuple[EvaluationClip, ...]) -> None:
    calm, hard = (
        np.mean([np.abs(clip.scene.flow_to_prev).mean() for clip in in_group(clips, group)])
        for group in ("calm", "hard motion")
    )
    assert hard > 2 * calm


def test_only_the_requested_kinds_of_edit_are_drawn() -> None:
    drawn = scene_clips(4, seed=0, frame_count=2, size=SIZE, kinds=("shape", "colour"))
    assert [clip.edits[0].kind for clip in drawn] == ["shape", "colour", "shape", "colour"]


@pytest.mark.parametrize(
    ("count", "options", "message"),
    [
        (0, {}, "from 1 to 500"),
        (501, {}, "from 1 to 500"),
        (1, {"frame_count": 1}, "at least 2 frames"),
        (1, {"kinds": ("size",)}, "'size'"),
        (1, {"kinds": ()}, "choose from colour"),
    ],
)
def test_invalid_arguments_are_an_error(count: int, options: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskInputError, match=message):
        scene_clips(count, seed=0, **options)
