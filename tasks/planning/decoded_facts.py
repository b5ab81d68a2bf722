"""What decoding has found of a clip: remembered apart from its frames, which may be freed while results are kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from storage.reference import ArtifactRef
from storage.workspace import Workspace
from tasks.planning.outline import ClipFacts

__all__ = ["read_decoded_facts", "remember_decoded_facts"]

_FOLDER = "tables/decoded"


def remember_decoded_facts(ref: ArtifactRef, *, frame_count: int, cuts: Sequence[int]) -> None:
    """Store the number of frames and the cuts of a clip under the digest of its decoded frames."""
    data = json.dumps({"frame_count": frame_count, "cuts": list(cuts)}).encode()
    Workspace.open(ref.workspace).files.write(_key(ref), data)


def read_decoded_facts(clip: ClipFacts, ref: ArtifactRef, workspace: Workspace) -> ClipFacts:
    """Return a clip with the number of frames and the cuts that decoding has found, where it has been decoded.

    Args:
        clip: what its file says.
        ref: its decoded frames, whether they are still stored or not.
        workspace: where they are.
    """
    key = _key(ref)
    with suppress(ValueError, KeyError, TypeError):  # a damaged file counts as absent
        found = json.loads(workspace.files.read_many([key])[key])
        return replace(clip, frame_count=found["frame_count"], cuts=tuple(found["cuts"]))
    artifact = workspace.artifact(ref)
    if not artifact.is_complete():
        return clip
    found = artifact.metadata  # decoded by a version that did not store this
    return replace(clip, frame_count=found["frame_count"], cuts=tuple(found["cuts"]))


def _key(ref: ArtifactRef) -> str:
    return f"{_FOLDER}/{ref.digest}.json"
