"""What a machine or a person sets once, through environment variables that begin with WAVE_."""

from __future__ import annotations

import os
from difflib import get_close_matches

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from tasks.errors import TaskInputError
from tasks.models.devices import DeviceChoice, DtypeChoice

__all__ = ["WaveSettings", "load_settings"]

PREFIX = "WAVE_"


class WaveSettings(BaseSettings):
    """Settings of the `wave` command and of the flows."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    workspace: str = Field(default="wave-workspace", min_length=1)
    """Where results are kept: a folder or any fsspec URL."""
    device: DeviceChoice = "auto"
    """Where the networks run: auto is CUDA where there is one."""
    propagation_device: DeviceChoice = "auto"
    """Where frames are propagated: auto is where the networks run. The two differ slightly in their results."""
    dtype: DtypeChoice = "auto"
    """Of the networks: auto is float16 on CUDA, float32 elsewhere."""
    keyframe_batch: int | None = Field(default=None, ge=1)
    """Keyframes in one UNet batch; all of them by default. Less takes less memory and gives the same result."""
    flow_weights: str = ""
    """A safetensors file of RAFT's weights, or a folder that holds one; empty for torchvision's hub."""
    max_tasks: int = Field(default=os.cpu_count() or 1, ge=1)
    """Tasks that run side by side in one process."""
    dask_address: str | None = None
    """Scheduler of a Dask cluster whose workers advertise CPU and GPU; none by default."""


def load_settings(**overrides: str) -> WaveSettings:
    """Read the settings; what is given here goes before the environment.

    Raises:
        TaskInputError: one sentence about the first variable that is wrong or unknown.
    """
    known = {f"{PREFIX}{name}".upper() for name in WaveSettings.model_fields}
    unknown = sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)
    if unknown:
        near = get_close_matches(unknown[0], known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}."
        raise TaskInputError(f"There is no setting {unknown[0]}: {hint}")
    try:
        return WaveSettings(**overrides)  # type: ignore[arg-type]  # pydantic converts what the environment gives, too
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = f"{PREFIX}{first['loc'][0]}".upper()
        raise TaskInputError(f"{name} cannot be {first['input']!r}: {first['msg'].lower()}.") from None
