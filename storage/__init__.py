"""Storage: the Zarr workspace, digests, completion records, video files and tables."""

from __future__ import annotations

from storage.artifact import Artifact
from storage.digest import digest_file, digest_folder, digest_of
from storage.errors import StorageError, VideoError, WorkspaceError
from storage.reference import ArtifactRef
from storage.tables import append_run, read_runs
from storage.video import VideoInfo, final_duration, probe, read_audio, read_frames, write_video
from storage.workspace import Workspace, open_artifact

__all__ = [
    "Artifact",
    "ArtifactRef",
    "StorageError",
    "VideoError",
    "VideoInfo",
    "Workspace",
    "WorkspaceError",
    "append_run",
    "digest_file",
    "digest_folder",
    "digest_of",
    "final_duration",
    "open_artifact",
    "probe",
    "read_audio",
    "read_frames",
    "read_runs",
    "write_video",
]
