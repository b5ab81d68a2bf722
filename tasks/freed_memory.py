"""Memory that the allocator keeps after it was freed, returned to the system."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from functools import cache
from threading import Lock
from typing import Any, Final

__all__ = ["keep_few_heaps", "return_freed_memory"]

_SECONDS_BETWEEN: Final = 5.0
_HEAPS: Final = 2
_M_ARENA_MAX: Final = -8  # of mallopt, in glibc's malloc.h
_state: Final = {"last": 0.0}
_one_at_a_time: Final = Lock()


@cache
def _glibc(name: str) -> Any:
    """Return a function of glibc's allocator; None with another C library."""
    found = ctypes.CDLL(None) if sys.platform == "linux" else None
    return getattr(found, name, None) if hasattr(found, "malloc_trim") else None


def keep_few_heaps() -> None:
    """Let the threads of this process share two heaps, unless the variable MALLOC_ARENA_MAX sets another number.

    By default glibc makes up to eight for each core, and each keeps what is freed in it between what is still in use.
    Threads that have a heap keep it: call this before threads are started.
    """
    mallopt = _glibc("mallopt")
    if mallopt is not None and "MALLOC_ARENA_MAX" not in os.environ:
        mallopt(_M_ARENA_MAX, _HEAPS)


def return_freed_memory(*, at_most_every: float = _SECONDS_BETWEEN) -> bool:
    """Return the pages to the system that the C library keeps after they were freed.

    Without it the memory of a process that edits many clips grows for hundreds of clips.

    Args:
        at_most_every: seconds; a call sooner after the last one changes nothing, since each takes some milliseconds.

    Returns:
        Whether pages were looked for; never without glibc, such as on macOS.
    """
    trim = _glibc("malloc_trim")
    with _one_at_a_time:
        if trim is None or time.monotonic() - _state["last"] < at_most_every:
            return False
        _state["last"] = time.monotonic()
    trim(0)
    return True
