"""A tiny checkpoint, a tiny clip, and one Prefect server for all tests that run a flow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL
from prefect.testing.utilities import prefect_test_harness

from tests._checkpoints import save_sd15
from tests._clips import save_clip


@pytest.fixture(scope="session")
def sd15(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sd15(tmp_path_factory.mktemp("checkpoints") / "sd15")


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clips") / "clip.mp4")


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """Start a Prefect server with a database of its own, and return its URL."""
    with prefect_test_harness(server_startup_timeout=240):
        yield str(PREFECT_API_URL.value())
