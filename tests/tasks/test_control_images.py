from __future__ import annotations

import errno
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from storage.errors import WorkspaceError
from storage.video import read_frames, write_video
from tasks import control_images
from tasks.control_images import edit_controls
from tasks.decode import decode_clip
from tasks.errors import TaskInputError
from tasks.planning.plan import EditPlan
from tasks.planning.prepare import replan
from tasks.planning.request import edit_request
from tasks.planning.stages import EDIT, INVERT
from tasks.provenance import provenance
from tests._clips import save_clip
from tests._stages import artifact_of, make_plan, run_until_edited
from wave_ops.edges import canny_edges
from wave_ops.resize import resize_frames, to_images


@pytest.fixture
def depth(clip: Path, tmp_path: Path) -> Path:
    """A control video of the clip's length and of another size."""
    path = tmp_path / "depth.mp4"
    frames = np.stack([frame[:, ::-1] for _, frame in read_frames(clip)])
    write_video(path, resize_frames(frames, (96, 128)), timestamps=range(len(frames)), time_base=Fraction(1, 12))
    return path


def controlled(clip: Path, sd15: Path, tmp_path: Path, *, depth: Path, **fields: Any) -> EditPlan:
    network = tmp_path / "control_depth"
    if not network.exists():
        shutil.copytree(sd15 / "controlnet", network)
    controlnet = ("auto:0.2", f"depth={network}:0.7:0-0.5")
    options = {"controlnet": controlnet, "control": (f"depth={depth}",)} | fields
    request = edit_request(
        video=str(clip), prompt="a blue star", model=str(sd15), steps=2, keyframe_interval=3, **options
    )
    return make_plan(request, tmp_path / "workspace")


def test_each_controlnet_gets_the_keyframes_of_its_own_input(
    clip: Path, sd15: Path, tmp_path: Path, depth: Path
) -> None:
    plan = controlled(clip, sd15, tmp_path, depth=depth)
    decode_clip.run(plan)
    plan = replan(plan)
    size, keyframes = plan.size, list(plan.keyframes)
    source, other = (
        resize_frames(np.stack([frame for _, frame in read_frames(path)])[keyframes], size) for path in (clip, depth)
    )
    order = [2, 0, 1]
    with edit_controls(plan) as (edges, depths):
        assert [len(edges.images), len(depths.images)] == [3, 3]
        assert torch.equal(edges.images[order], canny_edges(source)[order])
        assert torch.equal(depths.images[order], to_images(other)[order])
    assert (edges.weight, edges.start, edges.stop) == (0.2, 0.0, 1.0)
    assert (depths.weight, depths.start, depths.stop) == (0.7, 0.0, 0.5)


def test_a_control_video_changes_the_edit_and_its_identity_but_not_the_inversions(
    clip: Path, sd15: Path, tmp_path: Path, depth: Path
) -> None:
    plan = run_until_edited(controlled(clip, sd15, tmp_path, depth=depth))
    plain = run_until_edited(controlled(clip, sd15, tmp_path, depth=depth, controlnet="auto:0.2", control=()))
    assert plan[INVERT].ref == plain[INVERT].ref
    assert plan[EDIT].ref != plain[EDIT].ref
    found, without = (artifact_of(each, EDIT).read_region("latents")[-1] for each in (plan, plain))
    assert not np.allclose(found, without, atol=1e-3)
    networks = provenance(plan)["controlnet"]["networks"]
    assert [network["kind"] for network in networks] == ["canny", "depth"]
    assert networks[1]["steps"] == [0.0, 0.5]


def test_a_control_video_of_another_length_or_that_changed_is_refused(
    clip: Path, sd15: Path, tmp_path: Path, depth: Path
) -> None:
    with pytest.raises(TaskInputError, match=r"for depth has 5 frames, and the clip clip\.mp4 has 7"):
        controlled(clip, sd15, tmp_path, depth=save_clip(tmp_path / "short.mp4", frames=5))
    plan = controlled(clip, sd15, tmp_path, depth=depth)
    save_clip(depth, seed=5)
    decode_clip.run(plan)
    with pytest.raises(TaskInputError, match=r"control video depth\.mp4 changed"), edit_controls(plan):
        pass


@pytest.mark.parametrize("kept", [0, 2**20])
def test_images_are_the_same_in_memory_and_in_a_file_which_ends_with_the_edit(
    clip: Path, sd15: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    monkeypatch.setattr(control_images, "_IN_MEMORY", kept)
    plan = controlled(clip, sd15, tmp_path, depth=clip)
    decode_clip.run(plan)
    source = np.stack([frame for _, frame in read_frames(clip)])[list(plan.keyframes)]
    with edit_controls(plan) as (edges, depths):
        for index in (2, 0, 1):
            frame = resize_frames(source[[index]], plan.size)
            assert torch.equal(edges.images[[index]], canny_edges(frame))
            assert torch.equal(depths.images[[index]], to_images(frame))
    with pytest.raises(ValueError, match="closed"):
        edges.images[[0]]


def test_a_full_disk_of_temporary_files_is_named(
    clip: Path, sd15: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = controlled(clip, sd15, tmp_path, depth=clip)
    decode_clip.run(plan)

    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(control_images._Images, "append", fail)
    with pytest.raises(WorkspaceError, match=r"disk of temporary files, .* is full; make room.*TMPDIR"):
        edit_controls(plan).__enter__()
