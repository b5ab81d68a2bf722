"""Checkpoints from the model hub, through its ordinary client."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from tasks.errors import TaskInputError

__all__ = ["fetch_snapshot", "select_files"]

# The client's HTTP library, whichever it is in the installed version, raises its own base of the hub's error
_Unreachable: tuple[type[Exception], ...] = (*HfHubHTTPError.__bases__, OSError)


def fetch_snapshot(repository: str, *, patterns: list[str], half: bool = False) -> Path:
    """Download the files of a hub repository that match, or find them in the hub's cache.

    Raises:
        TaskInputError: if the hub has no such repository, or cannot be reached and the cache does not hold it.
    """
    try:
        return Path(snapshot_download(repository, allow_patterns=_listed(repository, patterns, half)))
    except HFValidationError:
        raise TaskInputError(f"{repository!r} is neither a folder nor a valid hub id.") from None
    except HfHubHTTPError as error:
        raise TaskInputError(f"The hub does not give out {repository!r}: {_first_line(error)}") from None
    except OSError:  # to which the client maps every failure to reach the hub
        raise TaskInputError(
            f"{repository!r} is no folder here, not in the hub's local cache, and the hub cannot be reached."
        ) from None


def _listed(repository: str, patterns: list[str], half: bool) -> list[str]:
    """Name the files to fetch; where the hub cannot be reached, the cache is asked for all that match."""
    try:
        files = HfApi().model_info(repository).siblings or []
    except HfHubHTTPError:
        raise
    except _Unreachable:
        return patterns
    return select_files([file.rfilename for file in files], patterns=patterns, half=half)


def select_files(files: list[str], *, patterns: list[str], half: bool) -> list[str]:
    """Drop what does not match, and of each network's weights all but one variant (fp16 or full)."""
    matching = {file for file in files if any(fnmatch(file, pattern) for pattern in patterns)}
    weights = {file for file in matching if file.endswith(".safetensors")}
    chosen = set()
    for full in {file.replace(".fp16.safetensors", ".safetensors") for file in weights}:
        fp16 = full.replace(".safetensors", ".fp16.safetensors")
        chosen.add(fp16 if fp16 in weights and (half or full not in weights) else full)
    unused = {file for file in chosen if "non_ema" in file}
    return sorted((matching - weights) | (chosen - unused))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
