"""The list of handlers that no test reaches."""

from __future__ import annotations

from pathlib import Path

import pytest
from coverage import CoverageData

from tests.handlers.run import main, unreached

SOURCE = """
try:
    a()
except ValueError as error:
    raise KeyError from error
except (
    OSError
):
    b()
else:
    c()
try:
    d()
finally:
    e()
"""


@pytest.mark.parametrize(
    ("executed", "missing"),
    [({2, 3, 4, 5, 9}, []), ({2, 3, 4, 6, 9}, [4]), ({2, 3, 4, 5, 6, 7}, [6]), ({2, 3, 11, 13, 15}, [4, 6])],
)
def test_a_handler_is_reached_if_a_line_of_its_body_was_run(executed: set[int], missing: list[int]) -> None:
    assert unreached(SOURCE, executed) == missing


@pytest.mark.parametrize(("executed", "places"), [({5, 9}, []), ({5}, [6]), (set(), [4, 6])])
def test_the_command_names_each_handler_that_no_test_reaches(
    executed: set[int], places: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "storage" / "a.py"
    file.parent.mkdir()
    file.write_text(SOURCE)
    data = CoverageData(basename=str(tmp_path / "data"))
    data.add_lines({str(file): executed})
    data.write()
    assert main([str(tmp_path / "data")], root=tmp_path) == int(bool(places))
    *lines, last = capsys.readouterr().out.splitlines()
    assert lines == [f"storage/a.py:{line}: no test reaches this handler" for line in places]
    assert last == f"{2 - len(places)} of 2 handlers are reached"
