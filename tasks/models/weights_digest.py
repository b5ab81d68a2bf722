"""Digests of weights, remembered from run to run: a second plan with a checkpoint of gigabytes reads none of them."""

from __future__ import annotations

import logging
import os
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from storage.digest import digest_file_once, digest_of
from storage.errors import StorageError
from storage.files import write_atomic

__all__ = ["cache_folder", "weights_digest"]

_LOG = logging.getLogger(__name__)
_LEAST_BYTES: Final = 64 * 2**20
"""Smaller files are read again: that takes a tenth of a second."""
_SETTLED_NS: Final = 2 * 10**9
"""A file modified later than this before now may be modified again with the same time."""
_DIGEST: Final = re.compile(r"[0-9a-f]{24}")


def cache_folder() -> Path:
    """Return the folder of the user's cache for this project: below XDG_CACHE_HOME, by default ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wave"


def weights_digest(path: Path) -> str:
    """Return `digest_file` of weights, from the user's cache if path, size and modification time are the same.

    A cache that cannot be read or written stops nothing.

    Raises:
        StorageError: if the file cannot be read.
    """
    file = path.resolve()
    try:
        status = file.stat()
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    if status.st_size < _LEAST_BYTES:
        return digest_file_once(file)
    try:
        entry = cache_folder() / "digests" / digest_of(str(file), status.st_size, str(status.st_mtime_ns))
    except RuntimeError:  # the user has no home
        return digest_file_once(file)
    with suppress(OSError, UnicodeDecodeError):
        found = entry.read_text(encoding="ascii")
        if _DIGEST.fullmatch(found):  # else it is damaged, and written again
            return found
    digest = digest_file_once(file)
    if time.time_ns() - status.st_mtime_ns > _SETTLED_NS:
        try:
            write_atomic(entry, digest.encode("ascii"))
        except OSError as error:
            _LOG.debug("The digest of %s is not remembered: %s", file, error)
    return digest
