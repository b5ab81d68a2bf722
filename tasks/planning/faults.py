"""Faults of a manifest, all of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from tasks.errors import TaskInputError

__all__ = ["Fault", "ManifestError", "near_names"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that is wrong with a manifest."""

    row: int
    """Number of the data row, from 1; 0 for the manifest as a whole."""
    id: str = ""
    """Id of the row, as far as it has one."""
    column: str = ""
    """Empty for a row as a whole."""
    reason: str

    def __str__(self) -> str:
        place = [f"row {self.row}"] if self.row else []
        place += [f"column {self.column}"] if self.column else []
        return f"{', '.join(place) or 'the whole'}: {self.reason}"


class ManifestError(TaskInputError):
    """A manifest with faults; the message counts them and states the first.

    Args:
        title: what is faulty, for example "manifest clips.csv".
        faults: at least one, in the order of their rows.
    """

    def __init__(self, title: str, faults: Sequence[Fault]) -> None:
        super().__init__(title, tuple(faults))  # both, since a copy of an error is made from its arguments

    @property
    def faults(self) -> tuple[Fault, ...]:
        """All faults, in the order of their rows."""
        found: tuple[Fault, ...] = self.args[1]
        return found

    def _text(self) -> str:
        count = len(self.faults)
        several = f"{count} faults, the first" if count > 1 else "1 fault,"
        return f"The {self.args[0]} has {several} in {self.faults[0]}."


def near_names(name: str, known: Sequence[str]) -> str:
    """Return a clause with the known names near to this one, or with all of them."""
    near = get_close_matches(name, known, n=3)
    return f"near it is {' or '.join(near)}" if near else f"there are {', '.join(known) or 'none'}"
