"""The comparisons by name; a module is imported when its comparison is used."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

from tasks.errors import TaskInputError

if TYPE_CHECKING:
    from tasks.evaluation.comparisons.comparison import Comparison

__all__ = ["COMPARISONS", "check_name", "comparison", "names", "titles"]

COMPARISONS: Mapping[str, str] = MappingProxyType(
    {
        "inversion": "tasks.evaluation.comparisons.inversion:COMPARISON",
        "editing": "tasks.evaluation.comparisons.editing:COMPARISON",
        "video": "tasks.evaluation.comparisons.video:COMPARISON",
        "peers": "tasks.evaluation.comparisons.peers:COMPARISON",
        "propagation": "tasks.evaluation.comparisons.propagation:COMPARISON",
        "flow": "tasks.evaluation.comparisons.flow:COMPARISON",
        "model": "tasks.evaluation.comparisons.model:COMPARISON",
        "anchor": "tasks.evaluation.comparisons.ablations:ANCHOR",
        "sites": "tasks.evaluation.comparisons.ablations:SITES",
        "mask": "tasks.evaluation.comparisons.ablations:MASK",
        "window": "tasks.evaluation.comparisons.ablations:WINDOW",
        "refinement": "tasks.evaluation.comparisons.ablations:REFINEMENT",
        "steps": "tasks.evaluation.comparisons.ablations:STEPS",
        "advice": "tasks.evaluation.comparisons.model:ADVICE",
    }
)
"""The module and attribute of each comparison: an object, or a class without arguments."""


def names() -> tuple[str, ...]:
    """Return the names of the comparisons."""
    return tuple(COMPARISONS)


def check_name(name: str) -> None:
    """Check a name without importing anything.

    Raises:
        TaskInputError: if there is no such comparison; the message lists the nearest names.
    """
    if name in COMPARISONS:
        return
    near = get_close_matches(name.lower(), COMPARISONS, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(COMPARISONS)}."
    raise TaskInputError(f"Unknown comparison {name!r}: {hint}")


def comparison(name: str) -> Comparison:
    """Import a comparison.

    Raises:
        TaskInputError: if no comparison has that name, or its module cannot be imported.
    """
    check_name(name)
    module, _, attribute = COMPARISONS[name].partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise TaskInputError(f"The comparison {name!r} cannot be loaded: {error}.") from error
    return cast("Comparison", found() if isinstance(found, type) else found)


def titles() -> dict[str, str]:
    """Return the title of each comparison; for one that cannot be loaded, the reason."""
    return {name: _title(name) for name in COMPARISONS}


def _title(name: str) -> str:
    try:
        return comparison(name).title
    except TaskInputError as error:
        return str(error)
