from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from storage.digest import digest_of
from storage.errors import VideoError
from storage.limits import Limits
from storage.video import DEINTERLACING, Encoding, SourceEncoding
from tasks.errors import TaskInputError
from tasks.models.checkpoints import Advice
from tasks.planning.plan import EditPlan, Execution, plan_edit
from tasks.planning.prepare import prepare_edit
from tasks.planning.request import edit_request
from tasks.planning.stages import ASSESS, DECODE, EDIT, ENCODE, INVERT, PROPAGATE, STAGES

NAMES = ("decode", "frame_flow", "keyframe_flow", "invert", "edit", "propagate", "encode", "assess")
PINNED = {
    "decode": "8b0ed072e948a80a476c91bf",
    "keyframe_flow": "bc9b0e92b409a0b63fd700df",
    "frame_flow": "e8b1014e14c9c7e47d5045da",
    "invert": "e62bb50a45e993b8a62b44f3",
    "edit": "336a23f494137c55c3f467fc",
    "propagate": "a223b351554761b59ca758dd",
    "encode": "9d25a8b6f75e46f6d2bab109",
    "assess": "bba562a8fb402a8a1232a435",
}


@pytest.fixture(scope="module")
def plan(clip: Path, sd15: Path, tmp_path_factory: pytest.TempPathFactory) -> EditPlan:
    request = edit_request(video=str(clip), prompt="a blue star", model=str(sd15), keyframe_interval=3, steps=4)
    return prepare_edit(request, execution=Execution(workspace=str(tmp_path_factory.mktemp("workspace"))))


def changed(plan: EditPlan, **changes: Any) -> EditPlan:
    """Plan again with other fields of the request, or with other inputs."""
    parts = {
        name: changes.pop(name) for name in ("model", "controlnet", "execution", "clip", "flow") if name in changes
    }
    request = plan.inputs.request.model_copy(update=changes)
    return plan_edit(replace(plan.inputs, request=request, **parts))


def shared_with(plan: EditPlan, other: EditPlan) -> set[str]:
    pairs = zip(plan.stages, other.stages, strict=True)
    return {mine.name for mine, theirs in pairs if mine.ref == theirs.ref}


@pytest.mark.parametrize(
    ("changes", "shared"),
    [
        ({}, NAMES),
        ({"prompt": "a red star"}, NAMES[:4]),
        ({"negative_prompt": "blurry"}, NAMES[:4]),
        ({"guidance_scale": 3.0}, NAMES[:4]),
        ({"injection": 0.1}, NAMES[:4]),
        ({"source_prompt": "a star"}, NAMES[:3]),
        ({"steps": 5}, NAMES[:3]),
        ({"seed": 1}, NAMES[:3]),
        ({"size": (64, 128)}, NAMES[:3]),
        ({"keyframe_interval": 2}, ("decode", "frame_flow")),
        ({"full_resolution": True}, NAMES[:6]),
        ({"format": "mov"}, NAMES[:6]),
        ({"codec": "hevc"}, NAMES[:6]),
        ({"pixel_format": "yuv444p"}, NAMES[:6]),
        ({"crf": 20}, NAMES[:6]),
        ({"gop": 9}, NAMES[:6]),
        ({"format": "mp4", "codec": "h264", "crf": 16}, NAMES),
        ({"video": "elsewhere/clip.mp4"}, NAMES),
    ],
)
def test_a_stage_is_shared_where_nothing_that_changes_it_differs(
    plan: EditPlan, changes: dict[str, Any], shared: tuple[str, ...]
) -> None:
    assert shared_with(plan, changed(plan, **changes)) == set(shared)


def test_what_decoding_converts_changes_all_results_but_not_those_of_ordinary_clips(plan: EditPlan) -> None:
    assert plan.clip.conversions == ()
    interlaced = replace(plan.clip, conversions=(DEINTERLACING,))
    assert shared_with(plan, changed(plan, clip=interlaced)) == set()
    assert shared_with(plan, changed(plan, clip=interlaced, interlaced="keep")) == set(NAMES)
    assert shared_with(plan, changed(plan, interlaced="keep")) == set(NAMES)


def test_each_part_of_a_clip_has_results_of_its_own(plan: EditPlan) -> None:
    parts = [{"start": 0.1}, {"end": 0.4}, {"frames": "4"}, {"frames": "1:4"}]
    plans = [changed(plan, **part) for part in parts]
    for other in plans:
        assert shared_with(plan, other) == set()
    assert len({other[DECODE].ref.path for other in [plan, *plans]}) == 5
    assert shared_with(plan, changed(plan, start=0.0, frames="0:")) == set(NAMES)


