"""The certificates of Prefect's clients, read once by a process."""

from __future__ import annotations

import ssl
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, Final

from prefect.client import orchestration

__all__ = ["read_certificates_once"]

_create: Final = ssl.create_default_context
_shared: Final = lru_cache(maxsize=4)(_create)


def _context(*arguments: Any, **options: Any) -> ssl.SSLContext:
    # Without a file the caller changes what it gets
    return _shared(cafile=options["cafile"]) if options.keys() == {"cafile"} and not arguments else _create(*arguments)


def read_certificates_once() -> None:
    """Let all clients of Prefect's API in this process share one TLS context for each file of certificates.

    Prefect makes two clients for each task run on a Dask worker, and each one reads about 140 certificates: 25 ms of
    CPU and 1.4 MB, also for a server that is reached without TLS. Contexts may be shared by clients and threads.
    """
    orchestration.ssl = SimpleNamespace(**vars(ssl) | {"create_default_context": _context})  # type: ignore[assignment, attr-defined]
