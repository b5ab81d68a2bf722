from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.filesize import decimal

from storage.artifact import Artifact
from storage.errors import WorkspaceError
from storage.workspace import open_artifact
from tasks.decode import decode_clip
from tasks.failures import error_kind
from tasks.full_disk import named_full_disk
from tasks.planning.request import EditRequest
from tasks.planning.stages import DECODE, ENCODE, STAGES
from tests._plans import planned
from tests._stages import make_plan


def test_a_full_disk_names_the_workspace_what_is_free_and_what_is_needed(
    clip: Path, sd15: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(EditRequest(video=str(clip), prompt="a star", model=str(sd15)), tmp_path / "workspace")

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Artifact, "write_region", fail)
    monkeypatch.setattr("storage.free_disk.shutil.disk_usage", lambda _: SimpleNamespace(free=12_300_000))
    with pytest.raises(WorkspaceError) as caught:
        decode_clip.run(plan)
    said = str(caught.value)
    for words in (
        "disk is full while decode of clip.mp4",
        str(tmp_path / "workspace"),
        "12.3 MB are free",
        "needs up to",
    ):
        assert words in said
    assert error_kind(caught.value) == "disk full"
    assert not open_artifact(plan[DECODE].ref).is_complete()


def test_what_is_left_is_the_stage_that_failed_and_those_after_it() -> None:
    plan = planned(frame_count=40)
    for spec, needed in ((DECODE, STAGES), (ENCODE, STAGES[STAGES.index(ENCODE) :])):
        with pytest.raises(WorkspaceError) as caught, named_full_disk(plan, spec):
            raise OSError(errno.EDQUOT, "quota exceeded")
        assert f"needs up to {decimal(sum(each.load(plan).array_bytes for each in needed))};" in str(caught.value)


def test_other_errors_of_the_operating_system_stay_as_they_are() -> None:
    with pytest.raises(OSError, match="stale"), named_full_disk(planned(), DECODE):
        raise OSError(errno.ESTALE, "stale handle")
