"""All stages on a tiny checkpoint of Stable Diffusion 1.5's structure, without Prefect."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from storage.artifact import Artifact
from storage.digest import digest_file
from storage.errors import WorkspaceError
from storage.inventory import take_inventory
from storage.video import probe, read_frames, source_tags, write_video
from storage.workspace import Workspace
from tasks.artifacts import CONTACT_SHEET, EDITED, REPORT, SIDE_BY_SIDE, edited_name, stream_flow, stream_shots
from tasks.decode import decode_clip
from tasks.edit import edit_keyframes
from tasks.errors import TaskInputError
from tasks.flow import estimate_frame_flow, estimate_keyframe_flow
from tasks.invert import invert_keyframes
from tasks.planning.plan import EditPlan, Execution, plan_edit
from tasks.planning.prepare import is_complete
from tasks.planning.request import EditRequest, edit_request
from tasks.planning.stages import (
    ASSESS,
    DECODE,
    EDIT,
    ENCODE,
    FRAME_FLOW,
    INVERT,
    KEYFRAME_FLOW,
    PROPAGATE,
    STAGES,
    StageSettings,
    StageSpec,
)
from tasks.progress import listening
from tasks.propagate import finish_propagation
from tests._checkpoints import save_sd21
from tests._clips import save_clip
from tests._stages import artifact_of, contents, make_plan, run_propagation, run_stages, run_until_edited
from wave_ops.guided_upsampling import upsample_edit
from wave_ops.masks import warp_mask
from wave_ops.resize import resize_frames, to_images
from wave_ops.scenes.rendering import cut, render
from wave_ops.scenes.specs import random_scene
from wave_ops.warp import resize_flow


@pytest.fixture(scope="module", autouse=True)
def small_shards() -> Iterator[None]:
    """Store two frames or pairs, and one step, in each shard, so that a short clip has several."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("tasks.artifacts.SHARD_ROWS", "tasks.planning.batches.SHARD_ROWS", "tasks.flow.SHARD_ROWS"):
            patch.setattr(name, 1 if "flow" in name else 2)
        patch.setattr("tasks.artifacts.SHARD_LATENTS", 1)
        yield


@pytest.fixture(scope="module")
def request_(clip: Path, sd15: Path) -> EditRequest:
    return edit_request(
        video=str(clip), prompt="a blue star", source_prompt="a red star", model=str(sd15), steps=3, keyframe_interval=3
    )


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture(scope="module")
def plan(request_: EditRequest, workspace: Path) -> EditPlan:
    return run_stages(make_plan(request_, workspace))


def test_the_edited_video_has_the_sources_size_count_and_timestamps(plan: EditPlan, clip: Path) -> None:
    with artifact_of(plan, ENCODE).local_copy(EDITED) as path:
        assert (probe(path).width, probe(path).height) == (probe(clip).width, probe(clip).height)
        edited, source = ([pts * probe(file).time_base for pts, _ in read_frames(file)] for file in (path, clip))
    assert edited == source
    assert probe(clip).duration == pytest.approx(8 / 12)


def test_decoded_frames_are_the_files_own(plan: EditPlan, clip: Path) -> None:
    stored = artifact_of(plan, DECODE).read_region("frames")
    assert np.array_equal(stored, np.stack([frame for _, frame in read_frames(clip)]))


def test_every_step_is_stored_and_the_edit_begins_where_the_inversion_ends(plan: EditPlan) -> None:
    inversion, edit = (artifact_of(plan, stage).read_region("latents") for stage in (INVERT, EDIT))
    assert inversion.shape == edit.shape == (4, 3, 4, 8, 8)
    assert np.array_equal(edit[0], inversion[-1])
    orders = artifact_of(plan, INVERT).read_region("orders")
    assert np.array_equal(np.sort(orders), np.tile(np.arange(3), (3, 1)))


