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
def test_the_named_methods_and_the_baseline_are_planned(
    coarse: CoarseCopies, tmp_path: Path, patterns: tuple[str, ...], expected: list[str]
) -> None:
    assert names(patterns, tmp_path) == expected


def test_an_unknown_method_is_an_error_that_lists_the_nearest(coarse: CoarseCopies, tmp_path: Path) -> None:
    with pytest.raises(TaskInputError, match="no method 'every 3' in this comparison; the nearest are: every"):
        names(("every 3",), tmp_path)


def test_the_command_line_repeats_the_option_for_each_method() -> None:
    request = EvaluationRequest(comparison="inversion", method=("plain*", "group"), clips=4)
    assert command_line(request) == "wave evaluate inversion --method 'plain*' --method group --clips 4"


def test_another_shuffle_seed_keeps_the_clips_and_shares_no_outcome(tmp_path: Path) -> None:
    plans = [
        plan_evaluation(
            EvaluationRequest(comparison="video", quick=True, clips=2, shuffle_seed=seed),
            execution=Execution(workspace=str(tmp_path)),
        )
        for seed in (0, 1, 2)
    ]
    assert plans[0].clips == plans[1].clips == plans[2].clips
    assert len({plan.ref(plan.clips[0], plan.methods[0]).digest for plan in plans}) == 3
    assert command_line(plans[2].request).endswith("--shuffle-seed 2")


def test_reference_rows_stay_in_every_selection_of_methods(tmp_path: Path) -> None:
    request = EvaluationRequest(comparison="video", method=("each frame*",), quick=True, clips=1, controlnet="none")
    plan = plan_evaluation(request, execution=Execution(workspace=str(tmp_path)))
    assert [method.name for method in plan.methods] == [
        "default",
        "each frame alone",
        "source unchanged",
        "half source, half truth",
        "true edit",
    ]


def test_a_quick_run_takes_few_methods_unless_they_are_named(tmp_path: Path) -> None:
    def planned(*named: str) -> set[str]:
        request = EvaluationRequest(comparison="video", quick=True, clips=1, method=named)
        plan = plan_evaluation(request, execution=Execution(workspace=str(tmp_path)))
        rows = [method for method in plan.methods if not method.reference]
        return {method.name for method in rows if method.factors["settings"]["schedule.steps"] == 20}

    assert planned() == {"default", "all four as before", "each frame alone", "colour map"}
    assert planned("nothing pasted") == {"default", "nothing pasted"}
    assert planned("50 steps") == {"default"}
