"""What sources may be read from: schemes, hosts, addresses and folders, as the machine that reads them allows.

The policy is read from the environment of the process that opens a source, not from a request or a plan: whoever sends
work to a worker does not decide what the worker may reach.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urljoin, urlsplit

import fsspec
from pydantic import BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from storage.secrets import has_password, without_secrets
from tasks.errors import TaskInputError
from tasks.planning.local_path import local_path

__all__ = ["PREFIX", "SourcePolicy", "check_local", "check_url", "open_filesystem", "read_policy"]

PREFIX: Final = "WAVE_SOURCE_"
_STORES: Final = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory"})
"""Schemes of which the host is a bucket: the address is that of the store, which the machine is configured for."""
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


def _as_names(value: Any) -> Any:
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value


def _as_folders(value: Any) -> Any:
    return tuple(part for part in value.split(os.pathsep) if part) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_as_names)]
Folders = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_as_folders)]


class SourcePolicy(BaseSettings):
    """What this process may read sources from."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", use_attribute_docstrings=True)

    schemes: Names = Field(default=("https", "http", "s3", "gs", "gcs", "az", "abfs", "memory", "file"))
    """Schemes of URLs, separated by commas."""
    hosts: Names = Field(default=())
    """Hosts and buckets, such as *.example.org, separated by commas; empty for any."""
    private_hosts: bool = False
    """Whether loopback, link-local and private addresses may be asked."""
    roots: Folders = Field(default=())
    """Folders, separated as in PATH, that local sources of a manifest may be in, with its own; / allows all."""


def read_policy() -> SourcePolicy:
    """Read the policy of this process from its environment.

    Raises:
        TaskInputError: one sentence about the first variable that is wrong.
    """
    try:
        return SourcePolicy()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = f"{PREFIX}{first['loc'][0]}".upper()
        reason = first["msg"][:1].lower() + first["msg"][1:]
        raise TaskInputError(f"{name} cannot be {first['input']!r}: {reason}.") from None


def check_url(url: str, *, policy: SourcePolicy | None = None) -> None:
    """Check quickly, without a connection, that a source's URL may be read and that its driver is installed.

    Raises:
        TaskInputError: one sentence, if not.
    """
    policy, shown = policy or read_policy(), without_secrets(url)
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").lower()
    except ValueError as error:  # of an address in brackets
        raise TaskInputError(f"The URL {shown} cannot be used: {error}.") from None
    if has_password(url):
        raise TaskInputError(
            f"The URL {shown} contains a password, which would be stored with the results: "
            "set credentials in the environment of its driver."
        )
    if "::" in url:
        raise TaskInputError(f"The URL {shown} joins several with ::, which is not read: give one URL.")
    if parts.scheme.lower() not in policy.schemes:
        raise TaskInputError(
            f"The URL {shown} has the scheme {parts.scheme}, and {PREFIX}SCHEMES allows {', '.join(policy.schemes)}."
        )
    if policy.hosts and parts.scheme != "file" and not any(fnmatch(host, each.lower()) for each in policy.hosts):
        raise TaskInputError(f"The URL {shown} is of {host}, and {PREFIX}HOSTS allows {', '.join(policy.hosts)}.")
    if not policy.private_hosts and _is_private_name(host) and parts.scheme not in {*_STORES, "file"}:
        raise TaskInputError(f"The URL {shown} is of this machine or its network: {PREFIX}PRIVATE_HOSTS=1 allows it.")
    try:
        fsspec.get_filesystem_class(parts.scheme)
    except (ImportError, ValueError) as error:
        extra = " (all of them: wave-edit[urls])" if parts.scheme in _STORES else ""
        raise TaskInputError(f"The URL {shown} needs a driver that is not installed: {error}{extra}.") from None


def open_filesystem(url: str) -> tuple[Any, str]:
    """Return the file system of a URL and the path in it, after `check_url`.

    HTTP connections are made only to addresses that the policy allows, whatever names resolve to and redirects say.

    Raises:
        TaskInputError: see `check_url`.
        ValueError, ImportError, OSError: of the driver.
    """
    check_url(url)
    scheme, host = urlsplit(url).scheme, urlsplit(url).hostname
    options: dict[str, Any] = {}
    if scheme in {"http", "https"}:
        options = {"get_client": _client}
    elif host and scheme not in {*_STORES, "file"}:
        _check_addresses(host)
    if url.startswith("file://"):  # of which fsspec leaves %20 as it is
        return fsspec.filesystem("file"), str(local_path(url))
    filesystem, path = fsspec.core.url_to_fs(url, **options)
    return filesystem, str(path)


def check_local(path: Path, *, root: Path | None, policy: SourcePolicy) -> str:
    """Return why a manifest may not name a local path; empty if it may. Links count as what they point to.

    Args:
        path: absolute.
        root: folder of the manifest; None for one that is not local.
        policy: the other roots that are allowed.
    """
    real = Path(os.path.realpath(path))
    roots = [*([] if root is None else [root]), *map(Path, policy.roots)]
    if any(real.is_relative_to(os.path.realpath(each.expanduser())) for each in roots):
        return ""
    return f"{path} is outside of the manifest's folder: {PREFIX}ROOTS={path.parent} allows it"


async def _client(**options: Any) -> Any:
    """Return fsspec's HTTP client, with a check of every connection and of every redirect."""
    import aiohttp  # noqa: PLC0415  (half a second, and few sources are URLs)

    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(_check_redirect)
    # Also addresses that stand in a URL pass through the factory, and a name is resolved once: what is checked is used
    connector = aiohttp.TCPConnector(socket_factory=_checked_socket)
    return aiohttp.ClientSession(connector=connector, trace_configs=[trace], **options)


async def _check_redirect(_session: object, _context: object, params: Any) -> None:
    location = params.response.headers.get("Location") or params.response.headers.get("URI") or ""
    target = urljoin(str(params.url), location)
    if urlsplit(target).scheme not in {"http", "https"}:
        raise PermissionError(f"a redirect to {without_secrets(target)} is not followed")
    check_url(target)


def _checked_socket(address: tuple[Any, Any, int, str, tuple[Any, ...]]) -> socket.socket:
    family, kind, protocol, _name, target = address
    if not read_policy().private_hosts and _is_private(str(target[0])):
        # Not an OSError, which the client would replace by one of its own, without the reason
        raise TaskInputError(f"{target[0]} is a private address, and not asked: {PREFIX}PRIVATE_HOSTS=1 allows it.")
    return socket.socket(family=family, type=kind, proto=protocol)


def _check_addresses(host: str) -> None:
    """Check what a name resolves to now, for drivers whose connections cannot be checked."""
    if read_policy().private_hosts:
        return
    for *_, target in socket.getaddrinfo(host, None):
        if _is_private(str(target[0])):
            raise TaskInputError(
                f"The host {host} has the private address {target[0]}: {PREFIX}PRIVATE_HOSTS=1 allows it."
            )


def _is_private_name(host: str) -> bool:
    if host == "localhost" or host.endswith((".localhost", ".internal", ".local")):
        return True
    return bool(re.fullmatch(r"[0-9a-f.:x%]+", host)) and _is_private(host)


def _is_private(address: str) -> bool:
    """Return whether an address is not a public one of a single host; False for what is no address."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour
        if found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        found = inner or found
    return not found.is_global or found.is_multicast
