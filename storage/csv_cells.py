"""Cells of CSV files that a spreadsheet would take for formulas, and run.

Convention: an apostrophe is put before a cell that begins with a sign of a formula, and before one that begins with
apostrophes and such a sign, so that both are read back as they were. Numbers stay as they are.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["escape_cell", "unescape_cell"]

_FORMULA: Final = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")  # noqa: RUF001  (the wide forms that spreadsheets take, too)
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)


def escape_cell(text: str) -> str:
    """Return a cell that no spreadsheet takes for a formula."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def unescape_cell(text: str) -> str:
    """Return what `escape_cell` was given."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text
