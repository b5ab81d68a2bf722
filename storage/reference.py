"""References to artifacts, which pass between tasks instead of arrays."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ArtifactRef"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactRef:
    """Location and identity of an artifact, which may or may not exist yet."""

    workspace: str
    """URL of the workspace; for a local one the absolute path of its folder."""
    path: str
    """Path inside the workspace."""
    digest: str
    """Digest of everything that determines the artifact's value."""
