"""The small comparison, registered for the time of one test."""

from __future__ import annotations

import pytest

from tests._evaluation import CoarseCopies, with_coarse


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> CoarseCopies:
    return with_coarse(monkeypatch)
