"""Inventory of a workspace: the artifacts that it contains, and which of them may be removed.

An inventory is read from one listing, whatever the number of artifacts. A collection is planned from it without
touching anything, and removed so that an interruption leaves nothing that passes for complete.

Convention: sizes in bytes, times in UTC. Everything that is made from one source is in one folder, that of its clip.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import accumulate, groupby
from typing import Any, Literal, get_args

from storage import _layout as layout
from storage.claims import live_claims
from storage.errors import WorkspaceError
from storage.files import FileEntry, Files
from storage.workspace import Workspace

__all__ = [
    "Choice",
    "Collection",
    "Inventory",
    "Keep",
    "Kind",
    "StoredArtifact",
    "clip_folder",
    "collect",
    "plan_collection",
    "take_inventory",
    "used_clips",
]

Kind = Literal[
    "source",
    "keyframe_flow",
    "frame_flow",
    "inversion",
    "keyframes",
    "frames",
    "video",
    "report",
    "evaluation",
    "other",
]
Keep = Literal["results", "edits", "all"]
"""What stays: videos and reports; keyframes and frames as well; everything. Evaluations stay in any case."""

_KINDS: tuple[Kind, ...] = get_args(Kind)
_RESULTS: Set[Kind] = {"video", "report", "evaluation", "other"}
_KEPT: Mapping[Keep, Set[Kind]] = {
    "results": _RESULTS,
    "edits": _RESULTS | {"keyframes", "frames"},
    "all": set(_KINDS),
}
_CLIP_DEPTH = {"clips": 2, "evaluations": 3}  # path segments of a clip's folder
_QUIET = timedelta(hours=1)
_BATCH = 256  # completion records in memory at a time: each lists every chunk of its artifact


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredArtifact:
    """One artifact as it was found."""

    path: str
    """Path inside the workspace."""
    kind: Kind
    folder: str
    """Folder of its clip."""
    digest: str | None
    """None for one with a damaged completion record."""
    complete: bool
    """False for one that was begun, or that has lost a file."""
    size: int
    modified: datetime | None
    """When one of its files was last written; None where the file system does not record it."""

    @property
    def clip(self) -> str:
        """Name of its clip's folder: for an edit, the digest of the source."""
        return self.folder.rpartition("/")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """All artifacts below a folder of a workspace, sorted by path."""

    artifacts: tuple[StoredArtifact, ...]
    other_size: int
    """Bytes that belong to no artifact: tables, Prefect's results, claims, files that killed writers left."""
    taken: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """An artifact, and why it is removed or spared."""

    artifact: StoredArtifact
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """The artifacts to remove, and those spared although no finished result needs them."""

    inventory: Inventory
    removed: tuple[Choice, ...]
    spared: tuple[Choice, ...]

    @property
    def size(self) -> int:
        """Bytes that are freed."""
        return sum(choice.artifact.size for choice in self.removed)


def take_inventory(workspace: Workspace, *, folder: str = "") -> Inventory:
    """Find all artifacts of a workspace, or of one of its folders, from one listing and batches of small reads."""
    taken, files = datetime.now(UTC), workspace.files
    prefix = f"{folder}/" if folder else ""
    entries = {f"{prefix}{key}": entry for key, entry in files.entries(folder).items()}
    recorded = {key.removesuffix(f"/{layout.RECORD}") for key in entries if key.endswith(f"/{layout.RECORD}")}
    begun = _begun(files, entries, recorded)
    content = _content(entries, recorded | begun.keys())
    other_size = sum(entry.size for entry in content.pop("", {}).values())
    records = _records(files, sorted(recorded & content.keys()), content)
    artifacts = (_artifact(path, content[path], *records.get(path, (begun.get(path), False))) for path in content)
    return Inventory(
        artifacts=tuple(sorted(artifacts, key=lambda artifact: artifact.path)), other_size=other_size, taken=taken
    )


def clip_folder(path: str) -> str:
    """Return the folder of the clip that an artifact at a path is of."""
    segments = path.split("/")
    return "/".join(segments[: _CLIP_DEPTH.get(segments[0], len(segments))])


