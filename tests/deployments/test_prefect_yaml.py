"""deployments/prefect.yaml: what Prefect reads of it, and that it states the same as `wave deploy`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.cli.deploy._models import PrefectYamlModel
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.importtools import import_object
from prefect.workers.process import ProcessWorker

from flows.deployments import DEPLOYMENTS, NIGHTLY, POOL, create_deployments
from flows.settings import HEARTBEAT_SECONDS
from tests._prefect import ROOT

FILE = ROOT / "deployments" / "prefect.yaml"
POOLS = {"": POOL, "-docker": f"{POOL}-docker", "-kubernetes": f"{POOL}-kubernetes"}


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return found


@pytest.fixture(scope="module")
def model(content: dict[str, Any]) -> PrefectYamlModel:
    return PrefectYamlModel.model_validate(content)


def test_each_flow_has_a_deployment_for_processes_for_docker_and_for_kubernetes(model: PrefectYamlModel) -> None:
    found = {each.name: each for each in model.deployments}
    assert set(found) == {f"{spec.name}{suffix}" for spec in DEPLOYMENTS for suffix in POOLS}
    for spec in DEPLOYMENTS:
        for suffix, pool in POOLS.items():
            each = found[f"{spec.name}{suffix}"]
            assert each.work_pool is not None
            assert (each.work_pool.name, each.entrypoint) == (pool, spec.entrypoint)
            assert (each.description, each.tags) == (spec.description, ["wave"])


@pytest.mark.parametrize("spec", DEPLOYMENTS, ids=lambda spec: str(spec.name))
def test_each_entrypoint_is_its_flow(spec: Any) -> None:
    assert load_flow_from_entrypoint(spec.entrypoint).name == spec.flow.name


def test_only_data_sets_have_a_schedule_and_it_is_off(model: PrefectYamlModel, content: dict[str, Any]) -> None:
    for each, raw in zip(model.deployments, content["deployments"], strict=True):
        if not str(each.name).startswith("dataset"):
            assert each.schedules is None
            continue
        assert raw["schedules"] == [NIGHTLY]
        assert each.schedules
        assert each.schedules[0].active is False  # type: ignore[union-attr]


def test_no_deployment_has_a_concurrency_limit(content: dict[str, Any]) -> None:
    assert [each["name"] for each in content["deployments"] if "concurrency_limit" in each] == []


def test_every_run_sends_heartbeats_at_one_frequency(model: PrefectYamlModel) -> None:
    found = {each.work_pool.job_variables["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] for each in model.deployments}  # type: ignore[union-attr]
    assert found == {str(HEARTBEAT_SECONDS)}


def test_the_steps_exist_and_no_code_is_pulled(content: dict[str, Any]) -> None:
    assert content["pull"] == []
    (step,) = content["build"]
    for name in step:
        assert callable(import_object(name))


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
        assert (after.concurrency_limit, after.pull_steps) == (None, [])
        client.delete_deployment(after.id)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_prefect_deploys_the_file(server: str) -> None:
    env = {**os.environ, "PREFECT_API_URL": server, "PYTHONPATH": str(ROOT), "WAVE_WORKSPACE": "/data/wave"}
    template = ProcessWorker.get_default_base_job_template()
    with get_client(sync_client=True) as client:
        # Only the name and the variables of a pool matter here; this environment has workers of processes alone
        for pool in POOLS.values():
            client.create_work_pool(
                WorkPoolCreate(name=pool, type="process", base_job_template=template), overwrite=True
            )
        command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--prefect-file", str(FILE), "--all"]
        done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        for spec in DEPLOYMENTS:
            for suffix, pool in POOLS.items():
                made = client.read_deployment_by_name(f"{spec.flow.name}/{spec.name}{suffix}")
                assert (made.work_pool_name, made.entrypoint, made.pull_steps) == (pool, spec.entrypoint, [])
                assert made.job_variables["env"]["WAVE_WORKSPACE"] == "/data/wave"
        assert len(client.read_automations_by_name("wave: mark lost runs as crashed")) == 1
