"""Digests: identities of values, files and folders."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import numpy as np

from storage.errors import StorageError

__all__ = ["JSON", "digest_file", "digest_file_once", "digest_folder", "digest_of", "to_json"]

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"

_HEX_DIGITS = 24  # 96 bits: no accidental collision, and still short enough for a folder's name
_EXACT_INTEGER = 2**53  # beyond it several integers round to the same float


def digest_of(*parts: object) -> str:
    """Compute the digest of values that have a JSON form: 24 hex digits, the same on every machine.

    Values that compare equal have the same digest: the order of a dict's keys does not count, a tuple equals a list,
    and 2.0 equals 2. Booleans are not numbers here.

    Raises:
        StorageError: if a value has no JSON form.
    """
    text = json.dumps(_canonical(list(parts)), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return _short(hashlib.sha256(text.encode("ascii")))


def digest_file(path: str | Path) -> str:
    """Compute the digest of a file's bytes; its name does not count.

    Raises:
        StorageError: if it cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            return _short(hashlib.file_digest(file, "sha256"))
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error


def digest_file_once(path: str | Path) -> str:
    """Return `digest_file` of a file, computed once per process for each path, size and modification time.

    The cached digest is wrong after a change that keeps both size and modification time: a file rewritten within the
    resolution of the file system's clock, or one whose modification time was set back. Use it for large files that
    are replaced rather than edited, such as weights.

    Raises:
        StorageError: if the file cannot be read.
    """
    file = Path(path).absolute()
    try:
        status = file.stat()
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    return _digest_unchanged(file, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _digest_unchanged(path: Path, _size: int, _modified: int) -> str:
    return digest_file(path)


def digest_folder(path: str | Path, *, suffixes: Collection[str] | None = None) -> str:
    """Compute the digest of the names and bytes of all files below a folder, or of those with one of the suffixes.

    Raises:
        StorageError: if there is no such folder, no such file in it, or a file cannot be read.
    """
    root = Path(path)
    if not root.is_dir():
        raise StorageError(f"{path} is not a folder")
    files = sorted(
        file for file in root.rglob("*") if file.is_file() and (suffixes is None or file.name.endswith(tuple(suffixes)))
    )
    if not files:
        wanted = "" if suffixes is None else f" ending with {', '.join(sorted(suffixes))}"
        raise StorageError(f"there is no file{wanted} in {path}")
    return digest_of("folder", {file.relative_to(root).as_posix(): digest_file(file) for file in files})


def to_json(value: object) -> JSON:
    """Return the value as plain JSON: tuples become lists, NumPy scalars become Python's.

    Raises:
        StorageError: if a part of it has no JSON form (NaN and infinity have none).
    """
    match value:
        case None | bool() | str() | int():
            return value
        case float():
            if not math.isfinite(value):
                raise StorageError(f"{value} has no JSON form; use None or a finite number")
            return value
        case np.generic():
            return to_json(value.item())
        case list() | tuple():
            return [to_json(item) for item in value]
        case Mapping():
            return {_key(key): to_json(item) for key, item in value.items()}
        case _:
            raise StorageError(f"{type(value).__name__} has no JSON form: {value!r:.80}")


def _key(key: object) -> str:
    if isinstance(key, str):
        return key
    # JSON would turn 1 and "1" into the same key
    raise StorageError(f"a key must be a string to have a JSON form, got {key!r:.80}")


def _canonical(value: object) -> JSON:
    return _unify_numbers(to_json(value))


def _unify_numbers(value: JSON) -> JSON:
    """Return the value with ints in place of floats that are whole numbers."""
    match value:
        case float() if value.is_integer() and abs(value) < _EXACT_INTEGER:
            return int(value)
        case list():
            return [_unify_numbers(item) for item in value]
        case dict():
            return {key: _unify_numbers(item) for key, item in value.items()}
        case _:
            return value


def _short(hasher: hashlib._Hash) -> str:
    return hasher.hexdigest()[:_HEX_DIGITS]
