"""deployments/prefect.yaml: what Prefect reads of it, and that it states the same as `wave deploy`."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from prefect.cli.deploy._models import PrefectYamlModel
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.importtools import import_object

from flows.deployments import DEPLOYMENTS, NIGHTLY, POOL
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
