"""What every test shares: checked shapes, one thread, no deadline, and the optional reference folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import jaxtyping
import pytest

# Prefect reads these when it is first imported: tests leave a person's home alone, and each worker the others'
PREFECT_HOME = tempfile.mkdtemp(prefix="wave-tests-")
os.environ["PREFECT_HOME"] = PREFECT_HOME
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"

# Shapes are checked in tests only. Each module is named, since compiled (numba) modules cannot be wrapped. This must
# run before any of them is imported.
jaxtyping.install_import_hook(
    [
        "wave_ops.diffusion",
        "wave_ops.editing",
        "wave_ops.inversion",
        "wave_ops.flow",
        "wave_ops.masks",
        "wave_ops.metrics",
        "wave_ops.propagation.compositing",
        "wave_ops.propagation.detail",
        "wave_ops.propagation.guides",
        "wave_ops.propagation.interval",
        "wave_ops.propagation.pyramid",
        "wave_ops.propagation.synthesis",
        "wave_ops.propagation.torch_synthesis",
        "wave_ops.feature_warping",
        "wave_ops.scenes.reading",
        "wave_ops.scenes.rendering",
        "wave_ops.scenes.sampling",
        "wave_ops.schedule",
        "wave_ops.training",
        "wave_ops.unet",
        "wave_ops.guided_upsampling",
        "wave_ops.warp",
    ],
    "beartype.beartype",
)

# The suite shares its machine, and one thread gives the same sums everywhere.
import torch  # noqa: E402

torch.set_num_threads(1)

# The first call of a compiled function takes seconds; a slow machine is no error.
hypothesis.settings.register_profile("wave", deadline=None, derandomize=True, max_examples=25)
hypothesis.settings.load_profile("wave")


def pytest_unconfigure() -> None:
    shutil.rmtree(PREFECT_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of reference material beside the checkout, or skip the test."""
    folder = Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("the reference folder is not here")
    return folder


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Let wrong arguments through to the operation's own errors."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
