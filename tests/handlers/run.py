"""List the exception handlers that no test reaches, from coverage data and the syntax tree.

Run as `make handlers`, which collects the data first, or `python -m tests.handlers.run DATA`. A handler is reached if
one of the lines of its body was run. Exits with 1 if one was not.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from coverage import CoverageData

__all__ = ["handlers", "main", "unreached"]

ROOT = Path(__file__).parents[2]
PACKAGES = ("storage", "tasks")


def main(arguments: Sequence[str], *, root: Path = ROOT) -> int:
    data = CoverageData(basename=arguments[0])
    data.read()
    files = sorted(path for package in PACKAGES for path in (root / package).rglob("*.py"))
    sources = {path: path.read_text(encoding="utf-8") for path in files}
    count = sum(len(list(handlers(source))) for source in sources.values())
    missing = [
        f"{path.relative_to(root)}:{line}"
        for path, source in sources.items()
        for line in unreached(source, set(data.lines(str(path)) or ()))
    ]
    sys.stdout.writelines(f"{place}: no test reaches this handler\n" for place in missing)
    sys.stdout.write(f"{count - len(missing)} of {count} handlers are reached\n")
    return int(bool(missing))


def handlers(source: str) -> Iterator[tuple[int, range]]:
    """Yield the line of each `except`, and the lines of its body."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ExceptHandler):
            yield node.lineno, range(node.body[0].lineno, (node.body[-1].end_lineno or node.lineno) + 1)


def unreached(source: str, executed: set[int]) -> list[int]:
    """Return the lines of the handlers of which no line was run."""
    return sorted(line for line, body in handlers(source) if not executed & set(body))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
