"""`wave serve`: what it refuses, and that it leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import psutil
import pytest

from flows.cli import main
from flows.cli.serve import database_url, server_address
from tests._prefect import free_port, server_environment, wait_for

ANY = "0.0.0.0"  # noqa: S104


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("WAVE_") or name.endswith("AUTH_STRING")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)


def run(*arguments: object, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["wave", "serve", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", ANY], "needs a password: set PREFECT_SERVER_API_AUTH_STRING"),
        (["--host", "::"], "needs a password"),
        (["--host", "example.org"], "needs a password"),
        (["--database", "mysql://x/y"], "postgresql://USER:PASSWORD@HOST/NAME"),
        (["--database", "prefect.db"], "must be a URL"),
        (["--database", "postgresql://wave:hidden@127.0.0.1:9/x"], "The database x on 127.0.0.1 cannot be used"),
        (["--gpus", "0,0"], "different whole numbers"),
        (["--gpus", "one"], "different whole numbers"),
        (["--webhook", "ftp://x"], "WAVE_WEBHOOK is not a URL"),
        (["--port", "0"], "port"),
    ],
)
def test_bad_options_get_one_sentence(
    arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("flows.cli.serve._run", lambda *_, **__: pytest.fail("nothing may start"))
    assert run(*arguments, monkeypatch=monkeypatch) != 0
    said = capfd.readouterr().err.strip()
    assert words in said
    assert "hidden" not in said
    assert "\n" not in said


def test_a_port_that_is_in_use_is_said_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("flows.cli.serve._run", lambda *_, **__: pytest.fail("nothing may start"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert run("--port", taken.getsockname()[1], monkeypatch=monkeypatch) == 1
    assert "choose another --port" in capfd.readouterr().err


@pytest.mark.parametrize("password", ["wave", ":x", "wave:"])
def test_a_password_has_a_user(
    password: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", password)
    assert run("--host", ANY, "--port", free_port(), "--dry-run", monkeypatch=monkeypatch) == 1
    assert "USER:PASSWORD" in capfd.readouterr().err


def test_a_dry_run_prints_what_would_run_and_starts_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("flows.cli.serve._run", lambda *_, **__: pytest.fail("nothing may start"))
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "wave:hidden")
    options = ("--host", ANY, "--port", free_port(), "--gpus", "0,1", "--workspace", tmp_path / "w", "--dry-run")
    assert run(*options, monkeypatch=monkeypatch) == 0
    said = capfd.readouterr().out
    for words in ("SQLite", "2, on GPU 0, 1", str(tmp_path / "w"), "password"):
        assert words in said
    assert "hidden" not in said
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("postgresql://wave:x@db/prefect", "postgresql+asyncpg://wave:x@db/prefect"),
        ("postgres://wave:x@db:5433/prefect?ssl=require", "postgresql+asyncpg://wave:x@db:5433/prefect?ssl=require"),
        ("sqlite+aiosqlite:////data/prefect.db", "sqlite+aiosqlite:////data/prefect.db"),
    ],
)
def test_a_database_gets_the_driver_that_prefect_uses(given: str, taken: str) -> None:
    assert database_url(given) == taken


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:1"),
        (ANY, "http://127.0.0.1:1"),
        ("::", "http://[::1]:1"),
        ("server.lan", "http://server.lan:1"),
    ],
)
def test_a_server_on_all_addresses_is_reached_on_this_machine(host: str, address: str) -> None:
    assert server_address(host, 1) == address


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_with_a_password_and_ends_with_no_process_left(tmp_path: Path, number: signal.Signals) -> None:
    port = free_port()
    env = server_environment(tmp_path / "home", port, PREFECT_SERVER_API_AUTH_STRING="wave:secret")
    del env["PREFECT_API_URL"]
    with (tmp_path / "log").open("wb") as log:
        command = [sys.executable, "-m", "flows.cli", "serve", "--host", ANY, "--port", str(port)]
        served = subprocess.Popen(command, env=env, cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_for(lambda: b"started" in (tmp_path / "log").read_bytes(), seconds=400, what="the worker")
        with pytest.raises(HTTPError, match="401"):
            urlopen(f"http://127.0.0.1:{port}/api/admin/version", timeout=30)
        refused = subprocess.run(
            [sys.executable, "-m", "flows.cli", "deploy"],
            env={**env, "PREFECT_API_URL": f"http://127.0.0.1:{port}/api"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "asks for a password" in refused.stderr
        begun = psutil.Process(served.pid).children(recursive=True)
        assert len(begun) >= 2
    finally:
        served.send_signal(number)
        code = served.wait(timeout=200)
    assert code == 0
    assert [each for each in begun if each.is_running()] == []
