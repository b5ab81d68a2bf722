"""Memory that the allocator keeps after it was freed, returned to the system."""

from __future__ import annotations

import ctypes
import sys
import time
from functools import cache
from threading import Lock
from typing import Any, Final

__all__ = ["return_freed_memory"]

_SECONDS_BETWEEN: Final = 5.0
_state: Final = {"last": 0.0}
_one_at_a_time: Final = Lock()


@cache
def _trim() -> Any:
    """Return glibc's malloc_trim; None with another C library."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


def return_freed_memory(*, at_most_every: float = _SECONDS_BETWEEN) -> bool:
    """Return the pages to the system that the C library keeps after they were freed.

    A process with many threads keeps some for each of them, and the memory of one that edits many clips grows for ever.

    Args:
        at_most_every: seconds; a call sooner after the last one changes nothing, since each takes some milliseconds.

    Returns:
        Whether pages were looked for; never without glibc, such as on macOS.
    """
    trim = _trim()
    with _one_at_a_time:
        if trim is None or time.monotonic() - _state["last"] < at_most_every:
            return False
        _state["last"] = time.monotonic()
    trim(0)
    return True
