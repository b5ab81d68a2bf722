"""The peak memory of this process."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Final

__all__ = ["peak_memory"]

_STATUS: Final = Path("/proc/self/status")
_UNIT: Final = 2**20 if sys.platform == "darwin" else 2**10
"""Units of `ru_maxrss` per megabyte: bytes on macOS, kilobytes elsewhere."""


def peak_memory() -> float:
    """Return the peak memory of this process so far, in megabytes of 2^20 bytes."""
    if _STATUS.is_file():
        # Linux includes the parent's memory before the exec in ru_maxrss, but not in VmHWM
        lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines() if ":" in line)
        if "VmHWM" in lines:
            return float(lines["VmHWM"].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _UNIT
