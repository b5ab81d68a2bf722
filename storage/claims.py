"""Claims: one process or thread at a time works on something in a workspace, and a claim ends with its holder.

In a folder a claim is a lock on a file (flock), which the kernel releases when the holder's process ends. In an object
store it is an object that is created only where there is none, and that its holder renews. A holder that has died
renews nothing: a waiter that has seen the object unchanged for the lease time replaces it, on condition that it is
still unchanged, so that of several waiters one succeeds. Clocks are not compared between machines.
"""

from __future__ import annotations

import contextlib
import contextvars
import errno
import fcntl
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import obstore
from obstore.exceptions import AlreadyExistsError, PreconditionError

from storage import _layout as layout
from storage.errors import WorkspaceError
from storage.files import LocalFiles
from storage.objects import mapped_errors, open_store
from storage.workspace import Workspace

if TYPE_CHECKING:  # of type stubs
    from obstore import ObjectMeta, PutMode, PutResult, UpdateVersion

__all__ = ["CLAIMS", "LEASE_SECONDS", "claim", "live_claims", "remove_dead_claims"]

CLAIMS: Final = "claims"
"""Top folder of a workspace that contains the claims in force."""
LEASE_SECONDS: Final = 60.0
_RENEWALS_PER_LEASE = 3  # so that two may fail
_TRIES = 100  # to create a file in a folder that others remove
_FOLDER_PAUSE, _STORE_PAUSE = 0.1, 1.0  # seconds between two looks at a claim that others have
_LEASES_UNTIL_DEAD = 10  # without a renewal, by another clock than the holder's
_SUFFIX = ".lock"
_LOG = logging.getLogger(__name__)


@contextlib.contextmanager
def claim(
    workspace: Workspace, name: str, *, check: Callable[[], None] | None = None, lease: float = LEASE_SECONDS
) -> Iterator[None]:
    """Wait until nobody else has the claim of this name in the workspace, and have it inside the context.

    A thread that has a claim and asks for it again waits for ever.

    Args:
        workspace: where the claim is valid.
        name: a path, such as that of an artifact.
        check: called again and again while waiting; the wait ends with the error that it raises.
        lease: seconds after which others take over the claim if this process dies; of no account in a folder, where
            they do so at once.

    Raises:
        WorkspaceError: if the name is not a path, or the workspace cannot be written.
    """
    key = f"{CLAIMS}/{layout.checked_path(name)}{_SUFFIX}"
    in_folder = "://" not in workspace.url
    pause = _FOLDER_PAUSE if in_folder else min(_STORE_PAUSE, lease / 10)

    def wait() -> None:
        if check is not None:
            check()
        time.sleep(pause)

    with _locked(Path(workspace.url), key, wait) if in_folder else _leased(workspace.url, key, wait, lease=lease):
        yield


def live_claims(workspace: Workspace, below: str = "") -> set[str]:
    """Return the names of the claims that are in force.

    The file of a claim outlives a process that was killed. In a folder, a claim is in force while its file is locked;
    in an object store, until it has not been renewed for ten times its lease.

    Args:
        workspace: where to look.
        below: a path; only claims below it are listed.
    """
    return {_name(key) for key, live in _found_claims(workspace, below) if live}


def remove_dead_claims(workspace: Workspace) -> int:
    """Remove what killed processes have left of their claims; return how many. Safe at any time."""
    dead = [key for key, live in _found_claims(workspace) if not live]
    in_folder = "://" not in workspace.url
    return sum(_remove_free(Path(workspace.url), key) if in_folder else _remove_expired(workspace, key) for key in dead)


def _found_claims(workspace: Workspace, below: str = "") -> Iterator[tuple[str, bool]]:
    """Yield the key of each claim that has a file, and whether it is in force."""
    folder = f"{CLAIMS}/{below}".rstrip("/")
    found = {f"{folder}/{key}": entry for key, entry in workspace.files.entries(folder).items()}
    keys = [key for key in found if key.endswith(_SUFFIX)]
    if "://" not in workspace.url:
        yield from ((key, _is_locked(Path(workspace.url) / key)) for key in keys)
        return
    for key, data in workspace.files.read_many(keys).items():
        lease = (layout.load(data) or {}).get("lease_seconds") or LEASE_SECONDS
        renewed = found[key].modified
        yield key, renewed is None or datetime.now(UTC) - renewed < timedelta(seconds=lease * _LEASES_UNTIL_DEAD)


def _name(key: str) -> str:
    return key.removeprefix(f"{CLAIMS}/").removesuffix(_SUFFIX)


# --- folders ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _locked(folder: Path, key: str, wait: Callable[[], None]) -> Iterator[None]:
    while (descriptor := _lock(folder / key)) is None:
        wait()
    try:
        yield
    finally:
        try:
            LocalFiles(folder).delete([key])  # before the lock ends: see _lock
        finally:
            os.close(descriptor)


def _lock(path: Path) -> int | None:
    """Return the descriptor of the locked file; None if another one has the lock, or the file has just been removed."""
    descriptor, locked = _create(path), False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The last holder may have removed the file since it was opened, and others have locked a new one
        locked = os.fstat(descriptor).st_nlink > 0
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.ESTALE):  # the latter is a removed file, over a network
            raise WorkspaceError(f"cannot lock {path}: {error.strerror or error}") from error
    finally:
        if not locked:
            os.close(descriptor)
    return descriptor if locked else None


def _create(path: Path) -> int:
    """Open a file for locking; create it and its folders where they are absent."""
    failure: OSError | None = None
    for _ in range(_TRIES):  # the holders of other claims remove folders that become empty
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            failure = error
    raise WorkspaceError(f"cannot claim {path}: {failure}") from failure


