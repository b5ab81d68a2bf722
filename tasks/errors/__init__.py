"""The base class of the errors that `tasks` raises.

It is a folder of its own since every other folder of `tasks` imports it, and it imports none of them.
"""

from __future__ import annotations

__all__ = ["TaskInputError"]


class TaskInputError(ValueError):
    """A request that cannot be carried out; the message says what was expected, what was found and what to do."""
