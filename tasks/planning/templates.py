"""Prompts with columns and choices: `a {red|blue} {object}`.

Convention:
    - `{name}` is the row's text in the column of that name.
    - `{a|b|c}` is one of its options; options may be empty, and may contain columns and choices.
    - `{{` and `}}` are literal braces. Inside a choice they must be balanced within one option, since `}}` may also
      close two choices. `{{` is never two opening braces: put a nested choice behind an option's first word, or into
      an option other than the first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from tasks.errors import TaskInputError
from tasks.planning.faults import near_names

__all__ = ["Template", "escape_braces", "parse_template"]

_DEEPEST = 20  # choices inside one another
_PLAIN = re.compile(r"[^{}|]+")


@dataclass(frozen=True, slots=True)
class _Column:
    name: str


@dataclass(frozen=True, slots=True)
class _Choice:
    number: int
    options: tuple[tuple[_Part, ...], ...]


_Part: TypeAlias = str | _Column | _Choice
Choose: TypeAlias = Callable[[int, int], int]


@dataclass(frozen=True, slots=True)
class Template:
    """A prompt, parsed."""

    parts: tuple[_Part, ...]
    columns: tuple[str, ...]
    """Names of the columns that it refers to, in any of its options."""

    def check(self, known: Sequence[str]) -> None:
        """Check that every column exists.

        Raises:
            TaskInputError: with the first that does not, and names near to it.
        """
        unknown = next((name for name in self.columns if name not in known), None)
        if unknown is not None:
            raise TaskInputError(f"there is no column {unknown!r} to refer to; {near_names(unknown, known)}")

    def fill(self, values: Mapping[str, str], choose: Choose) -> str:
        """Return the text.

        Args:
            values: by column; inserted as they are, braces and all.
            choose: from the number of a choice, counted from 0 by the opening braces, and how many options it has, to
                the index of the option.
        """
        return _fill(self.parts, values, choose)


def parse_template(text: str) -> Template:
    """Parse a prompt.

    Raises:
        TaskInputError: a clause with the position, from 1, of braces that do not match.
    """
    if "{" not in text and "}" not in text:  # as most prompts of a large manifest
        return Template(parts=(text,), columns=())
    parser = _Parser(text)
    parts = parser.sequence(depth=0)
    return Template(parts=parts, columns=tuple(dict.fromkeys(parser.columns)))


def escape_braces(text: str) -> str:
    """Return the prompt that is filled in to this text."""
    return text.replace("{", "{{").replace("}", "}}")


def _fill(parts: Sequence[_Part], values: Mapping[str, str], choose: Choose) -> str:
    return "".join([part if isinstance(part, str) else _text(part, values, choose) for part in parts])


def _text(part: _Column | _Choice, values: Mapping[str, str], choose: Choose) -> str:
    if isinstance(part, _Column):
        return values[part.name]
    return _fill(part.options[choose(part.number, len(part.options))], values, choose)


@dataclass(slots=True)
class _Parser:
    text: str
    position: int = 0
    choices: int = 0
    columns: list[str] = field(default_factory=list)

    def sequence(self, *, depth: int) -> tuple[_Part, ...]:
        """Parse up to the end of the text, or of an option."""
        parts: list[_Part] = []
        literal, open_braces = "", 0
        while self.position < len(self.text) and not (depth and self._ends_option(open_braces)):
            pair = self.text[self.position : self.position + 2]
            if pair in {"{{", "}}"}:
                literal, self.position = literal + pair[0], self.position + 2
                open_braces += 1 if pair == "{{" else -1
            elif pair[0] == "{":
                parts, literal = [*parts, literal, self._group(depth + 1)], ""
            elif pair[0] == "}":
                raise self._error(self.position, "} without its {", "write }} for a brace")
            else:
                literal += self._plain()
        if depth and open_braces:
            raise self._error(self.position, "{{ without its }} in a choice", "write braces in pairs there")
        return tuple(part for part in (*parts, literal) if part != "")

    def _ends_option(self, open_braces: int) -> bool:
        here = self.text[self.position]
        return here == "|" or (here == "}" and not (open_braces > 0 and self.text.startswith("}}", self.position)))

    def _plain(self) -> str:
        found = _PLAIN.match(self.text, self.position)
        plain = found.group() if found else self.text[self.position]
        self.position += len(plain)
        return plain

    def _group(self, depth: int) -> _Part:
        """Parse from an opening brace to the one that closes it."""
        start, number = self.position, self.choices
        if depth > _DEEPEST:
            raise self._error(start, f"more than {_DEEPEST} choices inside one another", "write fewer")
        self.choices += 1
        options = list[tuple[_Part, ...]]()
        while not options or self.text.startswith("|", self.position):
            self.position += 1
            options.append(self.sequence(depth=depth))
        if self.position == len(self.text):
            raise self._error(start, "{ without its }", "write {{ for a brace")
        self.position += 1
        return _Choice(number, tuple(options)) if len(options) > 1 else self._column(start, options[0])

    def _column(self, start: int, parts: tuple[_Part, ...]) -> _Column:
        if len(parts) != 1 or not isinstance(parts[0], str) or not (name := parts[0].strip()):
            raise self._error(start, "{ without a column or a choice", "write {name} or {a|b}")
        self.columns.append(name)
        return _Column(name)

    def _error(self, position: int, what: str, advice: str) -> TaskInputError:
        return TaskInputError(f"the prompt has a {what} at position {position + 1}: {advice}")
