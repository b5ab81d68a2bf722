from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.csv_cells import escape_cell, unescape_cell


@pytest.mark.parametrize("cell", ["=1+1", "+A1", "-A1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "'=1", "-", "=1.5"])  # noqa: RUF001
def test_a_formula_gets_an_apostrophe(cell: str) -> None:
    assert escape_cell(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["", "a star", "-1.5", "+3", "-.5e-3", "'tis", "3-1", "a@b"])
def test_words_and_numbers_stay(cell: str) -> None:
    assert escape_cell(cell) == unescape_cell(cell) == cell


@given(st.text(alphabet="'=+-@ a1.\t\r\n", max_size=6) | st.text())
def test_what_is_escaped_is_read_back_and_is_no_formula(cell: str) -> None:
    escaped = escape_cell(cell)
    assert unescape_cell(escaped) == cell
    assert not re.match(r"[=+\-@\t\r\n]", escaped) or re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", escaped, re.I)
