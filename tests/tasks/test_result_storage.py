from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cloudpickle
import pytest
from prefect import task
from prefect.results import ResultStore

from storage.workspace import Workspace
from tasks.result_storage import WorkspaceResults, store_results

ROOT = Path(__file__).parents[2]
WRITER = """
import sys
from prefect.results import ResultStore
from tasks.result_storage import WorkspaceResults
ResultStore(result_storage=WorkspaceResults(url=sys.argv[1])).write({"path": "a"}, key="stage-1")
"""


def test_a_result_is_stored_in_the_workspace_under_its_key(tmp_path: Path) -> None:
    url = f"memory://{tmp_path}"
    store = ResultStore(result_storage=WorkspaceResults(url=url))
    assert not store.exists("stage-1")
    store.write({"path": "a"}, key="stage-1")
    assert list(Workspace.open(url).files.sizes()) == ["results/stage-1"]
    again = ResultStore(result_storage=WorkspaceResults(url=url))
    assert again.exists("stage-1")
    assert again.read("stage-1").result == {"path": "a"}
    again.write({"path": "b"}, key="stage-1")
    assert ResultStore(result_storage=WorkspaceResults(url=url)).read("stage-1").result == {"path": "b"}


def test_a_result_of_another_process_is_found(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-c", WRITER, tmp_path.as_uri()], check=True, env=environment, timeout=240)
    assert ResultStore(result_storage=WorkspaceResults(url=tmp_path.as_uri())).read("stage-1").result == {"path": "a"}


def test_looking_for_a_result_and_reading_it_is_one_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"memory://{tmp_path}"
    ResultStore(result_storage=WorkspaceResults(url=url)).write(1, key="stage-1")
    files = type(Workspace.open(url).files)
    asked: list[str] = []
    read = files.read
    monkeypatch.setattr(files, "read", lambda self, key: asked.append(key) or read(self, key))
    store = ResultStore(result_storage=WorkspaceResults(url=url))
    assert store.exists("stage-1")
    assert store.read("stage-1").result == 1
    assert asked == ["results/stage-1"]


def test_the_storage_goes_with_a_task_to_another_machine(tmp_path: Path) -> None:
    made = task(lambda: 1, name="stage")
    copied = made.with_options(tags=["cpu"])
    store_results(copied, "s3://bucket/prefix")
    assert cloudpickle.loads(cloudpickle.dumps(copied)).result_storage == WorkspaceResults(url="s3://bucket/prefix")
    assert made.result_storage is None
    store_results(copied, str(tmp_path))
    assert copied.result_storage == tmp_path / "results"
