from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from prefect.logging.handlers import APILogHandler

from tasks import logs
from tasks.logs import send_logs_to_run


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Iterator[logging.Logger]:
    """Replace the packages by one with a logger that nothing has configured yet."""
    monkeypatch.setattr(logs, "_PACKAGES", ("wave_made_up",))
    logger = logging.getLogger("wave_made_up")
    yield logger
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)


def test_loggers_are_set_up_once(package: logging.Logger) -> None:
    send_logs_to_run()
    send_logs_to_run()
    assert len(package.handlers) == 1
    assert package.level == logging.INFO


def test_what_a_person_has_set_up_stays(package: logging.Logger) -> None:
    package.setLevel(logging.ERROR)
    package.addHandler(APILogHandler())
    send_logs_to_run()
    assert len(package.handlers) == 1
    assert package.level == logging.ERROR


def test_what_is_logged_outside_of_a_run_is_not_sent(package: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(APILogHandler, "emit", lambda _, record: sent.append(record.getMessage()))
    send_logs_to_run()
    package.info("nobody's")
    monkeypatch.setattr(logs.TaskRunContext, "get", lambda: "a run")
    package.info("the run's")
    assert sent == ["the run's"]