def _is_locked(path: Path) -> bool:
    """Return whether somebody has the lock of a file; a file that cannot be opened counts as locked."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)  # which ends the lock; who wants it meanwhile tries again
    return False


def _remove_free(folder: Path, key: str) -> bool:
    """Remove the file of a claim that nobody has, as its holder would; return whether it was there and free."""
    if not (folder / key).exists() or (descriptor := _lock(folder / key)) is None:
        return False
    try:
        LocalFiles(folder).delete([key])
    finally:
        os.close(descriptor)
    return True


# --- object stores ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _leased(url: str, key: str, wait: Callable[[], None], *, lease: float) -> Iterator[None]:
    claimed = _ClaimObject(url, key, lease=lease)
    watch = _Watch(lease)
    mode: PutMode | None = "create"
    while mode is None or not claimed.write(mode):
        wait()
        mode = watch.judge(claimed.read())
    if mode != "create":
        _LOG.warning("The claim %s was taken over: its holder has not renewed it", key)
    stop = threading.Event()
    # In a copy of the context, so that what it logs is known to belong to the work that it renews the claim of
    target = contextvars.copy_context().run
    renewal = threading.Thread(target=target, args=(claimed.renew_until, stop), name=f"renewal of {key}", daemon=True)
    renewal.start()
    try:
        yield
    finally:
        stop.set()
        renewal.join()
        claimed.release()


def _remove_expired(workspace: Workspace, key: str) -> bool:
    """Take over a claim that has expired and release it; return False if others were faster."""
    claimed = _ClaimObject(workspace.url, key, lease=LEASE_SECONDS)
    found = claimed.read()
    if found is None or not claimed.write(found.version):
        return False
    claimed.release()
    return True


@dataclass(frozen=True, slots=True)
class _Found:
    """A claim's object as it was read."""

    holder: str
    lease: float | None
    version: UpdateVersion


class _ClaimObject:
    """The object of a claim in an object store, as one would-be holder reads and writes it."""

    def __init__(self, url: str, key: str, *, lease: float) -> None:
        self._url, self._key, self._lease = url, key, lease
        self._store = open_store(url)
        self._holder = uuid.uuid4().hex
        self._writes = 0
        self._version: UpdateVersion = {}

    def read(self) -> _Found | None:
        """Return the object as it is; None if there is none."""
        try:
            with mapped_errors(self._url):
                answer = obstore.get(self._store, self._key)
                body = layout.load(answer.bytes().to_bytes()) or {}
        except FileNotFoundError:
            return None
        return _Found(body.get("holder", ""), body.get("lease_seconds"), _version(answer.meta))

    def write(self, mode: PutMode) -> bool:
        """Write the object as this holder's on a condition; return whether it is this holder's now."""
        self._writes += 1
        try:
            with mapped_errors(self._url):
                self._version = _version(obstore.put(self._store, self._key, self._content(), mode=mode))
        except (AlreadyExistsError, PreconditionError, FileNotFoundError):
            return self._is_own()  # an answer that was lost has the request repeated, and then refused
        return True

    def renew_until(self, stop: threading.Event) -> None:
        """Renew the claim several times per lease until an event is set, or others have taken it over."""
        while not stop.wait(self._lease / _RENEWALS_PER_LEASE):
            try:
                own = self.write(self._version)
            except WorkspaceError as error:
                _LOG.warning("The claim %s was not renewed, and is tried again: %s", self._key, error)
                continue
            if not own:
                _LOG.warning("The claim %s was lost to another process: it was not renewed in time", self._key)
                return

    def release(self) -> None:
        """Delete the object if it is this holder's; where that fails, the claim ends with its lease."""
        try:
            if self._is_own():
                with mapped_errors(self._url):
                    obstore.delete(self._store, self._key)
        except (WorkspaceError, FileNotFoundError) as error:
            _LOG.warning("The claim %s was not released, and ends in %g s: %s", self._key, self._lease, error)

    def _is_own(self) -> bool:
        found = self.read()
        if found is None or found.holder != self._holder:
            return False
        self._version = found.version
        return True

    def _content(self) -> bytes:
        # Never the same bytes twice: an e-tag is often a digest of them
        content: dict[str, Any] = {
            "holder": self._holder,
            "host": socket.gethostname(),
            "process": os.getpid(),
            "lease_seconds": self._lease,
            "expires": (datetime.now(UTC) + timedelta(seconds=self._lease)).isoformat(),  # for people
            "writes": self._writes,
        }
        return layout.dump(content)


@dataclass(slots=True)
class _Watch:
    """How long a waiter has seen a claim's object unchanged, by its own clock."""

    lease: float
    """Seconds, where the object does not say."""
    version: UpdateVersion | None = None
    since: float = 0.0

    def judge(self, found: _Found | None) -> PutMode | None:
        """Return on what condition the waiter may write the object now; None if it has to wait."""
        if found is None:
            return "create"
        if found.version != self.version:
            self.version, self.since = found.version, time.monotonic()
            return None
        expired = time.monotonic() - self.since >= (found.lease or self.lease)
        return found.version if expired else None


def _version(meta: PutResult | ObjectMeta) -> UpdateVersion:
    """Return what identifies the present content of an object, in the form in which a write is made conditional."""
    version: UpdateVersion = {}
    if meta["e_tag"] is not None:
        version["e_tag"] = meta["e_tag"]
    if meta["version"] is not None:
        version["version"] = meta["version"]
    return version
