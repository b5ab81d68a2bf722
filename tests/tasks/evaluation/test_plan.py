from __future__ import annotations

from pathlib import Path

import pytest

from tasks.errors import TaskInputError
from tasks.evaluation.plan import plan_evaluation
from tasks.evaluation.request import EvaluationRequest, command_line
from tasks.planning.plan import Execution
from tests._evaluation import CoarseCopies


def names(patterns: tuple[str, ...], folder: Path) -> list[str]:
    request = EvaluationRequest(comparison="coarse", method=patterns, clips=1)
    return [method.name for method in plan_evaluation(request, execution=Execution(workspace=str(folder))).methods]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ((), ["every 2", "every 4", "every 8"]),
        (("every 8",), ["every 2", "every 8"]),
        (("*4", "*8"), ["every 2", "every 4", "every 8"]),
        (("every 2",), ["every 2"]),
    ],
)
def test_the_methods_that_are_named_are_compared_with_the_baseline(
    coarse: CoarseCopies, tmp_path: Path, patterns: tuple[str, ...], expected: list[str]
) -> None:
    assert names(patterns, tmp_path) == expected


def test_a_method_that_is_not_there_is_refused_with_its_neighbours(coarse: CoarseCopies, tmp_path: Path) -> None:
    with pytest.raises(TaskInputError, match="no method 'every 3' in this comparison; near it are: every"):
        names(("every 3",), tmp_path)


def test_the_command_names_each_method() -> None:
    request = EvaluationRequest(comparison="inversion", method=("plain*", "group"), clips=4)
    assert command_line(request) == "wave evaluate inversion --method 'plain*' --method group --clips 4"
