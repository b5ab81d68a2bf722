from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from tasks.cancel import time_limit
from tasks.processes import free_ports
from tasks.server_wait import wait_for_server


class _Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"true")

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def answering(port: int, *, once: Callable[[], object]) -> Iterator[None]:
    """Let something answer at a port once a condition is true."""
    servers: list[HTTPServer] = []
    end = time.monotonic() + 60

    def serve() -> None:
        while not once() and time.monotonic() < end:
            time.sleep(0.05)
        servers.append(HTTPServer(("127.0.0.1", port), _Healthy))
        servers[0].serve_forever(poll_interval=0.05)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        while not servers:
            time.sleep(0.05)
        servers[0].shutdown()
        thread.join()
        servers[0].server_close()


@pytest.fixture
def port() -> Iterator[int]:
    (port,) = free_ports(1)
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{port}/api"}):
        yield port


def test_the_wait_ends_as_soon_as_the_server_answers_and_is_said_once(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    start = time.monotonic()
    with (
        caplog.at_level(logging.WARNING, logger="tasks.server_wait"),
        answering(port, once=lambda: len(caplog.records) > 0),
    ):
        wait_for_server(seconds=600)
    assert time.monotonic() - start < 60
    assert [record.message.partition(":")[0] for record in caplog.records] == ["Prefect's server is away"]


def test_nothing_is_said_where_the_server_answers(port: int, caplog: pytest.LogCaptureFixture) -> None:
    with answering(port, once=lambda: True), caplog.at_level(logging.WARNING, logger="tasks.server_wait"):
        time.sleep(0.5)
        wait_for_server(seconds=0)
    assert not caplog.records


def test_the_wait_has_an_end(port: int) -> None:
    start = time.monotonic()
    wait_for_server(seconds=0.1)
    assert time.monotonic() - start < 60


def test_a_run_that_is_stopped_does_not_wait(port: int) -> None:
    with time_limit(0), pytest.raises(TimeoutError):
        wait_for_server(seconds=5)
