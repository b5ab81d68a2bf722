"""The one base of every error that `tasks` raises on purpose."""

from __future__ import annotations

__all__ = ["TaskInputError"]


class TaskInputError(ValueError):
    """A request that cannot be carried out; the message says what was expected, what was found and what to do."""
