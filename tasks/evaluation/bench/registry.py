"""The benchmarks by name; a module is imported when its bench is used."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

from tasks.errors import TaskInputError

if TYPE_CHECKING:
    from tasks.evaluation.bench.measurements import Bench

__all__ = ["BENCHES", "bench"]

BENCHES: Mapping[str, str] = MappingProxyType(
    {
        "core": "tasks.evaluation.bench.core:BENCH",
        "memory": "tasks.evaluation.bench.memory:BENCH",
        "orchestration": "tasks.evaluation.bench.orchestration:BENCH",
        "propagation": "tasks.evaluation.bench.propagation:BENCH",
        "scale": "tasks.evaluation.bench.scale:BENCH",
    }
)
"""The module and attribute of each bench."""


def bench(name: str) -> Bench:
    """Import a bench.

    Raises:
        TaskInputError: if no bench has that name.
    """
    if name not in BENCHES:
        raise TaskInputError(f"Unknown bench {name!r}; choose from {', '.join(BENCHES)}.")
    module, _, attribute = BENCHES[name].partition(":")
    return cast("Bench", getattr(import_module(module), attribute))
