from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from flows.rehearsal.pages import Browser


def test_a_picture_that_chromium_does_not_take_is_said_and_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = Browser(tmp_path, "http://127.0.0.1:1")

    def late(command: list[str], **_: Any) -> None:
        raise subprocess.TimeoutExpired(command, 180)

    monkeypatch.setattr("flows.rehearsal.pages.subprocess.run", late)
    assert "Chromium took no picture of /runs" in browser.picture("/runs", "runs")
    monkeypatch.setattr("flows.rehearsal.pages.subprocess.run", lambda *_, **__: None)
    assert browser.picture("/runs", "runs") == "Chromium took no picture of /runs"
    monkeypatch.setattr(
        "flows.rehearsal.pages.subprocess.run", lambda *_, **__: (tmp_path / "runs.png").write_bytes(b"")
    )
    assert browser.picture("/runs", "runs") == ""
    assert Browser(None, "").picture("/runs", "runs") == ""
