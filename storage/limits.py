"""Limits on what is read: checked before anything of that size is allocated or stored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from storage.errors import VideoError

__all__ = ["Limits", "current_limits", "using_limits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The largest video that is read."""

    pixels: int = 2**25
    """Of a picture: 8K (7680x4320) is just below."""
    seconds: float = 6 * 3600.0
    """Of the part that is read."""
    frames: int = 1_000_000
    """Of the part that is read."""
    file_bytes: int = 2**36
    """Of the file: 64 GiB."""

    def check_file(self, path: Path) -> None:
        """Check the size of a file. Raises VideoError."""
        if (size := path.stat().st_size) > self.file_bytes:
            raise VideoError(
                f"{path} has {size:,} bytes, and at most {self.file_bytes:,} are read: cut it, or raise WAVE_MAX_BYTES"
            )

    def check_length(self, name: str, *, frames: int, seconds: float) -> None:
        """Check the length of the part of a video that is read. Raises VideoError."""
        if frames > self.frames:
            raise VideoError(
                f"{name} has {frames:,} frames or more, and at most {self.frames:,} are read: choose a part with "
                "--start and --end, or raise WAVE_MAX_FRAMES"
            )
        if seconds > self.seconds:
            raise VideoError(
                f"{name} lasts {seconds:,.0f} s or more, and at most {self.seconds:,.0f} s are read: choose a part "
                "with --start and --end, or raise WAVE_MAX_SECONDS"
            )

    def check_picture(self, name: str, *, width: int, height: int) -> None:
        """Check the size of a picture. Raises VideoError."""
        if width * height > self.pixels:
            raise self.picture_error(name, f"{width}x{height}")

    def picture_error(self, name: str, found: str) -> VideoError:
        """Return the error of a picture that is too large."""
        return VideoError(
            f"{name} has pictures of {found}, and at most {self.pixels:,} pixels are read, as in 7680x4320: "
            "make it smaller first, or raise WAVE_MAX_PIXELS"
        )


_CURRENT: ContextVar[Limits] = ContextVar("wave_limits", default=Limits())  # noqa: B039  (it is frozen)


def current_limits() -> Limits:
    """Return the limits of `using_limits`, else the defaults."""
    return _CURRENT.get()


@contextmanager
def using_limits(limits: Limits) -> Iterator[None]:
    """Let everything that reads videos in this context keep to these limits."""
    token = _CURRENT.set(limits)
    try:
        yield
    finally:
        _CURRENT.reset(token)
