"""The small corpus of the fuzzer: inputs that parsers accept, and those that they once failed on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.run import CORPUS
from tests.fuzz.targets import TARGETS

INPUTS = sorted(path for path in CORPUS.rglob("*") if path.is_file())


def test_every_target_has_inputs() -> None:
    assert {path.parent.name for path in INPUTS} == set(TARGETS)


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_an_input_is_accepted_with_what_its_callers_rely_on_or_refused_in_a_sentence(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())
