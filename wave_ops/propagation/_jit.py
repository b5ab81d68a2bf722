"""A typed door to numba: compiled on first use, kept on disk, free of the interpreter lock."""

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
    # Sums may be reassociated (that is what fills the vector registers); infinity and NaN keep their meaning.
    "fastmath": {"reassoc", "contract", "nsz"},
    # No reference counting inside: these functions allocate nothing, and counting every array that a helper is handed
    # costs ten times more than the arithmetic.
    "_nrt": False,
}


def jit(function: Callable[P, R]) -> Callable[P, R]:
    """Return `function` compiled by numba, with its Python type kept for the type checker.

    The function must not allocate arrays.
    """
    return cast("Callable[P, R]", numba.njit(**_OPTIONS)(function))


def inline(function: Callable[P, R]) -> Callable[P, R]:
    """Return `function` compiled into its callers, so that arguments that stay the same stay in registers."""
    return cast("Callable[P, R]", numba.njit(**_OPTIONS, forceinline=True)(function))