def test_an_edit_that_keeps_and_pastes_has_the_sources_pixels_outside_its_mask(
    request_: EditRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = torch.zeros(3, 1, 8, 8)
    mask[..., :4] = 1
    monkeypatch.setattr("tasks.edit.change_mask", lambda *_, **__: mask)
    kept = request_.model_copy(update={"set": ("editing.keep=true", "editing.paste=true")})
    plan = run_until_edited(make_plan(kept, tmp_path))
    source = artifact_of(plan, DECODE).read_region("frames")
    sources, frames = (
        resize_frames(source[list(plan.keyframes)], plan.size),
        artifact_of(plan, EDIT).read_region("frames"),
    )
    cell = plan.size[1] // 8
    assert np.array_equal(frames[:, :, 5 * cell :], sources[:, :, 5 * cell :])
    assert not np.array_equal(frames[:, :, : 3 * cell], sources[:, :, : 3 * cell])


def test_keyframes_pass_through_the_propagation_unchanged(plan: EditPlan) -> None:
    keyframes, frames = (artifact_of(plan, stage).read_region("frames") for stage in (EDIT, PROPAGATE))
    assert np.array_equal(frames[list(plan.keyframes)], keyframes)
    assert len(frames) == plan.clip.frame_count


def test_the_report_contains_the_request_the_scores_and_the_cost_of_each_stage(plan: EditPlan) -> None:
    artifact = artifact_of(plan, ASSESS)
    report = artifact.read_json(REPORT)
    assert report["request"]["prompt"] == "a blue star"
    assert set(report["stages"]) == {stage.name for stage in plan.stages} - {"assess"}
    assert report["scores"]["warp_error_edited"] > 0
    assert artifact.read_bytes(CONTACT_SHEET).startswith(b"\x89PNG")
    with artifact.local_copy(SIDE_BY_SIDE) as path:
        assert probe(path).frame_count == plan.clip.frame_count


def test_the_report_of_an_ordinary_clip_has_no_notes(plan: EditPlan) -> None:
    assert artifact_of(plan, ASSESS).read_json(REPORT)["notes"] == []


def test_a_part_of_a_clip_is_edited_next_to_the_whole(
    plan: EditPlan, request_: EditRequest, workspace: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(workspace, tmp_path / "copy"))
    changes = {"start": 2 / 12, "frames": "4", "steps": 1}
    part = run_stages(make_plan(request_.model_copy(update=changes), copy))
    stored = artifact_of(part, DECODE).read_region("frames")
    assert np.array_equal(stored, artifact_of(plan, DECODE).read_region("frames")[2:6])
    with artifact_of(part, ENCODE).local_copy(EDITED) as path:
        times = [float(time * probe(path).time_base) for time, _ in read_frames(path)]
    assert times == pytest.approx([0, 1 / 12, 3 / 12, 4 / 12])  # the fourth of the clip is shown for twice as long
    assert artifact_of(part, ASSESS).read_json(REPORT)["notes"] == [
        "Only the part from 0.167 s to 0.583 s is kept, as asked: 4 frames."
    ]
    assert is_complete(make_plan(request_, copy), DECODE)
    kinds = {item.kind for item in take_inventory(Workspace.open(copy)).artifacts if "excerpts" in item.path}
    assert kinds == {"source"}


@pytest.mark.parametrize(
    ("choices", "name", "notes"),
    [
        ({"format": "webm"}, "edited.webm", []),
        ({"like_source": True, "format": "mov", "crf": 30}, "edited.mov", []),
        ({"like_source": True, "format": "webm"}, "edited.webm", ["The codec could not be kept: the output's format"]),
        ({"format": "png"}, "edited.zip", ["The pictures have no times"]),
    ],
)
def test_other_formats_are_encoded_next_to_the_plain_result(
    choices: dict[str, Any],
    name: str,
    notes: list[str],
    plan: EditPlan,
    request_: EditRequest,
    workspace: Path,
    tmp_path: Path,
) -> None:
    copy = Path(shutil.copytree(workspace, tmp_path / "copy"))
    other = run_stages(make_plan(request_.model_copy(update=choices), copy))
    assert edited_name(artifact_of(other, ENCODE)) == name
    found = artifact_of(other, ASSESS).read_json(REPORT)
    assert found["video"].endswith(f"/{name}")
    assert [note[: len(start)] for note, start in zip(found["notes"], notes, strict=True)] == notes
    for spec in (ENCODE, ASSESS):
        assert is_complete(make_plan(request_, copy), spec)
    kinds = {item.path: item.kind for item in take_inventory(Workspace.open(copy)).artifacts}
    assert (kinds[other[ENCODE].ref.path], kinds[other[ASSESS].ref.path]) == ("video", "report")


def test_title_and_time_of_the_source_are_kept_and_its_other_tags_noted(tmp_path: Path, request_: EditRequest) -> None:
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        container.metadata.update(title="Rain", creation_time="2019-05-04T03:02:01Z", artist="A person")
        stream: Any = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv444p"
        for image in render(random_scene(3, size=(48, 64), frame_count=2)).frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    changes = {"video": str(path), "steps": 1}
    plan = run_stages(make_plan(request_.model_copy(update=changes), tmp_path / "workspace"))
    with artifact_of(plan, ENCODE).local_copy(EDITED) as edited:
        tags = source_tags(edited)
        with av.open(str(edited)) as container:
            comment = container.metadata["comment"]
    assert (tags.title, tags.creation_time[:19]) == ("Rain", "2019-05-04T03:02:01")
    assert f"model {plan.inputs.model.digest}, prompt sha256:{sha256(b'a blue star').hexdigest()}" in comment
    assert artifact_of(plan, ASSESS).read_json(REPORT)["notes"] == [
        "Metadata other than title and creation time is not kept: artist."
    ]


def test_what_reading_and_writing_lose_is_noted_in_the_report(tmp_path: Path, request_: EditRequest) -> None:
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 63, 48, "yuv444p10le"
        for image in render(random_scene(3, size=(48, 63), frame_count=3)).frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    changes = {"video": str(path), "steps": 1}
    plan = run_stages(make_plan(request_.model_copy(update=changes), tmp_path / "workspace"))
    assert artifact_of(plan, ASSESS).read_json(REPORT)["notes"] == [
        "Colours of 10 bits became 8 bits.",
        "The size 63x48 is odd, so the video is 64x48: its last row or column is repeated.",
    ]


def test_a_second_run_writes_nothing(plan: EditPlan, workspace: Path, request_: EditRequest) -> None:
    before = {path: path.stat().st_mtime_ns for path in (workspace / "clips").rglob("*")}
    run_stages(make_plan(request_, workspace))
    assert {path: path.stat().st_mtime_ns for path in (workspace / "clips").rglob("*")} == before


class Crash(Exception):
    """What a kill looks like from inside."""


@pytest.mark.parametrize(
    ("stage", "writes"),
    [
        (DECODE, 3),
        (KEYFRAME_FLOW, 4),
        (FRAME_FLOW, 4),
        (INVERT, 2),
        (EDIT, 2),
        (PROPAGATE, 1),
    ],
)
def test_a_run_killed_in_a_stage_goes_on_from_there_with_the_same_bytes(
    plan: EditPlan,
    workspace: Path,
    request_: EditRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: StageSpec[StageSettings],
    writes: int,
) -> None:
    written: list[tuple[str, str, int]] = []
    crash_at: tuple[str, int] | None = (plan[stage].ref.path, writes)

    original = Artifact.write_region

    def write_region(self: Artifact, name: str, start: int, values: Any) -> None:
        if crash_at == (self.path, sum(path == self.path for path, _, _ in written)):
            raise Crash
        written.append((self.path, name, start))
        original(self, name, start, values)

    monkeypatch.setattr(Artifact, "write_region", write_region)
    with pytest.raises(Crash):
        run_stages(make_plan(request_, tmp_path))
    before, crash_at = list(written), None
    written.clear()
    if stage is INVERT:  # the keyframes' own latents are stored
        monkeypatch.setattr("tasks.invert.encoded_frames", _crash)
    run_stages(make_plan(request_, tmp_path))
    assert contents(tmp_path) == contents(workspace)
    if stage is not DECODE:  # a file is decoded again; nothing else is written twice
        assert not set(before) & set(written)


def test_a_second_prompt_shares_decoding_flow_and_inversion(
    plan: EditPlan, workspace: Path, request_: EditRequest
) -> None:
    second = make_plan(request_.model_copy(update={"prompt": "a green ring"}), workspace)
    done = [spec.name for spec in STAGES if is_complete(second, spec)]
    assert done == ["decode", "frame_flow", "keyframe_flow", "invert"]


def test_frames_that_are_missing_are_not_completed(request_: EditRequest, tmp_path: Path) -> None:
    plan = make_plan(request_, tmp_path)
    with pytest.raises(WorkspaceError, match="run the edit again"):
        finish_propagation.run(plan)


def test_a_clip_that_changed_since_it_was_planned_is_refused(request_: EditRequest, tmp_path: Path) -> None:
    path = save_clip(tmp_path / "clip.mp4")
    plan = make_plan(request_.model_copy(update={"video": str(path)}), tmp_path / "workspace")
    save_clip(path, seed=4)
    with pytest.raises(TaskInputError, match="changed after"):
        decode_clip.run(plan)


@pytest.mark.parametrize("frames", [1, 2])
def test_the_shortest_clips_are_edited_with_a_model_of_the_other_family(
    tmp_path: Path, request_: EditRequest, frames: int
) -> None:
    path = save_clip(tmp_path / "short.mp4", frames=frames)
    changes = {"video": str(path), "model": str(save_sd21(tmp_path / "sd21")), "steps": 2}
    plan = run_stages(make_plan(request_.model_copy(update=changes), tmp_path / "workspace"))
    assert len(plan.keyframes) == frames
    with artifact_of(plan, ENCODE).local_copy(EDITED) as video:
        assert probe(video).frame_count == frames


def test_a_cut_is_not_bridged(tmp_path: Path, request_: EditRequest) -> None:
    scene = cut(*(random_scene(seed, size=(48, 64), frame_count=4) for seed in (3, 8)))
    path = tmp_path / "cut.mp4"
    write_video(path, scene.frames, timestamps=range(8), time_base=Fraction(1, 12))
    changes = {"video": str(path), "steps": 1, "controlnet": ("auto",)}
    plan = run_stages(make_plan(request_.model_copy(update=changes), tmp_path / "workspace"))
    assert plan.intervals == ((0, 3), (4, 7))
    for shot in plan.shots:
        flow = artifact_of(shot, FRAME_FLOW).read_region("to_prev")
        assert len(flow) == 3
        assert flow.any(axis=(1, 2, 3)).all()
    assert [flows is None for flows in stream_flow(plan)] == [False] * 3 + [True] + [False] * 3


def test_a_shot_of_a_clip_gives_the_frames_that_it_gives_alone(tmp_path: Path, request_: EditRequest) -> None:
    scenes = [render(random_scene(seed, size=(48, 64), frame_count=count)) for seed, count in ((3, 5), (8, 1), (5, 4))]
    path = tmp_path / "clip.mp4"
    frames = np.concatenate([scene.frames for scene in scenes])
    write_video(path, frames, timestamps=range(10), time_base=Fraction(1, 12))
    changes = {"video": str(path), "steps": 2, "controlnet": ("auto",)}
    plan = run_stages(make_plan(request_.model_copy(update=changes), tmp_path / "together"))
    assert plan.clip.cuts == (5, 6)
    report = artifact_of(plan, ASSESS).read_json(REPORT)
    assert [len(report["stages"][name]["digest"]) for name in ("invert", "propagate")] == [3, 3]
    with artifact_of(plan, ENCODE).local_copy(EDITED) as video:
        assert probe(video).frame_count == 10
    edited = np.stack(list(stream_shots(plan, PROPAGATE, plan.frames)))
    decoded = artifact_of(plan, DECODE).read_region("frames")
    for shot in plan.shots:
        frames = decoded[shot.frames.start : shot.frames.stop]
        alone = _clip_of(plan, frames, tmp_path / f"alone_{shot.frames.start}")
        for stage in (estimate_frame_flow, estimate_keyframe_flow, invert_keyframes, edit_keyframes):
            stage.run(alone)
        run_propagation(alone)
        own = artifact_of(alone, PROPAGATE).read_region("frames")
        assert np.array_equal(edited[shot.frames.start : shot.frames.stop], own)


def _clip_of(plan: EditPlan, frames: NDArray[np.uint8], workspace: Path) -> EditPlan:
    """Plan the edit of a clip of these frames, and store them as its decoded ones."""
    clip = replace(plan.clip, digest="alone", frame_count=len(frames), cuts=())
    execution = Execution(workspace=Workspace.open(str(workspace)).url)
    alone = plan_edit(replace(plan.inputs, clip=clip, execution=execution))
    artifact = artifact_of(alone, DECODE)
    artifact.require_array("frames", shape=frames.shape, chunks=(1, *frames.shape[1:]), dtype="uint8")
    artifact.write_region("frames", 0, frames)
    artifact.complete()
    return alone


def test_an_interval_is_propagated_with_its_own_frames_keyframes_and_flow(
    request_: EditRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[tuple[Any, dict[str, Any]]] = []
    monkeypatch.setattr("tasks.propagate.propagate_interval", lambda source, **given: _record(found, source, given))
    plan = run_until_edited(make_plan(request_, tmp_path))
    run_propagation(plan)
    source, keyframes = (artifact_of(plan, stage).read_region("frames") for stage in (DECODE, EDIT))
    flow = artifact_of(plan, FRAME_FLOW)
    assert len(found) == len(plan.intervals) > 1
    for (first, last), (frames, given) in zip(plan.intervals, found, strict=True):
        assert np.array_equal(frames, resize_frames(source[first : last + 1], plan.size))
        for name, frame in (("first", first), ("last", last)):
            assert np.array_equal(given[name], keyframes[plan.keyframes.index(frame)])
        for name in ("to_prev", "to_cur"):
            stored = torch.from_numpy(flow.read_region(name, first, last)).float()
            assert np.array_equal(given[f"flows_{name}"], resize_flow(stored, plan.size).numpy())


def _record(found: list[tuple[Any, dict[str, Any]]], source: Any, given: dict[str, Any]) -> Any:
    found.append((source, given))
    return source


@pytest.fixture(scope="module")
def full_workspace(plan: EditPlan, workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the workspace: what is made at full resolution must not be added to the one that others compare."""
    return Path(shutil.copytree(workspace, tmp_path_factory.mktemp("full") / "workspace"))


@pytest.fixture(scope="module")
def full(request_: EditRequest, full_workspace: Path) -> EditPlan:
    return run_stages(make_plan(request_.model_copy(update={"full_resolution": True}), full_workspace))


def test_at_full_resolution_the_sources_frames_guide_the_edit_to_their_size(
    plan: EditPlan, full: EditPlan, full_workspace: Path
) -> None:
    source, edited = (artifact_of(full, stage).read_region("frames") for stage in (DECODE, PROPAGATE))
    with artifact_of(full, ENCODE).local_copy(EDITED) as path:
        shown = np.stack([frame for _, frame in read_frames(path)])
    guided = np.stack([upsample_edit(*pair) for pair in zip(source, edited, strict=True)])
    assert np.abs(shown.astype(int) - guided).mean() < 8  # the rest is the codec's
    reports = [artifact_of(each, ASSESS).read_json(REPORT) for each in (plan, full)]
    assert [report["full_resolution"] for report in reports] == [False, True]
    assert reports[0]["scores"] == reports[1]["scores"]  # measured at the working size
    plain = make_plan(plan.request, full_workspace)
    assert is_complete(plain, ENCODE)
    assert is_complete(plain, ASSESS)


def test_an_encoding_that_was_killed_leaves_no_video_and_goes_on_to_the_same_one(
    full: EditPlan, full_workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(full_workspace, tmp_path / "copy"))
    again = make_plan(full.request, copy)
    shutil.rmtree(copy / again[ENCODE].ref.path)
    with monkeypatch.context() as patch:
        patch.setattr("tasks.encode.upsample_edit", _crash)
        with pytest.raises(Crash):
            run_stages(again)
    assert not list((copy / again[ENCODE].ref.path).rglob(EDITED))
    run_stages(again)
    assert contents(copy) == contents(full_workspace)


def _crash(*_: Any, **__: Any) -> None:
    raise Crash


def test_frames_are_edited_at_the_working_size_and_shown_at_the_sources(plan: EditPlan) -> None:
    frames = artifact_of(plan, PROPAGATE).read_region("frames")
    with artifact_of(plan, ENCODE).local_copy(EDITED) as path:
        shown = np.stack([frame for _, frame in read_frames(path)])
    difference = np.abs(shown.astype(int) - resize_frames(frames, plan.clip.size))
    assert difference.mean() < 8  # the rest is the codec's
    assert digest_file(plan.request.video) == plan.clip.digest


def test_the_parts_of_a_propagation_count_every_frame_once(tmp_path: Path, request_: EditRequest) -> None:
    ends: dict[str, tuple[int, int]] = {}
    plan = make_plan(request_, tmp_path)
    with listening(
        lambda stage, part, done, total: ends.update({part: (done, total)}) if stage == "propagate" else None
    ):
        run_stages(plan)
    assert len(ends) > 1
    assert all(done == total for done, total in ends.values())
    assert sum(total for _, total in ends.values()) == len(plan.frames)


def test_no_two_intervals_write_the_same_frame(
    request_: EditRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    original = Artifact.write_region

    def write_region(self: Artifact, name: str, start: int, values: Any) -> None:
        if self.path.startswith("clips/") and "/edits/" in self.path:
            rows.extend(range(start, start + len(values)))
        original(self, name, start, values)

    monkeypatch.setattr(Artifact, "write_region", write_region)
    plan = run_stages(make_plan(request_, tmp_path))
    assert len(plan.intervals) > 1
    assert sorted(rows) == list(range(plan.clip.frame_count))


def test_both_masks_of_a_keyframe_pair_are_those_of_its_two_frames(plan: EditPlan) -> None:
    flow, source = artifact_of(plan, KEYFRAME_FLOW), artifact_of(plan, DECODE)
    names = ("to_prev", "to_cur", "mask_cur", "mask_prev")
    stored = dict(zip(names, (torch.from_numpy(flow.read_region(name)) for name in names), strict=True))
    to_prev, to_cur = (stored[name].float() for name in ("to_prev", "to_cur"))
    images = to_images(source.read_region("frames")[list(plan.keyframes)])
    for i, (first, second) in enumerate(plan.pairs):
        pair = (images[first][None], images[second][None])
        # Stored flow is rounded to half precision, which moves a few pixels across a threshold
        masks = (
            warp_mask(*pair, to_prev[i][None], to_cur[i][None]),
            warp_mask(*pair[::-1], to_cur[i][None], to_prev[i][None]),
        )
        for name, mask in zip(names[2:], masks, strict=True):
            assert (mask[0] == stored[name][i]).float().mean() > 0.98
    assert (stored["mask_cur"] != stored["mask_prev"]).float().mean() > 0.02


def test_the_report_measures_the_edit_against_the_source(plan: EditPlan) -> None:
    scores = artifact_of(plan, ASSESS).read_json(REPORT)["scores"]
    source = resize_frames(artifact_of(plan, DECODE).read_region("frames"), plan.size).astype(float)
    edited = artifact_of(plan, PROPAGATE).read_region("frames").astype(float)
    errors = ((source - edited) ** 2).mean(axis=(1, 2, 3))
    assert scores["psnr_to_source_db"] == pytest.approx(np.mean(10 * np.log10(255**2 / errors)), abs=1e-3)
    assert scores["warp_error_source"] != scores["warp_error_edited"]
