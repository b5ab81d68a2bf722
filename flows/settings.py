"""Settings of a machine or a person, through environment variables that begin with WAVE_."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches
from typing import Final, Literal

from pydantic import BaseModel, ByteSize, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from storage.limits import Limits
from storage.secrets import has_password, without_secrets
from tasks.errors import TaskInputError
from tasks.planning.source_policy import PREFIX as SOURCE_PREFIX
from tasks.planning.source_policy import SourcePolicy, read_policy

__all__ = [
    "HEARTBEAT_SECONDS",
    "LOST_AFTER_SECONDS",
    "START_SECONDS",
    "TrainSettings",
    "WaveSettings",
    "current_settings",
    "load_settings",
    "using_settings",
]

PREFIX = "WAVE_"
HEARTBEAT_SECONDS: Final = 30
"""Time between two heartbeats of a flow run, in every process that runs one; the least that Prefect allows."""
LOST_AFTER_SECONDS: Final = 240
"""Time without a heartbeat after which a run counts as crashed. Above 180, Prefect's own time between heartbeats, so
that a flow that was started without the `wave` command is not taken for dead."""
START_SECONDS: Final = 600
"""Time that a worker of processes has from taking a run to its begin; after that the run counts as crashed."""
DeviceChoice = Literal["auto", "cpu", "cuda"]
DtypeChoice = Literal["auto", "float32", "float16", "bfloat16"]


class WaveSettings(BaseSettings):
    """Settings of the `wave` command and of the flows."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", use_attribute_docstrings=True)

    workspace: str = Field(default="wave-workspace", min_length=1)
    """Where results are stored: a folder, or a URL: s3://, gs:// or az://."""
    device: DeviceChoice = "auto"
    """Where the networks run: auto is CUDA where there is one."""
    propagation_device: DeviceChoice = "auto"
    """Where frames are propagated: auto is where the networks run. The two differ slightly in their results."""
    dtype: DtypeChoice = "auto"
    """Data type of the networks: auto is float16 on CUDA, float32 elsewhere."""
    keyframe_batch: int | None = Field(default=None, ge=1)
    """Keyframes in one UNet batch at most; by default as many as fit in memory. The result is the same."""
    compile_unet: bool = False
    """Compile the blocks of the UNet by torch.compile: slower at first, for each size of clip and number of keyframes,
    and faster afterwards. Not used with LoRAs."""
    memory_limit: ByteSize | None = Field(default=None, gt=0)
    """Memory, such as 8GB, that a process may take on the device of the networks; by default most of what is free
    there. It decides how many keyframes pass through the UNet together, and how many frames through the VAE."""
    flow_weights: str = ""
    """A safetensors file of RAFT's weights, or a folder that contains one; empty for torchvision's hub."""
    max_tasks: int = Field(default=os.cpu_count() or 1, ge=1)
    """Tasks that run at the same time in one process."""
    max_clips: int = Field(default=2, ge=1)
    """Clips of a data set that are edited at the same time in one process."""
    disk_budget: ByteSize | None = Field(default=None, gt=0)
    """Disk, such as 200GB, that the clips of a data set that are edited at the same time may take by the estimate; any
    by default. At least one clip is edited."""
    disk_reserve: ByteSize = Field(default=ByteSize(10**9), ge=0)
    """Disk, such as 5GB, that stays free: with less, a data set starts no further clip and ends."""
    max_pixels: int = Field(default=Limits().pixels, ge=1)
    """Pixels of the largest picture of a clip that is read: 8K (7680x4320) is just below the default."""
    max_seconds: float = Field(default=Limits().seconds, gt=0, allow_inf_nan=False)
    """Seconds of the longest clip, or part of a clip, that is edited; six hours by default."""
    max_frames: int = Field(default=Limits().frames, ge=1)
    """Frames of the longest clip, or part of a clip, that is edited."""
    max_bytes: ByteSize = Field(default=ByteSize(Limits().file_bytes), ge=1)
    """Size of the largest file that is read, such as 200GB; 64 GiB by default."""
    dask_address: str | None = None
    """Scheduler of a Dask cluster with workers that advertise CPU and GPU; none by default."""
    webhook: str = Field(default="", pattern=r"^(https?://\S+)?$", exclude=True, repr=False)
    """URL that is called when the run of a data set has ended (http:// or https://); empty for the log only. It may
    be a secret, and is not part of what is stored of a run."""

    @property
    def limits(self) -> Limits:
        """The largest clip that is read."""
        return Limits(
            pixels=self.max_pixels, seconds=self.max_seconds, frames=self.max_frames, file_bytes=self.max_bytes
        )


