"""The small comparison, registered for one test."""

from __future__ import annotations

import os
import tempfile

import pytest

# Prefect reads its home when it is first imported: tests leave a person's own alone
os.environ.setdefault("PREFECT_HOME", tempfile.mkdtemp(prefix="wave-tests-"))

from tests._evaluation import CoarseCopies, with_coarse


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> CoarseCopies:
    return with_coarse(monkeypatch)
