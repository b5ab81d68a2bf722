"""How much memory this process has held at most."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Final

__all__ = ["peak_memory"]

_STATUS: Final = Path("/proc/self/status")
_UNIT: Final = 2**20 if sys.platform == "darwin" else 2**10
"""What `ru_maxrss` is counted in makes so many of it a megabyte: bytes there, kilobytes elsewhere."""


def peak_memory() -> float:
    """Return the most memory that this process has held so far, in megabytes of 2^20 bytes."""
    if _STATUS.is_file():
        # Linux counts in ru_maxrss what the parent held before this program was loaded; here it does not.
        lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines() if ":" in line)
        if "VmHWM" in lines:
            return float(lines["VmHWM"].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _UNIT
