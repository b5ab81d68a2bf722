"""Claims between threads and processes: one holder at a time, and none that outlives its process for long."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.exceptions import AlreadyExistsError, GenericError, PreconditionError

from storage import claims
from storage.claims import _create, _is_locked, claim, live_claims, remove_dead_claims
from storage.errors import WorkspaceError
from storage.objects import open_store
from storage.workspace import Workspace

ROOT = Path(__file__).parents[2]
LEASE = 1.2
NAME = "clips/c/stage"
KEY = f"claims/{NAME}.lock"

HOLDER = f"""
import sys, time
from storage.claims import claim
from storage.workspace import Workspace
with claim(Workspace.open(sys.argv[1]), "{NAME}", lease={LEASE}):
    print("claimed", flush=True)
    time.sleep(600)
"""


@pytest.fixture(params=["memory", "s3"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Workspace:
    """Return an empty workspace in an object store."""
    if request.param == "s3":
        return Workspace.open(f"{request.getfixturevalue('s3')}/{tmp_path.name}")
    return Workspace.open(f"memory://{tmp_path}")


@pytest.fixture(params=["folder", "s3"])
def between_processes(request: pytest.FixtureRequest, tmp_path: Path) -> Workspace:
    """Return an empty workspace that several processes can open."""
    if request.param == "s3":
        return Workspace.open(f"{request.getfixturevalue('s3')}/{tmp_path.name}")
    return Workspace.open(tmp_path)


class Inside:
    """How many are inside a claim, and the most that ever were."""

    def __init__(self) -> None:
        self.now = self.most = self.total = 0
        self._lock = threading.Lock()

    @contextmanager
    def entered(self) -> Iterator[None]:
        with self._lock:
            self.now += 1
            self.total += 1
            self.most = max(self.most, self.now)
        try:
            yield
        finally:
            with self._lock:
                self.now -= 1


def abandon(workspace: Workspace, *, lease: float = LEASE, expires: str = "2000-01-01T00:00:00+00:00") -> None:
    """Leave the claim of a holder that has died."""
    body = {"holder": "dead", "host": "elsewhere", "lease_seconds": lease, "expires": expires}
    workspace.files.write(KEY, json.dumps(body).encode())


def attempt(workspace: Workspace, **options: Any) -> tuple[Future[float], ThreadPoolExecutor]:
    """Ask for the claim in a thread; the result is the time at which it was had."""

    def wait() -> float:
        with claim(workspace, NAME, lease=LEASE, **options):
            return time.monotonic()

    pool = ThreadPoolExecutor(1)
    return pool.submit(wait), pool


def test_a_claim_is_had_by_one_thread_after_the_other(workspace: Workspace) -> None:
    inside = Inside()

    def work(_: int) -> None:
        for _ in range(4):
            with claim(Workspace.open(workspace.url), NAME, lease=LEASE), inside.entered():
                time.sleep(0.002)

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(work, range(5)))
    assert (inside.most, inside.total) == (1, 20)


def test_a_released_claim_leaves_nothing_behind(workspace: Workspace) -> None:
    with claim(workspace, NAME):
        assert set(workspace.files.sizes()) == {KEY}
    assert dict(workspace.files.sizes()) == {}


def test_a_released_claim_in_a_folder_leaves_no_folders(tmp_path: Path) -> None:
    with claim(Workspace.open(tmp_path), NAME):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_claim_is_released_when_its_holder_fails(workspace: Workspace) -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), claim(workspace, NAME):
            raise ZeroDivisionError


def test_claims_of_different_names_do_not_wait_for_one_another(workspace: Workspace) -> None:
    with claim(workspace, NAME), claim(workspace, f"{NAME}/000000-000004"), claim(workspace, f"{NAME}/000004-000008"):
        assert len(workspace.files.sizes("claims")) == 3


@pytest.mark.parametrize("name", ["", "../x", "/x", "a b"])
def test_a_name_that_could_leave_the_workspace_is_refused(name: str, workspace: Workspace) -> None:
    with pytest.raises(WorkspaceError, match="not a path inside"), claim(workspace, name):
        pass


def test_a_folder_that_cannot_be_written_cannot_be_claimed() -> None:
    workspace = Workspace.open("/proc/wave")
    with pytest.raises(WorkspaceError, match="cannot claim /proc/wave/claims"), claim(workspace, "a"):
        pass


@pytest.mark.parametrize("stale", [False, True])
def test_a_file_that_was_removed_before_it_was_locked_is_not_a_claim(
    stale: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, calls = fcntl.flock, []

    def late(descriptor: int, operation: int) -> None:
        calls.append(descriptor)
        if len(calls) == 1:
            (tmp_path / KEY).unlink()
            if stale:  # as a file system over a network says it
                raise OSError(errno.ESTALE, "stale file handle")
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with claim(Workspace.open(tmp_path), NAME):
        assert (tmp_path / KEY).exists()
    assert len(calls) == 2


def test_a_file_system_without_locks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        pytest.raises(WorkspaceError, match=r"cannot lock .*: no locks available"),
        claim(Workspace.open(tmp_path), NAME),
    ):
        pass


def test_folders_that_others_remove_meanwhile_are_created_again(tmp_path: Path) -> None:
    def work(name: str) -> None:
        for _ in range(100):
            with claim(Workspace.open(tmp_path), name):
                pass

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, ["a/b/1", "a/b/2", "a/3", "c/4"]))
    assert list(tmp_path.iterdir()) == []


def test_waiting_ends_with_the_error_of_the_check(workspace: Workspace) -> None:
    calls: list[int] = []

    def check() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise InterruptedError("cancelled")

    with claim(workspace, NAME, lease=LEASE):
        waiting, pool = attempt(workspace, check=check)
        with pytest.raises(InterruptedError, match="cancelled"):
            waiting.result(timeout=20)
        pool.shutdown()
        assert set(workspace.files.sizes()) == {KEY}
    assert len(calls) == 3


def test_a_claim_that_is_free_is_had_without_a_check(workspace: Workspace) -> None:
    def check() -> None:
        raise InterruptedError

    with claim(workspace, NAME, check=check):
        pass


# --- holders that die -------------------------------------------------------------------------------------------------


def start_holder(workspace: Workspace) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, workspace.url],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "claimed\n"
    return process


def test_the_claim_of_a_killed_process_is_had_by_the_one_that_waits(between_processes: Workspace) -> None:
    holder = start_holder(between_processes)
    try:
        waiting, pool = attempt(between_processes)
        time.sleep(2 * LEASE)
        assert not waiting.done()
        holder.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        assert waiting.result(timeout=30) - killed < (1 if "://" not in between_processes.url else 3 * LEASE)
        pool.shutdown()
    finally:
        holder.kill()
        holder.communicate()
    assert dict(between_processes.files.sizes()) == {}


@pytest.mark.parametrize("expires", ["2000-01-01T00:00:00+00:00", "2200-01-01T00:00:00+00:00"])
def test_an_abandoned_claim_is_taken_over_after_its_own_lease_whatever_the_clocks_say(
    expires: str, objects: Workspace
) -> None:
    abandon(objects, lease=2 * LEASE, expires=expires)
    start = time.monotonic()
    with claim(objects, NAME, lease=LEASE):
        assert 2 * LEASE <= time.monotonic() - start < 4 * LEASE
    assert dict(objects.files.sizes()) == {}


def test_of_several_waiters_one_takes_over_and_the_others_wait_for_it(objects: Workspace) -> None:
    abandon(objects)
    inside, ready = Inside(), threading.Barrier(6)

    def wait() -> None:
        ready.wait()
        with claim(objects, NAME, lease=LEASE), inside.entered():
            time.sleep(0.3)

    with ThreadPoolExecutor(6) as pool:
        for waiting in [pool.submit(wait) for _ in range(6)]:
            waiting.result(timeout=60)
    assert (inside.most, inside.total) == (1, 6)


def test_a_takeover_fails_where_the_object_has_changed_since_it_was_read(objects: Workspace) -> None:
    abandon(objects)
    first, second = (claims._ClaimObject(objects.url, KEY, lease=LEASE) for _ in range(2))
    found = [holder.read() for holder in (first, second)]
    assert [holder.write(seen.version) for holder, seen in zip((first, second), found, strict=True) if seen] == [
        True,
        False,
    ]


# --- holders that live ------------------------------------------------------------------------------------------------


def test_a_claim_is_renewed_for_as_long_as_it_is_had(objects: Workspace) -> None:
    with claim(objects, NAME, lease=LEASE):
        waiting, pool = attempt(objects)
        contents = set()
        for _ in range(8):
            time.sleep(LEASE / 2)
            contents.add(objects.files.read(KEY))
            assert not waiting.done()
        assert len(contents) == 8
    waiting.result(timeout=20)
    pool.shutdown()


def test_a_claim_of_a_long_lease_is_not_taken_over_by_a_waiter_of_a_short_one(objects: Workspace) -> None:
    with claim(objects, NAME, lease=600):
        waiting, pool = attempt(objects)
        time.sleep(3 * LEASE)
        assert not waiting.done()
    waiting.result(timeout=20)
    pool.shutdown()


def test_a_holder_that_lost_its_claim_leaves_that_of_its_successor(
    objects: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    with claim(objects, NAME, lease=LEASE):
        abandon(objects)
        time.sleep(LEASE)
    assert b"dead" in objects.files.read(KEY)
    assert "was lost to another process" in caplog.text


def test_a_renewal_that_fails_is_tried_again(
    objects: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put, failures = obstore.put, [GenericError("lost")] * 2

    def sometimes(*arguments: Any, **options: Any) -> Any:
        if options.get("mode") != "create" and failures:
            raise failures.pop()
        return put(*arguments, **options)

    monkeypatch.setattr(obstore, "put", sometimes)
    with claim(objects, NAME, lease=LEASE):
        before = objects.files.read(KEY)
        time.sleep(1.3 * LEASE)
        assert objects.files.read(KEY) != before
    assert caplog.text.count("was not renewed, and is tried again") == 2
    assert dict(objects.files.sizes()) == {}


@pytest.mark.parametrize("kind", [AlreadyExistsError, PreconditionError])
def test_a_write_that_succeeded_though_its_answer_was_lost_counts(
    kind: Callable[[str], Exception], objects: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = obstore.put

    def forgetful(*arguments: Any, **options: Any) -> Any:
        put(*arguments, **options)
        raise kind("repeated by the client, and refused")

    def check() -> None:
        raise AssertionError("waited for itself")

    monkeypatch.setattr(obstore, "put", forgetful)
    with claim(objects, NAME, check=check, lease=LEASE):
        time.sleep(LEASE)
    assert dict(objects.files.sizes()) == {}


def test_a_claim_that_cannot_be_released_does_not_fail_the_work(
    objects: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise GenericError("lost")

    with monkeypatch.context() as patch:
        patch.setattr(obstore, "delete", fail)
        with claim(objects, NAME, lease=LEASE):
            pass
    assert "was not released, and ends in" in caplog.text
    with claim(objects, NAME, lease=LEASE):
        pass


def test_a_stores_versions_tell_contents_apart(objects: Workspace) -> None:
    store = open_store(objects.url)
    versions = [claims._version(obstore.put(store, "key", body)) for body in (b"1", b"2")]
    assert versions[0] != versions[1]
    with pytest.raises(PreconditionError):
        obstore.put(store, "key", b"3", mode=versions[0])
    assert claims._version(obstore.head(store, "key")) == versions[1]


# --- claims in force --------------------------------------------------------------------------------------------------


def test_a_claim_is_in_force_while_it_is_had(workspace: Workspace) -> None:
    assert live_claims(workspace) == set()
    with claim(workspace, NAME), claim(workspace, "clips/d/stage/frames-1"):
        assert live_claims(workspace) == {NAME, "clips/d/stage/frames-1"}
        assert live_claims(workspace, "clips/c") == {NAME}
        assert live_claims(workspace, "clips/nothing") == set()
        assert remove_dead_claims(workspace) == 0
        assert live_claims(workspace) == {NAME, "clips/d/stage/frames-1"}
    assert live_claims(workspace) == set()


def test_what_a_killed_process_leaves_of_a_claim_in_a_folder_is_not_in_force_and_can_be_removed(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    holder = start_holder(workspace)
    assert live_claims(workspace) == {NAME}
    assert remove_dead_claims(workspace) == 0
    holder.kill()
    holder.communicate()
    assert (tmp_path / KEY).exists()
    assert live_claims(workspace) == set()
    assert remove_dead_claims(workspace) == 1
    assert list(tmp_path.iterdir()) == []
    with claim(workspace, NAME):
        assert live_claims(workspace) == {NAME}


def test_an_object_that_was_not_renewed_for_ten_leases_is_not_in_force_and_can_be_removed(objects: Workspace) -> None:
    abandon(objects, lease=0.2)
    assert live_claims(objects) == {NAME}
    assert remove_dead_claims(objects) == 0
    time.sleep(4)  # some stores round times to seconds
    assert live_claims(objects) == set()
    assert remove_dead_claims(objects) == 1
    assert objects.files.sizes("claims") == {}


def test_a_claim_that_others_take_meanwhile_is_not_removed(workspace: Workspace) -> None:
    with claim(workspace, NAME):
        if "://" in workspace.url:
            body = json.loads(workspace.files.read(KEY))
            assert claims._remove_expired(workspace, "claims/other.lock") is False
            assert json.loads(workspace.files.read(KEY))["holder"] == body["holder"]
        else:
            assert claims._remove_free(Path(workspace.url), KEY) is False
        assert live_claims(workspace) == {NAME}


def test_a_claim_that_cannot_be_created_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WorkspaceError, match=r"cannot claim .*file/claim"):
        _create(tmp_path / "file" / "claim")


def test_a_file_that_is_gone_is_not_locked_and_one_that_cannot_be_opened_is(tmp_path: Path) -> None:
    assert not _is_locked(tmp_path / "gone")
    assert _is_locked(tmp_path)
