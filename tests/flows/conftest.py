"""A tiny checkpoint, a tiny clip, and one Prefect server for all tests that run a flow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import prefect.client.base
import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
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
    """Start a Prefect server with a database of its own, and return its URL.

    SQLite lets one transaction at a time write, and the server answers 503 to a request that meets another. Prefect's
    client waits about two seconds before it sends such a request again, which was most of the time of these tests;
    here it waits a twentieth of that, and tries more often.
    """
    waits = prefect.client.base.clamped_poisson_interval
    with pytest.MonkeyPatch.context() as patch, prefect_test_harness(server_startup_timeout=240):
        patch.setattr(prefect.client.base, "clamped_poisson_interval", lambda *args: waits(*args) / 20)
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 9}):
            yield str(PREFECT_API_URL.value())
