"""Errors of files, of the machine and of other programs that become one sentence, or that a run goes on after."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from storage.reference import ArtifactRef
from storage.workspace import Workspace
from tasks import progress, record
from tasks.delivery import Sample, write_webdataset
from tasks.errors import TaskInputError
from tasks.evaluation.bench import _contact_sheets, _pairs, _processes
from tasks.evaluation.report import page, publish
from tasks.evaluation.request import evaluation_request
from tasks.models import devices, hub, safe_precision, weights_digest
from tasks.planning import bulk, clip_listing, source_facts
from tasks.planning.clip_listing import list_clips
from tasks.planning.folder_manifest import folder_columns, probed_columns
from tasks.processes import end_process
from tasks.services import postgres
from tasks.version import wave_version
from wave_ops.errors import NonFiniteError


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.fixture
def blocked(tmp_path: Path) -> Path:
    """Return a path below a file, where nothing can be written."""
    (tmp_path / "file").touch()
    return tmp_path / "file" / "below"


# --- outputs -------------------------------------------------------------------------------------------------------


def test_tar_files_that_cannot_be_written_are_named(blocked: Path) -> None:
    ref = ArtifactRef(workspace="w", path="p", digest="d")
    with pytest.raises(TaskInputError, match=r"below cannot be written"):
        write_webdataset(str(blocked), [Sample(stem="a", video=ref, values={}, record=lambda _: b"")])


def test_a_contact_sheet_that_cannot_be_written_is_named(blocked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = np.zeros((3, 8, 8, 3), np.uint8)
    for name, value in {
        "paint_candidates": [],
        "fuse_candidates": frames,
        "_rows": {},
        "contact_sheet": frames[0],
    }.items():
        monkeypatch.setattr(_contact_sheets, name, lambda *_, value=value, **__: value)
    interval: Any = SimpleNamespace(frames=frames, first=frames[0], last=frames[0], to_prev=None, to_cur=None)
    with pytest.raises(TaskInputError, match=r"The contact sheet .*below cannot be written"):
        list(_contact_sheets.draw_contact_sheet(lambda: (interval, frames), name="a", path=blocked))


def test_results_that_cannot_be_written_stay_in_the_workspace(blocked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("collect_results", "result_records"):
        monkeypatch.setattr(publish, name, lambda *_: [])
    for name in ("table_markdown", "report_html"):
        monkeypatch.setattr(publish, name, lambda *_: "")
    monkeypatch.setattr(publish, "metrics_parquet", lambda *_: b"")
    with pytest.raises(TaskInputError, match="the outcomes stay in the workspace"):
        publish.write_results(None, blocked)  # type: ignore[arg-type]


# --- inputs --------------------------------------------------------------------------------------------------------


def test_pairs_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "flow.npz").write_bytes(b"PK, but no zip")
    (tmp_path / "image.png").write_bytes(b"no image")
    (tmp_path / "ebsynth.json").write_text("[]")
    with pytest.raises(TaskInputError, match=r"flow\.npz cannot be read as a flow"):
        _pairs._read_flow(tmp_path / "flow.npz", (2, 2))
    with pytest.raises(TaskInputError, match=r"image\.png cannot be read as an image"):
        _pairs._read_image(tmp_path / "image.png")
    with pytest.raises(TaskInputError, match=r"ebsynth\.json needs the numbers"):
        _pairs._read_ebsynth(tmp_path, (2, 2))


def test_a_wrong_field_of_an_evaluation_is_refused() -> None:
    with pytest.raises(TaskInputError, match=r"clips cannot be 0.*\(--clips\)"):
        evaluation_request(comparison="flow", clips=0)


def test_a_glob_or_a_url_that_cannot_be_used_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TaskInputError, match="cannot be used"):
        list_clips(f"{tmp_path}/a**b/*.mp4")
    monkeypatch.setattr(clip_listing, "open_filesystem", raising(ImportError("install a driver")))
    with pytest.raises(TaskInputError, match=r"https://example\.org/\*\.mp4 cannot be opened: install a driver"):
        list_clips("https://example.org/*.mp4")
    away = SimpleNamespace(invalidate_cache=lambda: None, find=raising(OSError("no answer")))
    monkeypatch.setattr(clip_listing, "open_filesystem", lambda _: (away, "clips"))
    with pytest.raises(TaskInputError, match="cannot be listed: no answer"):
        list_clips("https://example.org/*.mp4")


def test_a_folder_with_a_video_that_cannot_be_read_or_a_prompt_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(TaskInputError, match=r"The prompt '\{nothing\}' cannot be used: there is no column"):
        folder_columns(str(tmp_path), prompt="{nothing}", start=tmp_path)
    columns, (unread,) = probed_columns(folder_columns(str(tmp_path), prompt="x", start=tmp_path), start=tmp_path)
    assert columns["id"] == ["a"]
    assert "a.mp4 is not a video that can be read" in unread


def test_a_source_that_is_gone_fails_its_rows_alone_and_what_is_remembered_of_it_is_checked(tmp_path: Path) -> None:
    workspace, gone = Workspace.open(tmp_path / "workspace"), (str(tmp_path / "gone.mp4"), None)
    found = source_facts.read_source_facts([gone], workspace, remember=True)[gone]
    assert found.clip is None
    assert "gone.mp4: No such file or directory" in found.error
    assert source_facts._load(b"{damaged", [1, 2]) is None
    assert source_facts._load(b"{}", [1, 2]) is None


def test_a_row_whose_model_cannot_be_used_has_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "_plan", raising(TaskInputError("no such model")))
    row: Any = SimpleNamespace(source="a.mp4")
    found: Any = SimpleNamespace(clip=object(), error="")
    planned = bulk._plan_row(row, found, {}, None, None, "", None)  # type: ignore[arg-type]
    assert planned.error == "no such model"


# --- the machine and other programs --------------------------------------------------------------------------------


@pytest.mark.parametrize("amd", [True, False])
def test_without_a_driver_of_nvidia_one_of_amd_is_looked_for(amd: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.sys, "platform", "linux")
    monkeypatch.setattr(devices.ctypes, "CDLL", raising(OSError()))
    monkeypatch.setattr(devices.Path, "exists", lambda path: amd and str(path) == "/dev/kfd")
    assert devices._has_driver() is amd


def refusal() -> hub.HfHubHTTPError:
    answer = httpx.Response(403, request=httpx.Request("GET", "https://example.org"))
    return hub.HfHubHTTPError("403 Forbidden\nmore", response=answer)  # type: ignore[arg-type]


def test_a_hub_that_refuses_and_an_id_that_is_none_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.HfApi, "model_info", raising(refusal()))
    with pytest.raises(TaskInputError, match="The hub refuses 'owner/name': 403 Forbidden"):
        hub.fetch_snapshot("owner/name", patterns=["*"])
    monkeypatch.setattr(hub.HfApi, "model_info", raising(hub.HFValidationError("bad")))
    with pytest.raises(TaskInputError, match="'a/b/c' is neither a folder nor a valid hub id"):
        hub.fetch_snapshot("a/b/c", patterns=["*"])


def test_what_is_not_finite_in_float32_either_names_both(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def loaded(*_: object, dtype: str, **__: object) -> Iterator[str]:
        yield dtype

    def compute(dtype: Any) -> None:
        raise NonFiniteError(f"step 3 in {dtype}")

    monkeypatch.setattr(safe_precision, "loaded_model", loaded)
    monkeypatch.setattr(safe_precision, "traced", lambda _: nullcontext())
    model: Any = SimpleNamespace(name="m")
    with pytest.raises(NonFiniteError, match="in float16 and in float32: step 3 in float32, since step 3 in float32"):
        safe_precision.compute_finite(compute, model, stage="The edit", device="cpu", dtype="float16")


def test_weights_are_digested_for_a_user_without_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"weights")
    whole = weights_digest.weights_digest(path)
    monkeypatch.setattr(weights_digest, "_LEAST_BYTES", 0)
    monkeypatch.setattr(weights_digest, "cache_folder", raising(RuntimeError("no home")))
    assert weights_digest.weights_digest(path) == whole


def test_a_program_that_does_not_end_when_asked_is_killed() -> None:
    ignoring = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(99)"
    )
    with subprocess.Popen([sys.executable, "-c", ignoring], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert end_process(process, seconds=0.1) == -9


def test_progress_is_not_shown_while_the_server_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress.TaskRunContext, "get", lambda: object())
    monkeypatch.setattr(progress, "create_progress_artifact", raising(httpx.ConnectError("away")))
    stage: Any = SimpleNamespace(name="decode", title="Decode", ref=SimpleNamespace(digest="d"))
    shown: Any = SimpleNamespace(stage=stage, _artifact=None)
    assert progress.StageProgress._publish(shown, 50.0) is None


def test_keyframes_that_cannot_be_shown_are_no_reason_to_stop(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(record, "_keyframe_sheet", raising(ZeroDivisionError("no picture")))
    plan: Any = SimpleNamespace(clip=SimpleNamespace(name="a.mp4"))
    record.preview_keyframes.fn(plan)
    assert "The keyframes of a.mp4 could not be shown: no picture" in caplog.text


def test_postgresql_needs_another_user_than_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres.os, "geteuid", lambda: 0)
    monkeypatch.setattr(postgres.pwd, "getpwnam", raising(KeyError("nobody")))
    with pytest.raises(TaskInputError, match="PostgreSQL does not run as root"):
        postgres._unprivileged(tmp_path)


def test_the_memory_of_a_process_that_ends_is_no_longer_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    watched: Any = object.__new__(_processes.WaveProcess)
    watched._process = SimpleNamespace(poll=lambda: None, pid=1)
    ended = SimpleNamespace(memory_info=raising(psutil.NoSuchProcess(1)))
    monkeypatch.setattr(_processes.psutil, "Process", lambda _: ended)
    assert list(watched.watch()) == []


def test_a_server_of_the_bench_that_ends_at_once_is_reported() -> None:
    polls = iter([None, 1])
    process: Any = SimpleNamespace(poll=lambda: next(polls))
    with pytest.raises(TaskInputError, match="did not start"):
        _processes._wait_for("http://127.0.0.1:9", process)


def test_packages_that_are_not_installed_have_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "_PACKAGES", ("no-such-package-as-this",))
    assert len(page._versions()) == 1
    monkeypatch.setattr("tasks.version.metadata.version", raising(importlib.metadata.PackageNotFoundError()))
    assert wave_version() == "(not installed)"
