from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from flows.cli import server
from tasks.errors import TaskInputError


class Answering(BaseHTTPRequestHandler):
    """A server that returns its health and its version."""

    version = "3.8.8"

    def do_GET(self) -> None:
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