def test_the_frames_of_a_part_are_estimated_until_it_is_decoded(plan: EditPlan) -> None:
    def frames(**part: Any) -> int:
        request = plan.inputs.request.model_copy(update=part)
        return prepare_edit(request, execution=plan.execution).clip.frame_count

    rate = plan.clip.rate
    assert (frames(), frames(frames="4"), frames(frames="2:4")) == (7, 4, 2)
    assert (frames(start=3 / rate), frames(end=2 / rate)) == (4, 2)
    with pytest.raises(
        TaskInputError, match=r"The clip clip\.mp4 has 7 frames in 0\.67 s: --start, --end and --frames"
    ):
        frames(start=9.0)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(frames=6), "clip.mp4 has 7 frames or more"),
        (Limits(seconds=0.5), "clip.mp4 lasts 1 s or more"),
        (Limits(pixels=64 * 48 - 1), "has pictures of 64x48"),
        (Limits(file_bytes=99), "bytes, and at most 99 are read"),
    ],
)
def test_a_clip_beyond_the_limits_is_refused_before_anything_is_computed(
    limits: Limits, words: str, plan: EditPlan
) -> None:
    with pytest.raises(VideoError, match=words):
        prepare_edit(plan.request, execution=replace(plan.execution, limits=limits))


def test_limits_count_for_the_part_that_is_edited(plan: EditPlan) -> None:
    request = plan.request.model_copy(update={"frames": "2:5"})
    part = prepare_edit(request, execution=replace(plan.execution, limits=Limits(frames=3, seconds=0.4)))
    assert part.clip.frame_count == 3


def test_each_encoding_is_stored_in_a_place_of_its_own(plan: EditPlan) -> None:
    encodings = [{}, {"format": "mov"}, {"crf": 20}, {"crf": 20, "full_resolution": True}, {"like_source": True}]
    clip = replace(plan.clip, encoded=SourceEncoding(codec="hevc", pixel_format="yuv420p", bit_rate=10**6, gop=12))
    plans = [changed(plan, clip=clip, **encoding) for encoding in encodings]
    for spec in (ENCODE, ASSESS):
        assert len({other[spec].ref.path for other in plans}) == 5
    assert plans[-1][ENCODE].settings.encoding == Encoding(codec="hevc", crf=None, gop=12, bit_rate=10**6)
    assert changed(plan, clip=clip)[ENCODE].ref == plan[ENCODE].ref


def test_an_hdr_clip_is_refused_where_that_is_asked_for(plan: EditPlan) -> None:
    hdr = replace(plan.clip, conversions=("tone-mapped",), hdr="HDR (PQ)")
    assert changed(plan, clip=hdr).clip.hdr == "HDR (PQ)"
    assert changed(plan, hdr="refuse").clip.hdr == ""
    with pytest.raises(TaskInputError, match=r"The clip clip\.mp4 is HDR \(PQ\): choose --hdr tone-map"):
        changed(plan, clip=hdr, hdr="refuse")


def test_full_resolution_is_stored_next_to_the_plain_result_and_leaves_its_identity_alone(plan: EditPlan) -> None:
    full = changed(plan, full_resolution=True)
    assert plan[ENCODE].ref.digest == digest_of("encode", ENCODE.version, [plan[PROPAGATE].ref.digest], {})
    assert plan[ASSESS].ref.digest == digest_of("assess", ASSESS.version, [plan[ENCODE].ref.digest], {})
    for stage in (ENCODE, ASSESS):
        assert full[stage].ref.digest != plan[stage].ref.digest
        assert full[stage].ref.path == f"{plan[stage].ref.path}_full"
        assert f"edits/{plan[PROPAGATE].ref.digest}/" in full[stage].ref.path


def test_device_and_batches_change_no_result_but_precision_and_backend_do(plan: EditPlan) -> None:
    elsewhere = replace(plan.execution, device="cuda", keyframe_batch=2)
    assert shared_with(plan, changed(plan, execution=elsewhere)) == set(NAMES)
    on_torch = replace(plan.execution, propagation="torch")
    assert shared_with(plan, changed(plan, execution=on_torch)) == set(NAMES[:5])
    assert shared_with(plan, changed(plan, execution=replace(plan.execution, dtype="float16"))) == set(NAMES[:3])


def test_only_the_edit_depends_on_the_controlnet(plan: EditPlan, sd15: Path) -> None:
    request = plan.inputs.request.model_copy(update={"controlnet": ("auto",)})
    with_net = prepare_edit(request, execution=plan.execution)
    assert with_net.inputs.controlnet is not None
    assert shared_with(plan, with_net) == set(NAMES[:4])


