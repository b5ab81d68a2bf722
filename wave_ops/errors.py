"""The one base of every error that `wave_ops` raises on purpose."""

from __future__ import annotations

__all__ = ["WaveOpsError"]


class WaveOpsError(ValueError):
    """An argument that an operation cannot accept; the message says what was expected and what came."""