class TrainSettings(BaseModel):
    """Settings of the embedded model's training; the defaults make the model that is shipped."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    output: str = Field(min_length=1)
    """Folder of the model that is written, in the diffusers layout."""
    work_folder: str = Field(min_length=1)
    """Folder of frames, latents, checkpoints and curves; an interrupted training resumes from it."""
    base: str | None = None
    """Folder of a model that `wave train-embedded` wrote: all but its ControlNet is kept, and only that is trained."""
    seed: int = Field(default=0, ge=0, lt=1_000)
    """Seed of everything that is drawn at random; below 1000, where the scenes of evaluations begin."""
    threads: int = Field(default=1, ge=1)
    """Threads of each operation; one is the fastest where cores are shared."""
    frames: int = Field(default=24_000, ge=32)
    """Number of training frames."""
    vae_steps: int = Field(default=3_800, ge=1)
    """Training steps of the autoencoder."""
    unet_steps: int = Field(default=8_000, ge=1)
    """Training steps of the UNet and the text encoder."""
    controlnet_steps: int = Field(default=3_200, ge=1)
    """Training steps of the ControlNet."""
    minutes: float | None = Field(default=None, gt=0)
    """Time for the three trainings together; each ends with its steps or its fraction of the time, whichever is
    sooner. By default they end with their steps."""
    metric_scenes: int = Field(default=24, ge=1)
    """Held-out scenes that the finished model is measured on."""


def load_settings(**overrides: str) -> WaveSettings:
    """Read the settings from the environment; values given here take precedence.

    Raises:
        TaskInputError: one sentence about the first variable that is wrong or unknown.
    """
    own = {f"{PREFIX}{name}".upper() for name in WaveSettings.model_fields}
    known = own | {f"{SOURCE_PREFIX}{name}".upper() for name in SourcePolicy.model_fields}
    unknown = sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)
    if unknown:
        near = get_close_matches(unknown[0], known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}."
        raise TaskInputError(f"Unknown setting {unknown[0]}: {hint}")
    read_policy()
    try:
        settings = WaveSettings(**overrides)  # type: ignore[arg-type]  # pydantic converts what the environment gives
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = f"{PREFIX}{first['loc'][0]}".upper()
        reason = first["msg"][:1].lower() + first["msg"][1:]
        if first["loc"][0] == "webhook":
            raise TaskInputError(f"{name} is not a URL that begins with http:// or https://.") from None
        raise TaskInputError(f"{name} cannot be {first['input']!r}: {reason}.") from None
    if has_password(settings.workspace):
        raise TaskInputError(
            f"The workspace {without_secrets(settings.workspace)} contains a password, which would be stored with the "
            "results: set credentials in the environment."
        )
    return settings


_CURRENT: ContextVar[WaveSettings | None] = ContextVar("wave_settings", default=None)


@contextmanager
def using_settings(settings: WaveSettings) -> Iterator[None]:
    """Let `current_settings` return these settings in this context.

    For flows that do not have the settings of a machine among their parameters, which a person fills in.
    """
    token = _CURRENT.set(settings)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def current_settings() -> WaveSettings:
    """Return the settings of `using_settings`, else those of the environment.

    Raises:
        TaskInputError: see `load_settings`.
    """
    return _CURRENT.get() or load_settings()
