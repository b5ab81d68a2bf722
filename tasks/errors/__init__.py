"""The base class of the errors that `tasks` raises.

It is a folder of its own since every other folder of `tasks` imports it, and it imports none of them.
"""

from __future__ import annotations

from storage.errors import printable

__all__ = ["TaskInputError"]


class TaskInputError(ValueError):
    """A request that cannot be carried out; the message says what was expected, what was found and what to do.

    It may contain words of a file that a stranger wrote: control characters, such as those that terminals obey, are
    spelt out.
    """

    def __str__(self) -> str:
        return printable(self._text())

    def _text(self) -> str:
        return super().__str__()
