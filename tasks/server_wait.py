"""Wait for Prefect's server, which may be away while it is started again."""

from __future__ import annotations

import logging
import time

from prefect import get_client

from tasks.cancel import raise_if_stopped

__all__ = ["wait_for_server"]

_LOG = logging.getLogger(__name__)
_SECONDS = 600.0
"""A restart takes a minute or two on a busy machine, an upgrade of the database several."""
_SECONDS_BETWEEN_LOOKS = 1.0


def wait_for_server(*, seconds: float = _SECONDS) -> None:
    """Return once the server answers, or when that takes too long: what needs the server then fails by itself.

    Called in a flow run, which goes on without a server; one that begins without a server fails.

    Raises:
        RunCancelled: if the run is cancelled meanwhile.
    """
    client, end, away = get_client(sync_client=True), time.monotonic() + seconds, False
    while client.api_healthcheck() is not None and time.monotonic() < end:
        if not away:
            _LOG.warning("Prefect's server is away: no further row begins until it answers")
        away = True
        raise_if_stopped()
        time.sleep(_SECONDS_BETWEEN_LOOKS)
