from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import TaskInputError
from tasks.planning.templates import escape_braces, parse_template

VALUES = {"object": "star", "colour": "deep {blue}", "my column": "x"}


def filled(text: str, *chosen: int) -> str:
    """Fill in a template, with the option's index for each choice by its number."""
    return parse_template(text).fill(VALUES, lambda number, _count: chosen[number])


@pytest.mark.parametrize(
    ("text", "chosen", "expected"),
    [
        ("a star", (), "a star"),
        ("", (), ""),
        ("a | b", (), "a | b"),
        ("a {object}", (), "a star"),
        ("a { object }{my column}", (), "a starx"),
        ("a {colour} sky", (), "a deep {blue} sky"),
        ("{red|blue} sky", (1,), "blue sky"),
        ("{a|b} {c|d}", (1, 0), "b c"),
        ("a{| very|} red", (0,), "a red"),
        ("a{| very|} red", (1,), "a very red"),
        ("{a|a {red|{object}} one}", (1, 1), "a star one"),
        ("{a|a {red|{object}} one}", (1, 0), "a red one"),
        ("{a|{b|{c|d}}}", (1, 1, 0), "c"),
        ("{{object}}", (), "{object}"),
        ("}}{{", (), "}{"),
        ("{{{object}}}", (), "{star}"),
        ("{a {{x}}|b}", (0,), "a {x}"),
        ("{a {{x}}}}|b", None, "position 10"),
        ("{a|b", None, "position 1"),
        ("a {object", None, "position 3"),
        ("a object}", None, "position 9"),
        ("{}", None, "position 1"),
        ("{ }", None, "position 1"),
        ("{a{b}}", None, "position 1"),
        ("{{red|blue} star|disc}", None, "position 11"),
        ("{a|{{b|c} d}}", None, "position 7"),
        ("{a|" * 30 + "b" + "}" * 30, None, "more than 20"),
    ],
)
def test_a_template_becomes_its_text_or_an_error_with_the_position(
    text: str, chosen: tuple[int, ...] | None, expected: str
) -> None:
    if chosen is not None:
        assert filled(text, *chosen) == expected
        return
    with pytest.raises(TaskInputError, match=expected):
        parse_template(text)


def test_a_choice_knows_its_number_and_how_many_options_it_has() -> None:
    asked: list[tuple[int, int]] = []
    parse_template("{a|b} {c|d|{e|f}}").fill({}, lambda number, count: asked.append((number, count)) or count - 1)
    assert asked == [(0, 2), (1, 3), (2, 2)]


def test_every_column_is_known_in_every_option() -> None:
    template = parse_template("{object} {a|{colour}}")
    assert template.columns == ("object", "colour")
    template.check(["object", "colour"])
    with pytest.raises(TaskInputError, match="no column 'colour' to refer to; near it is color"):
        template.check(["object", "color"])


@given(st.text())
def test_any_text_with_its_braces_escaped_is_filled_in_to_itself(text: str) -> None:
    assert filled(escape_braces(text)) == text


@given(st.text(alphabet="{}|a "))
def test_any_braces_are_parsed_or_refused_in_one_clause(text: str) -> None:
    refusals = list[str]()
    try:
        parse_template(text)
    except TaskInputError as error:
        refusals.append(str(error))
    assert all("at position" in refusal for refusal in refusals)
