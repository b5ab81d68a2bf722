from __future__ import annotations

import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import TaskInputError
from tasks.planning.row_filter import parse_filter

ROW = {
    "id": "007",
    "folder": "cat",
    "steps": "20",
    "score": "1e1",
    "empty": "",
    "prompt": "a red\nstar",
    "full_resolution": "true",
    "my column": "it's",
    "other": "cat",
    "größe": "3",
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("folder = 'cat'", True),
        ("folder == 'cat'", True),
        ("folder != 'cat'", False),
        ("folder = 'Cat'", False),
        ("'cat' = folder", True),
        ("steps = 20", True),
        ("steps = 20.0", True),
        ("steps='20.0'", False),
        ("id = 7", True),
        ("id = '7'", False),
        ("score>9", True),
        ("score < 9", False),
        ("score > '9'", False),  # as text
        ("steps >= 20 and steps <= 20", True),
        ("steps > -1", True),
        ("folder = 3", False),
        ("folder != 3", True),
        ("folder < 3", False),
        ("folder > 3", False),
        ("empty < 3", False),
        ("empty = ''", True),
        ("folder = other", True),
        ("steps > score", True),  # as numbers
        ("steps < folder", True),  # as text
        ("folder in ('dog', 'cat')", True),
        ("folder not in ('dog', 'cat')", False),
        ("steps in (10, 20)", True),
        ("steps in ('20', 3)", True),
        ("folder like 'c*'", True),
        ("folder like 'c'", False),
        ("folder like '*a*'", True),
        ("folder like 'c.*'", False),
        ("prompt like 'a*star'", True),
        ("prompt not like '*red*'", False),
        ("empty is empty", True),
        ("folder is empty", False),
        ("folder is not empty", True),
        ("not folder = 'cat'", False),
        ("not not folder = 'cat'", True),
        ("folder = 'cat' or steps = 1 and steps = 2", True),
        ("(folder = 'cat' or steps = 1) and steps = 2", False),
        ("not folder = 'dog' and steps = 20", True),
        ("not (folder = 'dog' or steps = 20)", False),
        ("FOLDER_ = 1 OR folder = 'cat'", None),
        ("folder = 'cat' AND NOT steps IS EMPTY", True),
        ("full_resolution = true", True),
        ("full_resolution = false", False),
        ("`my column` = 'it''s'", True),
        ('`my column` = "it\'s"', True),
        ("größe = 3", True),
    ],
)
def test_a_filter_selects_rows(text: str, expected: bool | None) -> None:
    condition = parse_filter(text)
    if expected is None:
        with pytest.raises(TaskInputError, match="'FOLDER_' at position 1, and there is no such column"):
            condition.check(list(ROW))
        return
    condition.check(list(ROW))
    assert condition.matches(ROW.__getitem__) is expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "its end at position 1, where a column"),
        ("folder", "its end at position 7, where a comparison"),
        ("folder =", "its end at position 9"),
        ("folder = = 3", "'=' at position 10"),
        ("folder = 'cat", '"\'cat" at position 10'),
        ("folder = 'a' steps = 3", "'steps' at position 14, where 'and', 'or' or the end"),
        ("(folder = 'a'", "its end at position 14, where '\\)'"),
        ("folder = 'a')", "'\\)' at position 13"),
        ("folder in 'a'", "\"'a'\" at position 11, where '\\('"),
        ("folder in ()", "'\\)' at position 12"),
        ("folder in ('a', steps)", "'steps' at position 17, where a quoted text or a number"),
        ("folder like 3", "'3' at position 13, where a quoted text"),
        ("folder is 3", "'3' at position 11, where 'empty'"),
        ("folder not = 3", "'=' at position 12"),
        ("steps = 3x", "'3x' at position 9"),
        ("__import__('os')", "'\\(' at position 11"),
        ("folder.upper() = 'A'", "'\\(' at position 13"),
        ("a; b", "'; b' at position 2"),
        ("(" * 200 + "a = 1" + ")" * 200, "at most 50 levels"),
        ("not " * 5000 + "a = 1", "at most 50 levels"),
    ],
)
def test_a_filter_that_does_not_fit_is_one_sentence_with_the_position(text: str, words: str) -> None:
    with pytest.raises(TaskInputError, match=words) as caught:
        parse_filter(text)
    assert str(caught.value).startswith("The filter has ")
    assert "\n" not in str(caught.value)


def test_an_unknown_column_is_named_with_its_position_and_near_ones() -> None:
    with pytest.raises(TaskInputError, match=r"'foldr' at position 14, .*: near it is folder"):
        parse_filter("steps = 1 or foldr = 'a'").check(["steps", "folder"])


SIGNS = {"<": operator.lt, "<=": operator.le, "=": operator.eq, "!=": operator.ne, ">": operator.gt, ">=": operator.ge}


@given(st.sampled_from(sorted(SIGNS)), st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_numbers_are_compared_as_numbers(sign: str, left: float, right: float) -> None:
    assert parse_filter(f"x {sign} {right!r}").matches(lambda _: repr(left)) is SIGNS[sign](left, right)


@given(st.text(), st.text())
def test_quoted_text_is_compared_as_it_is(left: str, right: str) -> None:
    quoted = right.replace("'", "''")
    assert parse_filter(f"x = '{quoted}'").matches(lambda _: left) is (left == right)
    assert parse_filter(f"x = '{quoted}'").matches(lambda _: right)


@given(st.text(max_size=30))
def test_any_text_is_parsed_or_refused_with_one_sentence(text: str) -> None:
    refusals = list[str]()
    try:
        parse_filter(text)
    except TaskInputError as error:
        refusals.append(str(error))
    assert all("at position" in refusal for refusal in refusals)
