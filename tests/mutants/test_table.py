from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.mutants.table import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.label for mutant in MUTANTS])
def test_each_fault_fits_the_code_and_names_tests_that_exist(mutant: Mutant) -> None:
    assert (ROOT / mutant.file).read_text(encoding="utf-8").count(mutant.before) == 1
    assert mutant.before != mutant.after
    assert all((ROOT / path.partition("::")[0]).exists() for path in mutant.tests)


def test_labels_are_unique() -> None:
    assert max(Counter(mutant.label for mutant in MUTANTS).values()) == 1
