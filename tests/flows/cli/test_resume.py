"""`wave resume`, and the exit code of a data set that could not start."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pandas as pd
import pytest
from prefect import flow
from prefect.client.orchestration import get_client

from flows.cli import main
from flows.deployments import create_deployments
from flows.edit_dataset import edit_dataset
from flows.edit_video import edit_video
from flows.settings import WaveSettings, using_settings
from storage.workspace import open_artifact
from tasks.errors import TaskInputError
from tasks.planning.dataset import dataset_request
from tasks.planning.request import EditRequest, edit_request
from tests._clips import save_clip


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("WAVE_WORKSPACE", str(tmp_path / "workspace"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def connected(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let commands use the server of the tests."""
    monkeypatch.setattr("flows.cli.server.connect_server", lambda **_: server)
    return server


def wave(*arguments: object, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["wave", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def edit(clip: Path, sd15: Path, **more: Any) -> EditRequest:
    return edit_request(video=str(clip), prompt="a blue star", model=str(sd15), steps=1, keyframe_interval=3, **more)


def test_an_edit_that_failed_is_run_again_with_what_it_was_given(
    connected: str,
    clip: Path,
    sd15: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    settings = WaveSettings(workspace=str(tmp_path / "elsewhere"), max_tasks=2)
    with monkeypatch.context() as patch:
        patch.setattr("flows.edit_video.begin_propagation", lambda _: (_ for _ in ()).throw(TaskInputError("broken")))
        failed = edit_video(edit(clip, sd15), settings, return_state=True)
    assert failed.is_failed()
    assert wave("resume", failed.state_details.flow_run_id, monkeypatch=monkeypatch) == 0
    said = capfd.readouterr().out
    assert "The edited clip is" in said
    assert str(tmp_path / "elsewhere") in said
    again = edit_video(edit(clip, sd15), settings)
    assert open_artifact(again).is_complete()


def test_a_data_set_is_run_again_and_only_what_failed_is_computed(
    connected: str, sd15: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    save_clip(tmp_path / "good.mp4", frames=3)
    (tmp_path / "bad.mp4").write_text("not a video")
    rows = [{"id": name, "source": f"{name}.mp4", "prompt": "a blue star"} for name in ("good", "bad")]
    pd.DataFrame(rows).to_csv(tmp_path / "resumed.csv", index=False)
    request = dataset_request(source="resumed.csv", defaults={"model": str(sd15), "steps": 1, "keyframe_interval": 2})
    with using_settings(WaveSettings(max_tasks=2)):
        assert str(edit_dataset(request)) == "1 done, 0 skipped, 1 failed"
    assert wave("resume", "resumed", monkeypatch=monkeypatch) == 1
    assert "0 done, 1 skipped, 1 failed" in capfd.readouterr().out
    save_clip(tmp_path / "bad.mp4", seed=5, frames=3)
    assert wave("resume", "resumed", monkeypatch=monkeypatch) == 0
    assert "1 done, 1 skipped, 0 failed" in capfd.readouterr().out


def test_the_run_of_a_deployment_is_scheduled_again_with_its_parameters(
    connected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    create_deployments(tmp_path)
    parameters = {"request": {"source": "clips.csv", "limit": 3}}
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("edit-dataset/dataset")
        run = client.create_flow_run_from_deployment(deployment.id, parameters=parameters, name="nightly-one")
        assert wave("resume", "nightly-one", monkeypatch=monkeypatch) == 1
        assert "The run nightly-one is scheduled: wait until it ends" in capfd.readouterr().err
        client.set_flow_run_state(run.id, _crashed(), force=True)
        assert wave("resume", run.id, monkeypatch=monkeypatch) == 0
        new = client.read_flow_run(capfd.readouterr().out.split()[-1])
        assert new.id != run.id
        assert (new.parameters, new.deployment_id) == (run.parameters, deployment.id)
        assert new.state.type.value == "SCHEDULED"
        client.delete_deployment(deployment.id)


def _crashed() -> Any:
    from prefect.states import Crashed  # noqa: PLC0415

    return Crashed()


def test_what_cannot_be_resumed_gets_one_sentence(
    connected: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    @flow(name="other")
    def other() -> None:
        pass

    run = other(return_state=True).state_details.flow_run_id
    for asked, words in ((run, "is of the flow other"), (uuid4(), "knows no flow run"), ("nothing", "knows no flow")):
        assert wave("resume", asked, monkeypatch=monkeypatch) == 1
        said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("wave: ")]
        assert len(said) == 1
        assert words in said[0]


@pytest.mark.parametrize(
    "arguments",
    [("nothing.csv",), ("clips.csv",), ("clips.csv", "--shard", "3/2"), ("clips.csv", "--settings", "no.toml")],
)
def test_a_data_set_of_which_nothing_could_start_ends_with_2(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "clips.csv").write_text("id,source,prompt,colour-of\n1,missing.mp4,,\n")
    assert wave("dataset", *arguments, monkeypatch=monkeypatch) == 2
    assert capfd.readouterr().err.strip().startswith("wave: ")


def test_a_data_set_without_its_server_ends_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    save_clip(tmp_path / "one.mp4", frames=3)
    (tmp_path / "clips.csv").write_text("id,source,prompt\n1,one.mp4,a star\n")
    message = "The Prefect server does not answer."
    monkeypatch.setattr("flows.cli.server.find_server", lambda: (_ for _ in ()).throw(TaskInputError(message)))
    assert wave("dataset", "clips.csv", monkeypatch=monkeypatch) == 2
    assert message in capfd.readouterr().err
