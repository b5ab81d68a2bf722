"""Setup of all tests: checked shapes, one thread, no deadline, and the optional reference folder."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import jaxtyping
import pytest

# Prefect reads these when it is first imported: tests use neither a person's home nor that of another worker
PREFECT_HOME = tempfile.mkdtemp(prefix="wave-tests-")
os.environ["PREFECT_HOME"] = PREFECT_HOME
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"

WAVE_OPS = Path(__file__).parents[1] / "wave_ops"


def shaped_modules() -> list[str]:
    """Find the modules that annotate shapes, but for those with functions that numba or Triton compiles."""
    sources = {path: path.read_text(encoding="utf-8") for path in sorted(WAVE_OPS.rglob("*.py"))}
    return [
        ".".join(path.relative_to(WAVE_OPS.parent).with_suffix("").parts)
        for path, source in sources.items()
        if "from jaxtyping import" in source
        and not re.search(r"^(import numba|import triton|from \S+\._jit import)", source, re.M)
    ]


# Shapes are checked in tests only. This must run before any of the modules is imported.
jaxtyping.install_import_hook(shaped_modules(), "beartype.beartype")

# Several workers share the machine, and with one thread sums are the same everywhere.
import torch  # noqa: E402

torch.set_num_threads(1)

# The first call of a compiled function takes seconds, and a slow machine is not an error.
hypothesis.settings.register_profile("wave", deadline=None, derandomize=True, max_examples=25)
hypothesis.settings.load_profile("wave")


def pytest_unconfigure() -> None:
    shutil.rmtree(PREFECT_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of reference material next to the checkout, or skip the test."""
    folder = Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("there is no reference folder")
    return folder


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Switch shape checks off, so that wrong arguments meet the operation's own errors."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