def test_the_request_goes_before_the_models_advice_and_that_before_the_method(plan: EditPlan) -> None:
    def settings(advice: Advice, **changes: Any) -> tuple[float, str]:
        model = replace(plan.inputs.model, advice=advice)
        given = changed(plan, model=model, **changes)[EDIT].settings
        return given.editing.guidance_scale, given.negative_prompt

    advice = Advice(guidance_scale=5, negative_prompt="")
    assert settings(Advice()) == (7.5, "ugly, blurry, low res, unrealistic, unaesthetic")
    assert settings(advice) == (5, "")
    assert settings(advice, guidance_scale=2.0, negative_prompt="grey") == (2, "grey")


def test_no_two_stages_share_a_path(plan: EditPlan) -> None:
    assert len({stage.ref.path for stage in plan.stages}) == len(plan.stages)
    assert all(stage.ref.path.startswith(f"clips/{plan.clip.digest}/") for stage in plan.stages)


def test_keyframes_and_intervals_follow_from_clip_and_cuts(plan: EditPlan) -> None:
    assert (plan.keyframes, plan.intervals) == ((0, 3, 6), ((0, 3), (3, 6)))
    cut = changed(plan, clip=replace(plan.clip, cuts=(5,)))
    assert (cut.keyframes, cut.intervals) == ((0, 3, 4, 5, 6), ((0, 3), (3, 4), (5, 6)))
    assert "Invert 3 keyframes of clip.mp4" in [stage.title for stage in plan.stages]


def test_a_clip_of_one_frame_has_one_keyframe_and_no_pair(plan: EditPlan) -> None:
    single = changed(plan, clip=replace(plan.clip, frame_count=1))
    assert (single.keyframes, single.pairs, single.intervals) == ((0,), (), ((0, 0),))


def test_the_working_size_has_the_models_area_and_the_clips_aspect(plan: EditPlan) -> None:
    assert plan.size == (64, 64)
    wide = changed(plan, clip=replace(plan.clip, size=(272, 640)), model=replace(plan.inputs.model, native_area=512**2))
    assert wide.size == (320, 768)


def test_a_size_that_does_not_fit_the_model_is_refused_with_one_that_does(plan: EditPlan) -> None:
    with pytest.raises(TaskInputError, match=r"100x64 does not fit .* multiples of 64, for example 128x64"):
        changed(plan, size=(64, 100))


def test_identities_stay_what_they_were(plan: EditPlan) -> None:
    """Pinned: a change of a digest would compute everything that is stored again."""
    fixed = replace(plan.inputs, clip=replace(plan.clip, digest="c" * 24, name="clip.mp4"))
    fixed = replace(fixed, model=replace(plan.inputs.model, digest="m" * 24, advice=Advice()))
    digests = {stage.name: stage.ref.digest for stage in plan_edit(fixed).stages}
    assert digests == PINNED


def test_what_only_a_mask_needs_is_part_of_the_identity_where_there_is_one(plan: EditPlan) -> None:
    plain = plan[EDIT].settings
    kept = replace(plain, editing=replace(plain.editing, keep=True))
    for settings, same in ((plain, True), (kept, False)):
        larger = replace(settings, editing=replace(settings.editing, keep_threshold=0.5))
        assert (larger.identity() == settings.identity()) is same


def test_inversion_and_edit_share_one_schedule(plan: EditPlan) -> None:
    assert plan[INVERT].settings.inversion.schedule == plan[EDIT].settings.editing.schedule
    assert plan[EDIT].settings.editing.steps == 4


def test_the_table_has_one_row_for_each_stage_in_the_order_of_the_plan(plan: EditPlan) -> None:
    assert tuple(spec.name for spec in STAGES) == tuple(stage.name for stage in plan.stages) == NAMES
    for place, spec in enumerate(STAGES):
        assert set(spec.inputs) <= set(NAMES[:place])
        assert plan[spec].settings.identity() == spec.settings(plan).identity()
        assert spec.units(plan) > 0


def test_a_stages_time_limit_grows_with_its_work(plan: EditPlan) -> None:
    longer = changed(plan, clip=replace(plan.clip, frame_count=10 * plan.clip.frame_count))
    larger = changed(plan, size=(1024, 1024))
    for spec in STAGES:
        assert spec.time_limit(plan) > 1800 + 60 * spec.units(plan)
        assert spec.time_limit(longer) > 2 * (spec.time_limit(plan) - 1800)
    assert INVERT.time_limit(larger) - 1800 == 4 * (INVERT.time_limit(plan) - 1800)


@pytest.mark.parametrize("cuts", [(), (3,), (1, 4, 6)])
def test_each_shot_ends_with_its_last_frame(plan: EditPlan, cuts: tuple[int, ...]) -> None:
    cut = changed(plan, clip=replace(plan.clip, cuts=cuts))
    starts = {first for first, last in cut.intervals if first != last}
    followed = {last for _, last in cut.intervals if last in starts}
    assert {shot.frames[-1] for shot in cut.shots} == {last for _, last in cut.intervals} - followed
