"""Secrets that are planted in the environment and the settings are nowhere in what a run leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest

from flows.edit_video import edit_video
from flows.settings import WaveSettings, load_settings
from storage import objects
from storage.errors import WorkspaceError
from storage.workspace import Workspace
from tasks.errors import TaskInputError
from tasks.planning.request import EditRequest

HOOK = "https://hooks.example.org/services/planted-hook"
SECRETS = ("planted-hook", "PLANTEDKEY", "planted-key", "planted-password")


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAVE_WEBHOOK", HOOK)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "PLANTEDKEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-key")
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "")


def texts(workspace: Path) -> str:
    """Return all that a workspace contains other than arrays and films, as text."""
    parts = [str(pq.read_table(path).to_pylist()) for path in workspace.rglob("*.parquet")]
    parts += [path.read_bytes().decode("latin-1") for path in workspace.rglob("*") if path.is_file()]
    return "\n".join(parts + [str(path) for path in workspace.rglob("*")])


def of_server(server: str) -> str:
    """Return runs with their parameters, logs, artifacts and variables of the server."""
    kinds = ("flow_runs", "task_runs", "logs", "artifacts", "variables", "events")
    return "\n".join(httpx.post(f"{server}/{kind}/filter", json={}, timeout=60).text for kind in kinds)


def test_no_secret_is_in_the_workspace_the_logs_or_the_server(
    server: str, clip: Path, sd15: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = load_settings(workspace=str(tmp_path / "workspace"))
    assert settings.webhook == HOOK
    request = EditRequest(video=str(clip), prompt="a star of no secret", model=str(sd15), steps=1)
    with caplog.at_level("DEBUG"):
        edit_video(request, settings)
    found = {"workspace": texts(tmp_path / "workspace"), "server": of_server(server), "log": caplog.text}
    assert all("of no secret" in text for text in (found["workspace"], found["server"]))
    assert [(place, secret) for place, text in found.items() for secret in SECRETS if secret in text] == []


def test_settings_are_shown_and_stored_without_the_webhook() -> None:
    settings = load_settings()
    for shown in (repr(settings), str(settings), settings.model_dump_json(), json.dumps(settings.model_dump())):
        assert "planted" not in shown
    again: Any = WaveSettings(**settings.model_dump())
    assert again.webhook == HOOK  # from the environment of the process that needs it


def test_a_wrong_webhook_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAVE_WEBHOOK", "hooks.example.org/planted-hook")
    with pytest.raises(TaskInputError) as caught:
        load_settings()
    assert "planted" not in str(caught.value)


def test_an_error_of_a_store_does_not_show_its_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setattr(objects, "_RETRY_SECONDS", 0)
    workspace = Workspace.open("s3://bucket-of-secrets/prefix")
    with pytest.raises(WorkspaceError) as caught:
        workspace.files.read("key")
    shown = f"{caught.value} {caught.value.__cause__!r} {workspace!r}"
    assert not any(secret in shown for secret in SECRETS)


def test_a_workspace_whose_url_contains_a_password_is_refused() -> None:
    with pytest.raises(TaskInputError) as caught:
        load_settings(workspace="s3://me:planted-password@bucket/prefix")
    assert "contains a password" in str(caught.value)
    assert "planted" not in str(caught.value)
