"""References: what passes between tasks instead of arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from storage.errors import WorkspaceError

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

    def to_dict(self) -> dict[str, str]:
        """As plain JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, str]) -> ArtifactRef:
        """From plain JSON.

        Raises:
            WorkspaceError: if it is not what `to_dict` gives.
        """
        try:
            ref = cls(**data)
        except TypeError as error:
            raise WorkspaceError(f"not a reference to an artifact: {data!r:.200}") from error
        if not all(isinstance(value, str) for value in asdict(ref).values()):
            raise WorkspaceError(f"not a reference to an artifact: {data!r:.200}")
        return ref
