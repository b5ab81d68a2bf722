"""Artifacts with rows of known values, and files that count how they are used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from storage.artifact import Artifact
from storage.files import FileEntry, Files
from storage.workspace import Workspace

__all__ = ["CountingFiles", "artifact_of", "with_rows"]


def artifact_of(workspace: Workspace, digest: str = "d1", *, path: str = "clips/c/stage") -> Artifact:
    return workspace.artifact(workspace.ref(path, digest))


def with_rows(artifact: Artifact, count: int, *, of: int = 4) -> Artifact:
    """Return the artifact with an array of `of` rows, of which the first `count` are written: row i is full of i."""
    artifact.require_array("rows", shape=(of, 2, 3), chunks=(1, 2, 3), dtype="float32")
    for row in range(count):
        artifact.write_region("rows", row, np.full((1, 2, 3), row, np.float32))
    return artifact


class CountingFiles:
    """Files that count listings, batches of reads, and the keys that are read or asked for their size."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self.counts: Counter[str] = Counter()

    def read(self, key: str) -> bytes:
        self.counts += Counter(batches=1, reads=1)
        return self._files.read(key)

    def read_many(self, keys: Iterable[str]) -> Mapping[str, bytes]:
        several = list(keys)
        self.counts += Counter(batches=1, reads=len(several))
        return self._files.read_many(several)

    def sizes(self, prefix: str = "") -> Mapping[str, int]:
        self.counts["listings"] += 1
        return self._files.sizes(prefix)

    def entries(self, prefix: str = "") -> Mapping[str, FileEntry]:
        self.counts["listings"] += 1
        return self._files.entries(prefix)

    def sizes_of(self, keys: Iterable[str]) -> Mapping[str, int]:
        several = list(keys)
        self.counts["sizes"] += len(several)
        return self._files.sizes_of(several)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._files, name)
