"""The rules of imports that import-linter does not check: private modules, and circles between folders."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("flows", "tasks", "wave_ops", "storage")


@cache
def folders_by_module() -> dict[str, str]:
    """Return the folder of every module, both as dotted names; a package belongs to its own folder."""
    found = {}
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        folder = ".".join(path.parent.relative_to(ROOT).parts)
        found[folder if path.stem == "__init__" else f"{folder}.{path.stem}"] = folder
    return found


def imports(node: ast.AST, *, type_checking: bool) -> Iterator[str]:
    """Yield the dotted names that a module imports, at its top level and in functions.

    Args:
        node: the parsed module.
        type_checking: whether imports under `if TYPE_CHECKING` count.
    """
    match node:
        case ast.If(test=ast.Name("TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")) if not type_checking:
            children: list[ast.AST] = [*node.orelse]
        case ast.Import():
            yield from (alias.name for alias in node.names)
            return
        case ast.ImportFrom():
            assert node.level == 0, "relative imports are not used here, and not understood by this test"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
            return
        case _:
            children = [*ast.iter_child_nodes(node)]
    for child in children:
        yield from imports(child, type_checking=type_checking)


def module_imports(*, type_checking: bool) -> Iterator[tuple[str, str]]:
    """Yield pairs of a module and a dotted name of this project that it imports."""
    for module in folders_by_module():
        path = ROOT.joinpath(*module.split("."))
        source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        for name in imports(ast.parse(source.read_text(encoding="utf-8")), type_checking=type_checking):
            if name.partition(".")[0] in PACKAGES:
                yield module, name


def owner_of(name: str) -> str | None:
    """Return the folder that the first private part of a dotted name belongs to; None if no part is private."""
    parts = name.split(".")
    private = next((i for i, part in enumerate(parts) if part.startswith("_") and not part.startswith("__")), None)
    return None if private is None else folders_by_module()[".".join(parts[:private])]


def folder_imports() -> Mapping[str, set[str]]:
    """Return the graph of folders: for each, the other folders that its modules import when they run."""
    folders, graph = folders_by_module(), defaultdict[str, set[str]](set)
    for module, name in module_imports(type_checking=False):
        imported = folders.get(name) or folders[name.rpartition(".")[0]]
        if imported != folders[module]:
            graph[folders[module]].add(imported)
    return graph


def reachable(graph: Mapping[str, set[str]], start: str) -> set[str]:
    found, waiting = set[str](), [start]
    while waiting:
        waiting += new if (new := graph.get(waiting.pop(), set()) - found) else ()
        found.update(waiting)
    return found


def test_no_module_imports_a_private_name_of_another_folder() -> None:
    folders = folders_by_module()
    pairs = [(module, name, owner_of(name)) for module, name in module_imports(type_checking=True)]
    assert [(module, name) for module, name, owner in pairs if owner not in {None, folders[module]}] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_folder_imports_itself_through_other_folders(package: str) -> None:
    graph = folder_imports()
    circles = {
        folder: sorted(other for other in reachable(graph, folder) if folder in reachable(graph, other))
        for folder in graph
        if folder.partition(".")[0] == package and folder in reachable(graph, folder)
    }
    assert circles == {}