def used_clips(workspace: Workspace, *, below: str = "") -> set[str]:
    """Return the folders of clips that something is computed of at present: those with a claim in force.

    Args:
        workspace: where to look.
        below: a folder; only claims below it are listed.
    """
    return {clip_folder(name) for name in live_claims(workspace, below)}


def plan_collection(
    inventory: Inventory,
    *,
    keep: Keep,
    in_use: Set[str] = frozenset(),
    older_than: timedelta | None = None,
    larger_than: int = 0,
    clips: Set[str] | None = None,
) -> Collection:
    """Choose what may be removed; nothing is touched.

    Removed are the artifacts that no finished result needs: those of a kind that `keep` does not name. By default
    a clip is left alone until it is finished (it has a result, and nothing of it was begun only) and nothing of it was
    written for an hour, since a running job reads artifacts that it does not write. With `older_than` a clip of that
    age counts as abandoned: it need not be finished, and what was begun of it is removed, too.

    Args:
        inventory: from `take_inventory`.
        keep: see `Keep`.
        in_use: paths of artifacts, or of folders of them, that running jobs read or write.
        older_than: least time since the last write to anything of the clip; zero for no such limit.
        larger_than: least size of an artifact in bytes.
        clips: names of the clips' folders; None for all.

    Raises:
        WorkspaceError: if `keep` is not one of the three.
    """
    if keep not in _KEPT:
        raise WorkspaceError(f"what to keep is one of {', '.join(_KEPT)}, got {keep!r}")
    removed: list[Choice] = []
    spared: list[Choice] = []
    for _, artifacts in groupby(inventory.artifacts, key=lambda artifact: artifact.folder):
        clip = tuple(artifacts)
        protection = _protection(clip, now=inventory.taken, older_than=older_than)
        for artifact in clip:
            chosen = (clips is None or artifact.clip in clips) and artifact.size >= larger_than
            reason = _reason(artifact, _KEPT[keep], abandoned=older_than is not None)
            if chosen and reason is not None:
                spare = "a running job uses it" if _is_below(artifact.path, in_use) else protection
                (removed if spare is None else spared).append(Choice(artifact=artifact, reason=spare or reason))
    return Collection(inventory=inventory, removed=tuple(removed), spared=tuple(spared))


def collect(workspace: Workspace, collection: Collection, *, dry_run: bool = False) -> Collection:
    """Remove the artifacts of a collection; return what was removed, and spared.

    A clip that changed since the inventory was taken is spared. Each artifact loses its completion record first, so
    that wherever this is interrupted, an artifact is whole or does not count.

    Args:
        workspace: the workspace of the inventory.
        collection: from `plan_collection`.
        dry_run: return the collection and remove nothing.
    """
    if dry_run:
        return collection
    found = _by_folder(collection.inventory.artifacts)
    removed: list[Choice] = []
    spared = list(collection.spared)
    for folder, choices in groupby(collection.removed, key=lambda choice: choice.artifact.folder):
        if list(take_inventory(workspace, folder=folder).artifacts) != found[folder]:
            spared += [replace(choice, reason="its clip was written to meanwhile") for choice in choices]
            continue
        for choice in choices:
            workspace.artifact(choice.artifact.path).discard()
            removed.append(choice)
    return replace(collection, removed=tuple(removed), spared=tuple(spared))


def _begun(files: Files, entries: Iterable[str], recorded: Set[str]) -> dict[str, str]:
    """Return the digest of each artifact without a completion record, by path.

    Of all groups and arrays only those are read that are neither inside nor above an artifact with a record.
    """
    above = {path for artifact in recorded for path in _above(artifact)}
    nodes = (key.removesuffix(f"/{layout.NODE}") for key in entries if key.endswith(f"/{layout.NODE}"))
    keys = {f"{path}/{layout.NODE}": path for path in nodes if path not in above and not _is_below(path, recorded)}
    digests = {keys[key]: layout.node_digest(data) for key, data in files.read_many(keys).items()}
    return {path: digest for path, digest in digests.items() if digest is not None}


