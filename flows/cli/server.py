"""The Prefect server that a run uses: the configured one, one that runs on this machine, or a temporary one."""

from __future__ import annotations

import base64
import importlib.metadata
import json
import os
from contextlib import suppress
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from flows.settings import HEARTBEAT_SECONDS
from tasks.errors import TaskInputError

__all__ = ["DEFAULTS", "FIXED", "LOCAL_API", "check_password", "connect_server", "find_server", "is_healthy"]

LOCAL_API = "http://127.0.0.1:4200/api"
DEFAULTS = {
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",  # a busy laptop needs over half a minute
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_CLI_PROMPT": "false",
}
FIXED = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS)}  # what finds crashed runs relies on it
QUIET = {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}


def connect_server(*, verbose: bool = False) -> str:
    """Choose a server and configure Prefect to use it; must run before Prefect is imported for the first time.

    Returns:
        The server's URL; empty for a temporary one.

    Raises:
        TaskInputError: if a server is set and does not answer, or asks for a password that it is not given.
    """
    os.environ.update(FIXED)
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
        TaskInputError: if a server is set and does not answer, or asks for a password that it is not given.
    """
    url = _configured()
    if not url and not is_healthy(LOCAL_API):
        return ""
    if url and not is_healthy(url):
        raise TaskInputError(f"The Prefect server at {url} does not answer: start it, or unset PREFECT_API_URL.")
    check_password(url or LOCAL_API)
    return url if url or not _is_compatible(LOCAL_API) else LOCAL_API


def check_password(api: str) -> None:
    """Check that a server accepts the password of this environment, or needs none.

    Its health can be read without one, so this reads its version.

    Raises:
        TaskInputError: if it does not.
    """
    if not _is_refused(f"{api}/admin/version"):
        return
    if _password():
        raise TaskInputError(f"The Prefect server at {api} does not accept the password in PREFECT_API_AUTH_STRING.")
    raise TaskInputError(
        f"The Prefect server at {api} asks for a password: set PREFECT_API_AUTH_STRING to USER:PASSWORD."
    )


def _configured() -> str:
    from prefect.settings import get_current_settings

    return get_current_settings().api.url or ""


def _password() -> str:
    from prefect.settings import get_current_settings

    secret = get_current_settings().api.auth_string
    return "" if secret is None else secret.get_secret_value()


def _refresh() -> None:
    from prefect.context import refresh_global_settings_context

    refresh_global_settings_context()


def is_healthy(api: str) -> bool:
    """Return whether a server answers."""
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
    with suppress(OSError, URLError, ValueError), urlopen(_request(url), timeout=3) as answer:  # noqa: S310  (checked)
        return json.loads(answer.read())
    return None


def _is_refused(url: str) -> bool:
    try:
        with urlopen(_request(url), timeout=3):  # noqa: S310  (checked in _request)
            return False
    except HTTPError as error:
        return error.code in {401, 403}
    except OSError:
        return False


def _request(url: str) -> Request:
    """Build a request with the password of this environment.

    Raises:
        ValueError: for a scheme other than http and https.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{url} is not an HTTP address")
    password = _password()
    headers = {"Authorization": f"Basic {base64.b64encode(password.encode()).decode()}"} if password else {}
    return Request(url, headers=headers)  # noqa: S310  (checked above)
