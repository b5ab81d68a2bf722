"""Rules of safety for the whole code: nothing that runs what a file says, and one door for sources."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("flows", "tasks", "wave_ops", "storage")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

FORBIDDEN_MODULES = {"pickle", "cloudpickle", "dill", "shelve", "marshal", "joblib", "code", "pty", "commands"}
FORBIDDEN_BUILTINS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_CALLS = {
    "os.system",
    "os.popen",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
    "yaml.load",
    "yaml.full_load",
    "yaml.unsafe_load",
    "yaml.load_all",
    "pd.read_pickle",
    "pandas.read_pickle",
}
ONE_DOOR = {"fsspec.open", "fsspec.core.url_to_fs", "fsspec.core.open", "fsspec.open_files", "fsspec.url_to_fs"}


def dotted(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attr):
            return f"{dotted(value)}.{attr}"
    return ""


def faults(source: str, *, door: bool = False) -> Iterator[str]:
    """Yield what a module may not do.

    Args:
        source: its text.
        door: whether it is the one that opens URLs.
    """
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (each.name for each in names if each.name.partition(".")[0] in FORBIDDEN_MODULES)
            case ast.ImportFrom(module=str(module), names=names):
                if module.partition(".")[0] in FORBIDDEN_MODULES:
                    yield module
                full = {f"{module}.{each.name}" for each in names}
                yield from full & (FORBIDDEN_CALLS | (set() if door else ONE_DOOR))
            case ast.Call(func=func, keywords=keywords):
                name = dotted(func)
                if name in FORBIDDEN_BUILTINS | FORBIDDEN_CALLS | (set() if door else ONE_DOOR):
                    yield name
                given = {each.arg: each.value for each in keywords}
                yield from forbidden_options(name, given)


def forbidden_options(name: str, given: dict[str | None, ast.expr]) -> Iterator[str]:
    """Yield options of calls that would start a shell or read a pickle."""
    for option, only in (("shell", False), ("allow_pickle", False), ("trust_remote_code", False)):
        if option in given and not (isinstance(given[option], ast.Constant) and given[option].value is only):  # type: ignore[attr-defined]
            yield f"{name}({option}=...)"
    if name in {"torch.load", "get_state_dict"} or name.endswith(".get_state_dict"):
        safe = given.get("weights_only")
        if not (isinstance(safe, ast.Constant) and safe.value is True):
            yield f"{name} without weights_only=True"
    if name in {"np.load", "numpy.load"} and "allow_pickle" not in given:
        yield f"{name} without allow_pickle=False"
    if name.endswith(".from_pretrained") and "Tokenizer" not in name and "Processor" not in name:
        safe = given.get("use_safetensors")
        if not (isinstance(safe, ast.Constant) and safe.value is True):
            yield f"{name} without use_safetensors=True"


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_no_module_reads_pickles_evaluates_text_or_starts_a_shell(path: Path) -> None:
    door = path == ROOT / "tasks" / "planning" / "source_policy.py"
    assert list(faults(path.read_text(encoding="utf-8"), door=door)) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from cloudpickle import loads",
        "eval('1')",
        "import subprocess\nsubprocess.run('ls', shell=True)",
        "import os\nos.system('ls')",
        "import yaml\nyaml.load('a')",
        "from yaml import unsafe_load",
        "import torch\ntorch.load('a')",
        "import torch\ntorch.load('a', weights_only=False)",
        "import numpy as np\nnp.load('a')",
        "np.load('a', allow_pickle=True)",
        "AutoModel.from_pretrained('a')",
        "AutoModel.from_pretrained('a', use_safetensors=True, trust_remote_code=True)",
        "import fsspec\nfsspec.open('http://a')",
        "import fsspec\nfsspec.core.url_to_fs('http://a')",
    ],
)
def test_each_fault_is_found(source: str) -> None:
    assert list(faults(source)) != []