def _content(entries: Mapping[str, FileEntry], paths: Set[str]) -> dict[str, dict[str, FileEntry]]:
    """Sort files to the outermost artifact that contains them, by key relative to it; the others to ""."""
    content: dict[str, dict[str, FileEntry]] = defaultdict(dict)
    for key, entry in entries.items():
        path = next((path for path in _above(key) if path in paths), "")
        content[path][key[len(path) + 1 :] if path else key] = entry
    return dict(content)


def _records(
    files: Files, paths: list[str], content: Mapping[str, Mapping[str, FileEntry]]
) -> dict[str, tuple[str | None, bool]]:
    """Return digest and completeness of each artifact with a completion record."""
    found: dict[str, tuple[str | None, bool]] = {}
    for start in range(0, len(paths), _BATCH):
        keys = {f"{path}/{layout.RECORD}": path for path in paths[start : start + _BATCH]}
        for key, data in files.read_many(keys).items():
            found[keys[key]] = _identity(layout.load_record(data), content[keys[key]])
    return found


def _identity(record: Mapping[str, Any] | None, content: Mapping[str, FileEntry]) -> tuple[str | None, bool]:
    if record is None:
        return None, False
    return record["digest"], layout.is_whole(record, {key: entry.size for key, entry in content.items()})


def _artifact(path: str, content: Mapping[str, FileEntry], digest: str | None, complete: bool) -> StoredArtifact:
    folder = clip_folder(path)
    return StoredArtifact(
        path=path,
        kind=_kind(path.partition("/")[0], path[len(folder) + 1 :].split("/")),
        folder=folder,
        digest=digest,
        complete=complete,
        size=sum(entry.size for entry in content.values()),
        modified=_newest(entry.modified for entry in content.values()),
    )


def _kind(top: str, names: Iterable[str]) -> Kind:
    if top == "evaluations":
        return "evaluation"
    # A result at full resolution ends with _full, one in another format with - and its digest
    plain = {name.partition("-")[0].removesuffix("_full") for name in names}
    return next((kind for kind in _KINDS if kind in plain and top == "clips"), "other")


def _newest(times: Iterable[datetime | None]) -> datetime | None:
    """Return the latest time; None if one of them is not known."""
    several = list(times)
    known = [time for time in several if time is not None]
    return max(known, default=None) if len(known) == len(several) else None


def _reason(artifact: StoredArtifact, kept: Set[Kind], *, abandoned: bool) -> str | None:
    """Return why an artifact may be removed; None if it may not."""
    if abandoned and not artifact.complete and artifact.kind != "other":
        return "begun and never completed"
    return None if artifact.kind in kept else "no finished result needs it"


def _protection(clip: Iterable[StoredArtifact], *, now: datetime, older_than: timedelta | None) -> str | None:
    """Return why nothing of a clip may be removed yet; None if it may."""
    artifacts = list(clip)
    quiet, newest = _QUIET if older_than is None else older_than, _newest(item.modified for item in artifacts)
    if quiet and newest is None:
        return "it is not known when its clip was last written to"
    if quiet and newest is not None and now - newest < quiet:
        return "its clip was written to recently"
    if older_than is None and not _is_finished(artifacts):
        return "an edit of its clip is not finished"
    return None


def _is_finished(clip: Iterable[StoredArtifact]) -> bool:
    """Return whether every edit of a clip has its video and report, and nothing was begun only."""
    edits: dict[str, set[Kind]] = defaultdict(set)
    for artifact in clip:
        if not artifact.complete:
            return False
        if artifact.kind in ("frames", "video", "report"):
            edits[artifact.path[: artifact.path.rindex(f"/{artifact.kind}")]].add(artifact.kind)
    return bool(edits) and all(kinds >= {"video", "report"} for kinds in edits.values())


def _by_folder(artifacts: Iterable[StoredArtifact]) -> dict[str, list[StoredArtifact]]:
    found: dict[str, list[StoredArtifact]] = defaultdict(list)
    for artifact in artifacts:
        found[artifact.folder].append(artifact)
    return found


def _is_below(path: str, folders: Set[str]) -> bool:
    """Return whether a path is one of the folders, or inside one."""
    return path in folders or any(above in folders for above in _above(path))


def _above(path: str) -> Iterator[str]:
    """Yield the folders above a path, the outermost first."""
    return accumulate(path.split("/")[:-1], "{}/{}".format)
