"""Downloads from the model hub, through its ordinary client."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from tasks.errors import TaskInputError

__all__ = ["fetch_snapshot", "select_files"]

# A file of weights, whole or a part, or the index of parts
_WEIGHTS = re.compile(
    r"(?P<network>.*?)(?P<fp16>\.fp16)?(-\d+-of-\d+)?\.safetensors(\.index(?P<index_fp16>\.fp16)?\.json)?"
)
# The client's HTTP library, whichever it is in the installed version, raises its own base of the hub's error
_Unreachable: tuple[type[Exception], ...] = (*HfHubHTTPError.__bases__, OSError)


def fetch_snapshot(repository: str, *, patterns: list[str], half: bool = False) -> Path:
    """Download the matching files of a hub repository, or find them in the hub's local cache.

    Args:
        repository: hub id, "owner/name".
        patterns: glob patterns of paths in the repository.
        half: prefer the fp16 variant of each network's weights.

    Returns:
        The local folder of the files.

    Raises:
        TaskInputError: if the hub refuses the repository, or cannot be reached and the cache does not contain it.
    """
    try:
        return Path(snapshot_download(repository, allow_patterns=_listed(repository, patterns, half)))
    except HFValidationError:
        raise TaskInputError(f"{repository!r} is neither a folder nor a valid hub id.") from None
    except HfHubHTTPError as error:
        raise TaskInputError(f"The hub refuses {repository!r}: {_first_line(error)}") from None
    except OSError:  # to which the client maps every failure to reach the hub
        raise TaskInputError(
            f"{repository!r} is not a folder here, not in the hub's local cache, and the hub cannot be reached."
        ) from None


def _listed(repository: str, patterns: list[str], half: bool) -> list[str]:
    """List the files to download; `patterns` themselves where the hub cannot be reached, for the local cache."""
    try:
        files = HfApi().model_info(repository).siblings or []
    except HfHubHTTPError:
        raise
    except _Unreachable:
        return patterns
    return select_files([file.rfilename for file in files], patterns=patterns, half=half)


def select_files(files: list[str], *, patterns: list[str], half: bool) -> list[str]:
    """Return the files that match a pattern, with one variant (fp16 or full) of each network's weights, sorted."""
    matching = {file for file in files if any(fnmatch(file, pattern) for pattern in patterns)}
    networks: dict[str, dict[bool, set[str]]] = {}
    for file in matching:
        if found := _WEIGHTS.fullmatch(file):
            fp16 = bool(found["fp16"] or found["index_fp16"])
            networks.setdefault(found["network"], {True: set(), False: set()})[fp16].add(file)
    chosen, weights = set(), set()
    for variants in networks.values():
        weights |= variants[True] | variants[False]
        chosen |= variants[True] if variants[True] and (half or not variants[False]) else variants[False]
    unused = {file for file in chosen if "non_ema" in file}
    return sorted((matching - weights) | (chosen - unused))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
