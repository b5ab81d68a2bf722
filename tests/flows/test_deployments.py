"""Deployments on a real server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.workers.process import ProcessWorker

from flows.deployments import DEPLOYMENTS, POOL, create_deployments
from tests._prefect import ROOT, free_port, prefect_server, server_environment, wait_for


def test_deploying_again_keeps_the_schedule_that_a_person_has_changed(server: str, tmp_path: Path) -> None:
    names = create_deployments(tmp_path)
    with get_client(sync_client=True) as client:
        before = client.read_deployment_by_name("edit-dataset/dataset")
        (schedule,) = before.schedules
        assert (schedule.active, schedule.slug) == (False, "nightly")
        client._client.patch(f"/deployments/{before.id}/schedules/{schedule.id}", json={"active": True})
        assert create_deployments(tmp_path / "other") == names
        after = client.read_deployment_by_name("edit-dataset/dataset")
        assert [(each.active, each.slug) for each in after.schedules] == [(True, "nightly")]
        assert after.job_variables["working_dir"] == str(tmp_path / "other")
        assert after.global_concurrency_limit is None
        assert not after.pull_steps
        client.delete_deployment(after.id)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_server_creates_the_runs_of_a_schedule_that_is_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = server_environment(tmp_path / "home", free_port())
    monkeypatch.setenv("PREFECT_API_URL", env["PREFECT_API_URL"])
    settings = {PREFECT_API_URL: env["PREFECT_API_URL"]}
    with (
        prefect_server(env, tmp_path / "server.log"),
        temporary_settings(settings),
        get_client(sync_client=True) as client,
    ):
        create_deployments(tmp_path)
        deployment = client.read_deployment_by_name("edit-dataset/dataset")
        (schedule,) = deployment.schedules
        client.update_deployment_schedule(deployment.id, schedule.id, active=True)
        wait_for(client.read_flow_runs, seconds=300, what="the first run of the schedule")
        run = client.read_flow_runs()[0]
        assert run.auto_scheduled
        assert run.deployment_id == deployment.id


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_prefect_deploys_the_file(server: str) -> None:
    pools = {"": POOL, "-docker": f"{POOL}-docker", "-kubernetes": f"{POOL}-kubernetes"}
    env = {**os.environ, "PREFECT_API_URL": server, "PYTHONPATH": str(ROOT), "WAVE_WORKSPACE": "/data/wave"}
    template = ProcessWorker.get_default_base_job_template()
    with get_client(sync_client=True) as client:
        # Only the name and the variables of a pool matter here; this environment has workers of processes alone
        for pool in pools.values():
            client.create_work_pool(
                WorkPoolCreate(name=pool, type="process", base_job_template=template), overwrite=True
            )
        command = [
            sys.executable,
            "-m",
            "prefect",
            "--no-prompt",
            "deploy",
            "--prefect-file",
            str(ROOT / "deployments" / "prefect.yaml"),
            "--all",
        ]
        done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        for spec in DEPLOYMENTS:
            for suffix, pool in pools.items():
                made = client.read_deployment_by_name(f"{spec.flow.name}/{spec.name}{suffix}")
                assert (made.work_pool_name, made.entrypoint) == (pool, spec.entrypoint)
                assert not made.pull_steps
                assert made.job_variables["env"]["WAVE_WORKSPACE"] == "/data/wave"
        assert len(client.read_automations_by_name("wave: mark lost runs as crashed")) == 1
