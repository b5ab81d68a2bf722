"""Typed wrappers of numba: compiled on first use, cached on disk, without the interpreter lock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import numba

__all__ = ["inline", "jit"]

P = ParamSpec("P")
R = TypeVar("R")

_OPTIONS: dict[str, Any] = {
    "cache": True,
    "nogil": True,  # threads may work on several intervals at once
    "error_model": "numpy",
    # Sums may be reassociated, without which they cannot be vectorised; infinity and NaN keep their meaning.
    "fastmath": {"reassoc", "contract", "nsz"},
    # No reference counting: these functions allocate nothing, and counting references to every array passed to a helper
    # costs ten times more than the arithmetic.
    "_nrt": False,
}


def jit(function: Callable[P, R]) -> Callable[P, R]:
    """Return `function` compiled by numba, with its Python type for the type checker.

    The function must not allocate arrays.
    """
    return cast("Callable[P, R]", numba.njit(**_OPTIONS)(function))


def inline(function: Callable[P, R]) -> Callable[P, R]:
    """Return `function` compiled into its callers, so that constant arguments stay in registers."""
    return cast("Callable[P, R]", numba.njit(**_OPTIONS, forceinline=True)(function))
