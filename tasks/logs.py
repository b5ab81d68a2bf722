"""Logs of these packages, sent to Prefect with those of the run in which they were written."""

from __future__ import annotations

import logging

from prefect.context import FlowRunContext, TaskRunContext
from prefect.logging.handlers import APILogHandler

__all__ = ["send_logs_to_run"]

_PACKAGES = ("flows", "tasks", "wave_ops", "storage")


class _RunHandler(APILogHandler):
    """Sends what is logged inside of a run; elsewhere there is no run to send it to."""

    def emit(self, record: logging.LogRecord) -> None:
        if FlowRunContext.get() is not None or TaskRunContext.get() is not None:
            super().emit(record)


def send_logs_to_run() -> None:
    """Send what these packages log, from level INFO on, to the logs of the run; calling it again changes nothing.

    Every flow and every stage calls this, whatever process it runs in: commands, workers of Prefect, workers of Dask.
    Prefect's own setting (PREFECT_LOGGING_EXTRA_LOGGERS) would have to be made for each of them, and leaves the level
    at WARNING. Where it names a package all the same, nothing is added.
    """
    for name in _PACKAGES:
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.INFO)
        if not any(isinstance(handler, APILogHandler) for handler in logger.handlers):
            logger.addHandler(_RunHandler())
