"""Expressions that select rows: `folder = 'cat' and (steps >= 20 or not prompt like '*red*')`.

Convention:
    - Columns are written by name (in backticks where it is not one word), text in single or double quotes (doubled
      within the text), numbers as they are; `true` and `false` are the text of a switch.
    - `=` (or `==`), `!=`, `<`, `<=`, `>`, `>=`; `in ('a', 'b')`; `like 'a*'` with * for any text; `is empty`;
      `not in`, `not like`, `is not empty`; `not`, `and`, `or`, in this order of precedence, and parentheses.
    - A column is compared with quoted text as text and with a number as a number: a cell that is not a number is
      unequal to it, and neither below nor above. Two columns are compared as numbers if both are, else as text.
    - Upper and lower case differ. An empty cell equals ''.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from tasks.errors import TaskInputError
from tasks.planning.faults import near_names

__all__ = ["RowFilter", "parse_filter"]

Lookup: TypeAlias = Callable[[str], str]
Predicate: TypeAlias = Callable[[Lookup], bool]

_DEEPEST = 50  # parentheses and nots inside one another: Python's own stack must not be what ends the parsing
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_TOKEN = re.compile(
    rf"""(?P<number>{_NUMBER.pattern})(?![\w.])
       | (?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*")
       | (?P<column>`[^`]+`)
       | (?P<word>[^\W\d][\w.\-]*)
       | (?P<sign><=|>=|!=|==|[=<>(),])""",
    re.VERBOSE,
)
_SHOWN = 12  # characters of a text that is not understood
_RESERVED = frozenset({"and", "or", "not", "in", "like", "is"})
_SWITCHES = frozenset({"true", "false"})
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True, slots=True)
class RowFilter:
    """An expression, parsed."""

    columns: tuple[tuple[str, int], ...]
    """The columns in it, each with its first position, from 1."""
    matches: Predicate
    """Whether a row is selected, from a function that returns the text of its cell in a column."""

    def check(self, known: Sequence[str]) -> None:
        """Check that every column exists.

        Raises:
            TaskInputError: one sentence with the first that does not, its position, and names near to it.
        """
        for name, position in self.columns:
            if name not in known:
                raise TaskInputError(
                    f"The filter has {name!r} at position {position}, and there is no such column: "
                    f"{near_names(name, known)}."
                )


def parse_filter(text: str) -> RowFilter:
    """Parse an expression; nothing in it is run as code.

    Raises:
        TaskInputError: one sentence with the position, from 1, of the first word that does not fit.
    """
    parser = _Parser(_tokens(text))
    matches = parser.either(0)
    if parser.here.kind != "end":
        raise parser.unexpected("'and', 'or' or the end")
    return RowFilter(columns=tuple(parser.columns.items()), matches=matches)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    position: int
    """Of its first character, from 1."""

    @property
    def keyword(self) -> str:
        """The word or sign that it is, in lower case; "" for text, numbers and columns in backticks."""
        return self.text.lower() if self.kind in {"word", "sign"} else ""


def _tokens(text: str) -> list[_Token]:
    found, position = list[_Token](), 0
    while position < len(text):
        if text[position].isspace():
            position += 1
            continue
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            odd = _Token("odd", text[position : position + _SHOWN], position + 1)
            return [*found, odd]  # where the parser stops
        found.append(_Token(match.lastgroup, match.group(), position + 1))
        position = match.end()
    return [*found, _Token("end", "", len(text) + 1)]


@dataclass(frozen=True, slots=True)
class _Operand:
    kind: str
    """column, text or number."""
    text: str
    """The column's name, or the text or number itself."""

    def read(self, lookup: Lookup) -> str:
        return lookup(self.text) if self.kind == "column" else self.text


@dataclass(slots=True)
class _Parser:
    """Recursive descent, one method for each level of precedence."""

    tokens: Sequence[_Token]
    index: int = 0
    columns: dict[str, int] = field(default_factory=dict)

    @property
    def here(self) -> _Token:
        return self.tokens[self.index]

    def either(self, depth: int) -> Predicate:
        options = [self._both(depth)]
        while self._take("or"):
            options.append(self._both(depth))
        return lambda lookup: any(option(lookup) for option in options)

    def unexpected(self, expected: str) -> TaskInputError:
        found = repr(self.here.text) if self.here.text else "its end"
        return TaskInputError(f"The filter has {found} at position {self.here.position}, where {expected} should be.")

    def _both(self, depth: int) -> Predicate:
        needed = [self._negated(depth)]
        while self._take("and"):
            needed.append(self._negated(depth))
        return lambda lookup: all(each(lookup) for each in needed)

    def _negated(self, depth: int) -> Predicate:
        if depth > _DEEPEST:
            raise self.unexpected(f"a comparison, at most {_DEEPEST} levels down,")
        if self._take("not"):
            return _negation(self._negated(depth + 1))
        if self._take("("):
            inner = self.either(depth + 1)
            self._expect(")")
            return inner
        return self._comparison()

    def _comparison(self) -> Predicate:
        left = self._operand()
        if sign := self._take(*_COMPARISONS):
            return _compared(left, sign, self._operand())
        if self._take("is"):
            negated = self._take("not")
            self._expect("empty")
            test = _compared(left, "=", _Operand("text", ""))
        else:
            negated = self._take("not")
            test = self._membership(left)
        return _negation(test) if negated else test

    def _membership(self, left: _Operand) -> Predicate:
        if self._take("like"):
            return _like(left, self._literal("a quoted text", kinds={"text"}))
        if not self._take("in"):
            raise self.unexpected("a comparison (=, !=, <, <=, >, >=, in, like, is empty)")
        self._expect("(")
        members = [self._literal("a quoted text or a number", kinds={"text", "number"})]
        while self._take(","):
            members.append(self._literal("a quoted text or a number", kinds={"text", "number"}))
        self._expect(")")
        tests = [_compared(left, "=", member) for member in members]
        return lambda lookup: any(test(lookup) for test in tests)

    def _literal(self, expected: str, *, kinds: set[str]) -> _Operand:
        start, operand = self.index, self._operand()
        if operand.kind not in kinds:
            self.index = start
            raise self.unexpected(expected)
        return operand

    def _operand(self) -> _Operand:
        token = self.here
        if token.kind in {"sign", "odd", "end"} or token.keyword in _RESERVED:
            raise self.unexpected("a column, a quoted text or a number")
        self.index += 1
        if token.kind == "number":
            return _Operand("number", token.text)
        if token.kind == "text":
            quote = token.text[0]
            return _Operand("text", token.text[1:-1].replace(quote * 2, quote))
        if token.keyword in _SWITCHES:
            return _Operand("text", token.keyword)
        name = token.text.strip("`")
        self.columns.setdefault(name, token.position)
        return _Operand("column", name)

    def _take(self, *keywords: str) -> str:
        word = self.here.keyword
        if word not in keywords:
            return ""
        self.index += 1
        return word

    def _expect(self, keyword: str) -> None:
        if not self._take(keyword):
            raise self.unexpected(repr(keyword))


def _negation(test: Predicate) -> Predicate:
    return lambda lookup: not test(lookup)


def _compared(left: _Operand, sign: str, right: _Operand) -> Predicate:
    compare, kinds = _COMPARISONS[sign], {left.kind, right.kind}

    def matches(lookup: Lookup) -> bool:
        texts = left.read(lookup), right.read(lookup)
        if "text" in kinds:
            return compare(*texts)
        numbers = [float(text) for text in texts if _NUMBER.fullmatch(text)]
        if len(numbers) == len(texts):
            return compare(*numbers)
        return compare(*texts) if kinds == {"column"} else sign == "!="

    return matches


def _like(left: _Operand, pattern: _Operand) -> Predicate:
    regex = re.compile(".*".join(re.escape(part) for part in re.split(r"\*+", pattern.text)), re.DOTALL)
    return lambda lookup: regex.fullmatch(left.read(lookup)) is not None
