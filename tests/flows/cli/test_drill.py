"""`wave drill`."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.drill import Outcome


def outcome(**changes: object) -> Outcome:
    fixed = {"fault": "full disk", "failed": 1, "twice": 0, "same": True}
    return Outcome(**(fixed | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(("changes", "code"), [({}, 0), ({"twice": 1}, 1), ({"same": False}, 1)])
def test_the_exit_code_is_1_if_a_fault_changes_the_frames_or_has_a_job_computed_twice(
    changes: dict[str, object], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.drill.run_drill", lambda: iter([outcome(), outcome(**changes)]))
    ended = CliRunner().invoke(app, ["drill", "--json"])
    assert ended.exit_code == code
    first, _ = ended.stdout.splitlines()
    assert json.loads(first) == {"fault": "full disk", "failed": 1, "twice": 0, "same": True}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_fault_is_resumed_to_the_frames_of_a_quiet_run() -> None:
    ended = CliRunner().invoke(app, ["drill", "--json"])
    outcomes = [json.loads(line) for line in ended.stdout.splitlines()]
    assert len(outcomes) == 15
    assert ended.exit_code == 0
    may_pass = {"two processes on one clip", "Prefect's server away for a minute"}
    assert all(each["failed"] for each in outcomes if each["fault"] not in may_pass)
