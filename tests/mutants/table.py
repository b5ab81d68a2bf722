"""The faults, each with the tests nearest to it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MUTANTS", "Mutant"]


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault."""

    label: str
    file: str
    before: str
    """Occurs exactly once in the file."""
    after: str
    tests: tuple[str, ...]
    survives: str = ""
    """Why no test catches it; empty where one does."""


STORAGE = (
    Mutant(
        "macroblock tree on: bytes differ between runs",
        "storage/video/_encode.py",
        "mbtree=0",
        "mbtree=1",
        ("tests/storage/video/test_encode.py",),
    ),
)
MUTANTS = (*STORAGE,)
