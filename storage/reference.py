"""References: what passes between tasks instead of arrays."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ArtifactRef"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactRef:
    """Where an artifact lies and what it is: all that passes between tasks."""

    workspace: str
    """URL of the workspace; a local one is an absolute folder."""
    path: str
    """Path inside the workspace."""
    digest: str
    """Digest of everything that determines the artifact's value."""
