from __future__ import annotations

import json
import os
import threading
from base64 import b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from flows.cli import server
from flows.settings import HEARTBEAT_SECONDS
from tasks.errors import TaskInputError


class Answering(BaseHTTPRequestHandler):
    """A server that returns its health and its version, the latter for the right password."""

    version = "3.8.8"
    password = ""

    def do_GET(self) -> None:
        asked = self.password and not self.path.endswith("/health")
        if asked and self.headers["Authorization"] != f"Basic {b64encode(self.password.encode()).decode()}":
            self.send_error(401)
            return
        body = json.dumps(True if self.path.endswith("/health") else self.version).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Answering) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{running.server_port}/api"
        monkeypatch.setattr(server, "LOCAL_API", url)
        monkeypatch.setattr(server, "_our_version", lambda: "3.8.8")
        yield url
        running.shutdown()


@pytest.mark.parametrize(("version", "taken"), [("3.8.8", True), ("3.9.0", True), ("3.7.1", False), ("2.20.0", False)])
def test_a_healthy_local_server_of_our_series_is_taken(
    local: str, monkeypatch: pytest.MonkeyPatch, version: str, taken: bool
) -> None:
    monkeypatch.setattr(server, "_configured", lambda: "")
    monkeypatch.setattr(Answering, "version", version)
    assert server.find_server() == (local if taken else "")


def test_without_any_server_a_temporary_one_is_left_to_prefect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_configured", lambda: "")
    monkeypatch.setattr(server, "LOCAL_API", "http://127.0.0.1:9/api")
    assert server.find_server() == ""


def test_a_server_that_is_set_goes_before_the_local_one(local: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_configured", lambda: local)
    monkeypatch.setattr(server, "LOCAL_API", "http://127.0.0.1:9/api")
    assert server.find_server() == local


def test_a_server_that_is_set_and_silent_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_configured", lambda: "http://127.0.0.1:9/api")
    with pytest.raises(TaskInputError, match="does not answer"):
        server.find_server()


@pytest.mark.parametrize(
    ("given", "words"),
    [("", "asks for a password: set PREFECT_API_AUTH_STRING"), ("wave:wrong", "does not accept the password")],
)
@pytest.mark.parametrize("is_set", [True, False])
def test_a_server_that_is_not_given_its_password_is_an_error_at_once(
    local: str, monkeypatch: pytest.MonkeyPatch, given: str, words: str, is_set: bool
) -> None:
    monkeypatch.setattr(server, "_configured", lambda: local if is_set else "")
    monkeypatch.setattr(server, "_password", lambda: given)
    monkeypatch.setattr(Answering, "password", "wave:right")
    with pytest.raises(TaskInputError, match=words):
        server.find_server()


def test_a_server_that_is_given_its_password_is_taken(local: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_configured", lambda: "")
    monkeypatch.setattr(server, "_password", lambda: "wave:right")
    monkeypatch.setattr(Answering, "password", "wave:right")
    assert server.find_server() == local


def test_every_command_has_the_heartbeats_that_the_automations_count_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*server.FIXED, *server.DEFAULTS, *server.QUIET):
        monkeypatch.setenv(name, "600")
    monkeypatch.setattr(server, "find_server", lambda: "")
    monkeypatch.setattr(server, "_refresh", lambda: None)
    server.connect_server()
    assert os.environ["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == str(HEARTBEAT_SECONDS)
