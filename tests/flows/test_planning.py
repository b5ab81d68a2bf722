"""An edit is planned once, and its source is read as rarely as can be."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import fsspec
import pytest

import storage.digest
import tasks.planning.prepare
from flows.cli import main
from flows.planning import plan_edit_request, planned, planned_edit
from flows.settings import WaveSettings
from storage.errors import WorkspaceError
from storage.workspace import Workspace
from tasks.planning.input_video import kept_downloads, local_video
from tasks.planning.request import edit_request

ROOT = Path(__file__).parents[2]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, clip: Path) -> Counter[str]:
    """Count plans, hashes of the clip, downloads, and proofs that the workspace can be written."""
    counts: Counter[str] = Counter()
    prepare, digest_bytes = tasks.planning.prepare.plan_edit, storage.digest.hashlib.file_digest

    def plan(*arguments: Any) -> Any:
        counts["plans"] += 1
        return prepare(*arguments)

    def digest(file: Any, kind: str) -> Any:
        counts["hashes"] += Path(file.name).name == clip.name
        return digest_bytes(file, kind)

    check = Workspace.check_writable

    def probe(self: Workspace) -> None:
        counts["probes"] += 1
        check(self)

    monkeypatch.setattr(Workspace, "check_writable", probe)
    filesystem = type(fsspec.filesystem("memory"))
    fetch = filesystem.get_file

    def get_file(self: Any, remote: str, *arguments: Any, **options: Any) -> Any:
        counts["downloads"] += remote.endswith(clip.name)
        return fetch(self, remote, *arguments, **options)

    monkeypatch.setattr(tasks.planning.prepare, "plan_edit", plan)
    monkeypatch.setattr(storage.digest.hashlib, "file_digest", digest)
    monkeypatch.setattr(filesystem, "get_file", get_file)
    return counts


def wave(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    for name in [name for name in os.environ if name.startswith("WAVE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "argv", ["wave", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize("place", ["folder", "url"])
def test_the_command_plans_once_and_hashes_or_fetches_the_clip_once(
    place: str,
    server: str,
    clip: Path,
    sd15: Path,
    tmp_path: Path,
    calls: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    video = str(tmp_path / clip.name)
    Path(video).write_bytes(clip.read_bytes())
    if place == "url":
        video = f"memory://{tmp_path.name}/{clip.name}"
        fsspec.filesystem("memory").pipe_file(video, clip.read_bytes())
    monkeypatch.setattr("flows.cli.server.find_server", lambda: server)
    options = ("--prompt", "a star", "--model", sd15, "--steps", 1, "--workspace", tmp_path / "workspace")
    assert wave(monkeypatch, "edit", video, *options) == 0
    # Before anything runs, after decoding, and with what decoding found, for the notes of the report
    assert calls == Counter(plans=3, hashes=1, probes=1, downloads=int(place == "url"))


def test_downloads_are_kept_as_long_as_the_outermost_context(clip: Path, tmp_path: Path) -> None:
    url = f"memory://{tmp_path.name}/{clip.name}"
    fsspec.filesystem("memory").pipe_file(url, clip.read_bytes())
    with kept_downloads():
        with local_video(url) as first:
            pass
        with kept_downloads(), local_video(url) as second:
            assert second == first
        assert first.read_bytes() == clip.read_bytes()
    assert not first.exists()
    with local_video(url) as third:
        assert third.exists()
    assert not third.exists()


def test_a_workspace_that_cannot_be_written_is_refused_before_a_flow_starts(
    clip: Path, sd15: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Workspace) -> None:
        raise WorkspaceError(self.url)

    monkeypatch.setattr(Workspace, "check_writable", refuse)
    monkeypatch.setattr("flows.cli.edit.connect", lambda **_: pytest.fail("no server must be looked for"))
    options = ("--prompt", "a star", "--model", sd15, "--workspace", tmp_path / "workspace")
    assert wave(monkeypatch, "edit", clip, *options) == 1


def test_a_flow_that_is_handed_no_plan_checks_the_workspace_itself(
    clip: Path, sd15: Path, tmp_path: Path, calls: Counter[str]
) -> None:
    request = edit_request(video=str(clip), prompt="a star", model=str(sd15))
    settings = WaveSettings(workspace=str(tmp_path / "workspace"))
    with planned(plan_edit_request(request, settings)):
        planned_edit(request, settings)
    assert calls["probes"] == 0
    planned_edit(request, settings)
    assert calls["probes"] == 1


def test_plans_are_made_without_prefect_which_is_configured_only_before_its_first_import() -> None:
    program = "import sys, flows.planning, flows.cli.dataset, flows.cli.edit; print('prefect.main' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
