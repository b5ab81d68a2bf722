"""The Prefect server that a run uses: the configured one, one that runs on this machine, or a temporary one."""

from __future__ import annotations

import importlib.metadata
import json
import os
from contextlib import suppress
from urllib.error import URLError
from urllib.request import urlopen

from tasks.errors import TaskInputError

__all__ = ["LOCAL_API", "connect_server", "find_server"]

LOCAL_API = "http://127.0.0.1:4200/api"
DEFAULTS = {
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",  # a busy laptop needs over half a minute
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_CLI_PROMPT": "false",
}
QUIET = {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}


def connect_server(*, verbose: bool = False) -> str:
    """Choose a server and configure Prefect to use it; must run before Prefect is imported for the first time.

    Returns:
        The server's URL; empty for a temporary one.

    Raises:
        TaskInputError: if a server is set and does not answer.
    """
    for name, value in (DEFAULTS | ({} if verbose else QUIET)).items():
        os.environ.setdefault(name, value)
    _refresh()
    url = find_server()
    if url == LOCAL_API:
        os.environ["PREFECT_API_URL"] = url
        _refresh()
    return url


def find_server() -> str:
    """Return the URL of the server to use; empty if there is none.

    A server configured in the environment or in Prefect's profile is used. Otherwise a healthy local server of the
    same series is used: starting a temporary one takes half a minute.

    Raises:
        TaskInputError: if a server is set and does not answer.
    """
    url = _configured()
    if not url:
        return LOCAL_API if _is_healthy(LOCAL_API) and _is_compatible(LOCAL_API) else ""
    if not _is_healthy(url):
        raise TaskInputError(f"The Prefect server at {url} does not answer: start it, or unset PREFECT_API_URL.")
    return url


def _configured() -> str:
    from prefect.settings import get_current_settings

    return get_current_settings().api.url or ""


def _refresh() -> None:
    from prefect.context import refresh_global_settings_context

    refresh_global_settings_context()


def _is_healthy(api: str) -> bool:
    return _get(f"{api}/health") is True


def _is_compatible(api: str) -> bool:
    """Return whether the server has our major version and is not older than our minor one."""
    theirs, ours = (_series(str(version)) for version in (_get(f"{api}/admin/version"), _our_version()))
    return theirs[:1] == ours[:1] and theirs >= ours


def _our_version() -> str:
    return importlib.metadata.version("prefect")


def _series(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def _get(url: str) -> object:
    if not url.startswith(("http://", "https://")):
        return None
    with suppress(OSError, URLError, ValueError), urlopen(url, timeout=3) as answer:  # noqa: S310  (checked above)
        return json.loads(answer.read())
    return None
