"""Fuzz one target with Atheris until it fails or the time is over: `python -m tests.fuzz.one TARGET OPTION ...`."""

from __future__ import annotations

import shutil
import sys

import atheris

with atheris.instrument_imports(include=["storage", "tasks", "yaml", "tomllib", "csv"]):
    from tests.fuzz import targets

if __name__ == "__main__":
    name, *options = sys.argv[1:]
    atheris.Setup([sys.argv[0], *options], targets.TARGETS[name])
    try:
        atheris.Fuzz()
    finally:
        shutil.rmtree(targets._folder(), ignore_errors=True)
