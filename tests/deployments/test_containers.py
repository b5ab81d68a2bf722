"""The images, the compose file and the Kubernetes job: checked by their rules, since building them needs Docker."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import prefect.server.api
import pytest
import yaml

from flows.settings import HEARTBEAT_SECONDS, WaveSettings
from tests._prefect import ROOT

DOCKER = ROOT / "deployments" / "docker"
TEMPLATE = ROOT / "deployments" / "kubernetes" / "job-template.json"
METADATA = Path(prefect.server.api.__file__).parent / "collections_data" / "views" / "aggregate-worker-metadata.json"
HEARTBEAT = "PREFECT_FLOWS_HEARTBEAT_FREQUENCY"
PINNED = re.compile(r"[^:@\s]+:[^\s:]*\d+\.\d+[^\s:]*")
SERVICE_KEYS = {
    "build", "command", "depends_on", "deploy", "environment", "healthcheck", "image", "ports", "profiles", "restart",
    "volumes",
}  # fmt: skip
"""The keys of the compose specification that the file uses."""


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile, with continued lines joined."""
    text = re.sub(r"(?m)^#.*\n", "", (DOCKER / "Dockerfile").read_text()).replace("\\\n", " ")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    return found


def test_images_start_from_a_pinned_one_and_do_not_run_as_root() -> None:
    stages = dict[str, str]()
    user = dict[str, str]()
    for word, rest in instructions():
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            assert base in stages or PINNED.fullmatch(base), base
            stages[name], user[name] = base, user.get(base, "root")
        elif word == "USER":
            user[name] = rest
    assert user["cpu"] == user["cuda"] == "10001"


def test_images_contain_every_package_of_the_project_and_install_by_hash() -> None:
    copied = {rest.split()[0] for word, rest in instructions() if word == "COPY"}
    assert {"flows", "tasks", "wave_ops", "storage"} <= copied
    assert "--require-hashes -r requirements.lock" in (ROOT / "Makefile").read_text()
    assert any(word == "RUN" and "make .venv/.ready" in rest for word, rest in instructions())


def test_the_build_sees_what_it_copies() -> None:
    seen = {line[1:] for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")}
    local = [rest.split()[:-1] for word, rest in instructions() if word == "COPY" and not rest.startswith("--from")]
    assert {name for names in local for name in names} == seen
    assert all((ROOT / name).exists() for name in seen)


def environment(text: str) -> dict[str, str]:
    return dict(pair.partition("=")[::2] for pair in text.split())


def test_variables_of_images_services_and_jobs_are_known_and_heartbeats_agree(
    services: dict[str, dict[str, Any]],
) -> None:
    images = [environment(rest) for word, rest in instructions() if word == "ENV"]
    job = json.loads(TEMPLATE.read_text())["variables"]["properties"]["env"]["default"]
    all_of = [*images, *(service.get("environment", {}) for service in services.values()), job]
    assert {each[HEARTBEAT] for each in all_of if HEARTBEAT in each} == {str(HEARTBEAT_SECONDS)}
    known = {f"WAVE_{name}".upper() for name in WaveSettings.model_fields}
    assert {name for each in all_of for name in each if name.startswith("WAVE_")} <= known


def test_services_use_known_keys_pinned_images_and_each_other(services: dict[str, dict[str, Any]]) -> None:
    volumes = yaml.safe_load((DOCKER / "compose.yaml").read_text())["volumes"]
    for service in services.values():
        assert set(service) <= SERVICE_KEYS
        assert "build" in service or PINNED.fullmatch(service["image"])
        assert {place.partition(":")[0] for place in service.get("volumes", [])} <= set(volumes)
        for needed, condition in service.get("depends_on", {}).items():
            assert condition["condition"] in {"service_started", "service_healthy", "service_completed_successfully"}
            assert condition["condition"] != "service_healthy" or "healthcheck" in services[needed]
    targets = {service["build"]["target"] for service in services.values() if "build" in service}
    assert targets == {"cpu", "cuda"}


def test_services_find_each_other_by_name(services: dict[str, dict[str, Any]]) -> None:
    text = json.dumps(services)
    hosts = set(re.findall(r"(?:http|tcp)://([a-z]+):\d+", text)) | set(re.findall(r"@([a-z]+):\d+", text))
    assert hosts == {"server", "store", "scheduler", "database"}
    assert hosts <= set(services)


def test_passwords_are_demanded_not_written(services: dict[str, dict[str, Any]]) -> None:
    for service in services.values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|AUTH|KEY", name):
                assert re.search(r"\$\{[A-Z0-9_]+:\?", value), name


def test_dask_workers_advertise_their_resources(services: dict[str, dict[str, Any]]) -> None:
    def resources(name: str) -> dict[str, int]:
        command = services[name]["command"]
        pairs = command[command.index("--resources") + 1].split(",")
        return {key: int(count) for key, count in (pair.split("=") for pair in pairs)}

    assert resources("cpu") == {"CPU": 4}
    assert resources("gpu") == {"GPU": 1, "CPU": 1}


@pytest.mark.skipif(not shutil.which("docker-compose"), reason="docker-compose is not installed")
def test_docker_compose_reads_the_file() -> None:
    text = (DOCKER / "compose.yaml").read_text()
    secrets = dict.fromkeys(re.findall(r"\$\{([A-Z0-9_]+):\?", text), "x")
    command = ["docker-compose", "--file", str(DOCKER / "compose.yaml"), "config", "--quiet"]
    done = subprocess.run(command, env={**os.environ, **secrets}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def paths(value: Any, at: str = "") -> Iterator[str]:
    """Yield the path of every key of a nested value."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield f"{at}/{key}"
        yield from paths(inner, f"{at}/{key}")


def test_the_kubernetes_job_has_the_structure_that_prefects_worker_expects() -> None:
    ours = json.loads(TEMPLATE.read_text())
    theirs = json.loads(METADATA.read_text())["prefect-kubernetes"]["kubernetes"]["default_base_job_configuration"]
    missing = set(paths(theirs["job_configuration"])) - set(paths(ours["job_configuration"]))
    assert {path.rpartition("/")[2] for path in missing} == {"cpu"}  # no limit, so that idle cores are used
    container = ours["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]["containers"][0]
    assert container["name"] == "prefect-job"
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "{{ gpus }}"


def test_every_placeholder_of_the_kubernetes_job_is_a_variable_and_every_variable_is_used() -> None:
    template = json.loads(TEMPLATE.read_text())
    used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(template["job_configuration"])))
    assert used == set(template["variables"]["properties"])
    jsonschema.Draft202012Validator.check_schema(template["variables"])
    defaults = {
        name: each["default"] for name, each in template["variables"]["properties"].items() if "default" in each
    }
    jsonschema.validate(defaults, template["variables"])
