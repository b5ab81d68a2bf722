"""Back-pressure: clips start only while there is disk for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from rich.filesize import decimal

from storage.free_disk import free_bytes
from tasks.planning.bulk import PlannedRow

__all__ = ["DiskWindow", "free_disk"]


@dataclass(slots=True, kw_only=True)
class DiskWindow:
    """The disk that the rows in flight will take, against a budget."""

    sizes: Mapping[str, int] = field(default_factory=dict)
    """Bytes of the results that are computed, by digest; those that are stored already are absent."""
    budget: int | None = None
    """Bytes that all rows in flight may take together; None for any number. One row always runs."""
    _users: Counter[str] = field(default_factory=Counter)

    def admits(self, item: PlannedRow) -> bool:
        """Return whether a row may start now. Results that rows share count once."""
        if self.budget is None or not self._users:
            return True
        return sum(self.sizes.get(digest, 0) for digest in {*self._users, *item.digests}) <= self.budget

    def start(self, item: PlannedRow) -> None:
        """Count a row as in flight."""
        self._users.update(item.digests)

    def end(self, item: PlannedRow) -> None:
        """Count a row as in flight no longer."""
        self._users = +(self._users - Counter(item.digests))


def free_disk(workspace: str, *, reserve: int) -> str:
    """Return why nothing may start in a workspace: less free than the reserve; empty if it may, or if it has a URL."""
    free = free_bytes(workspace)
    if free is None or free >= reserve:
        return ""
    return f"the disk is full: {decimal(free)} are free, and {decimal(reserve)} are kept in reserve"
