"""The base class of every error that `wave_ops` raises."""

from __future__ import annotations

__all__ = ["NonFiniteError", "WaveOpsError"]


class WaveOpsError(ValueError):
    """An argument that an operation cannot accept; the message states the expected and the actual one."""


class NonFiniteError(WaveOpsError, ArithmeticError):
    """A network, or what it computed, contains NaN or infinity."""
