"""Status tables that are appended to, read and compacted at the same time, by processes that may be killed."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.workspace import Workspace
from tests._artifacts import CountingFiles
from tests._status import (
    FOLDER,
    FragileFiles,
    HookedFiles,
    KilledError,
    attempts,
    die,
    done,
    filled,
    hooked,
    names,
    table,
)

ROOT = Path(__file__).parents[2]


def test_compacting_leaves_one_file_with_the_same_records_in_the_same_order(workspace: Workspace) -> None:
    status = filled(workspace)
    before = status.history()
    assert status.compact() == 4
    assert len(names(workspace)) == 1
    pd.testing.assert_frame_equal(status.history(), before)
    assert status.compact() == 0
    status.append(done("row1", 9))
    assert status.compact() == 2
    assert attempts(status.latest())[-1] == ("row1", 9)


def test_large_files_are_not_merged_again(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    status = filled(workspace)
    status.compact()
    (large,) = names(workspace)
    monkeypatch.setattr("storage._record_files._LARGE", workspace.files.sizes(FOLDER)[large] - 1)
    filled(workspace, 2)
    monkeypatch.setattr("storage._record_files._LARGE", workspace.files.sizes(FOLDER)[large])
    assert status.compact() == 2
    assert large in names(workspace)
    assert len(status.history()) == 12


@pytest.mark.parametrize("removed", range(5))
def test_compaction_killed_before_it_has_removed_the_parts_loses_and_doubles_nothing(
    removed: int, workspace: Workspace
) -> None:
    status = filled(workspace)
    before, parts = status.history(), names(workspace)

    def delete_some(keys: Iterable[str]) -> None:
        workspace.files.delete(itertools.islice(keys, removed))
        raise KilledError

    with pytest.raises(KilledError):
        hooked(workspace, delete=delete_some).compact()
    assert len(names(workspace) & parts) == 4 - removed
    pd.testing.assert_frame_equal(status.history(), before)
    assert status.compact() == 4 - removed
    assert len(names(workspace)) == 1
    pd.testing.assert_frame_equal(status.history(), before)


def test_files_that_a_merged_one_replaces_are_not_read(workspace: Workspace) -> None:
    status = filled(workspace)
    with pytest.raises(KilledError):
        hooked(workspace, delete=die).compact()
    files = CountingFiles(workspace.files)
    assert len(table(replace(workspace, files=files)).history()) == 8
    assert files.counts["reads"] == 1
    for name in names(workspace):
        if ".merged." not in name:
            workspace.files.write(f"{FOLDER}/{name}", b"damaged")
    assert len(status.history()) == 8


def test_remains_of_a_killed_compaction_stay_replaced_after_the_next_one_is_killed_too(workspace: Workspace) -> None:
    status = filled(workspace)
    killed = hooked(workspace, delete=die)
    for count in range(9, 12):
        with pytest.raises(KilledError):
            killed.compact()
        status.append(done("late", count))
    last_merged = sorted(name for name in names(workspace) if ".merged." in name)[-1]
    for name in names(workspace) - {last_merged}:
        if ".merged." in name:
            workspace.files.delete([f"{FOLDER}/{name}"])  # as if the last one had begun to remove them
    files = CountingFiles(workspace.files)
    assert len(table(replace(workspace, files=files)).history()) == 8 + 3
    assert files.counts["reads"] == 1 + 1
    status.compact()
    assert len(names(workspace)) == 1
    assert len(status.history()) == 8 + 3


def test_compaction_killed_before_the_merged_file_appears_changes_nothing(workspace: Workspace) -> None:
    status = filled(workspace)
    before, parts = status.history(), names(workspace)
    with pytest.raises(KilledError):
        hooked(workspace, write=die).compact()
    assert names(workspace) == parts
    pd.testing.assert_frame_equal(status.history(), before)


def test_an_append_killed_half_way_leaves_nothing_that_is_read(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    status = filled(workspace)
    (tmp_path / FOLDER / ".partial-0123456789ab-20250102T030405.000000Z-r-0123456789ab.parquet").write_bytes(
        b"PAR1half"
    )
    assert len(status.history()) == 8
    assert status.compact() == 4
    assert len(status.history()) == 8


def test_a_record_appended_during_a_compaction_is_kept(workspace: Workspace) -> None:
    status = filled(workspace)
    late = iter(range(10, 100))

    def append_one(*_: object) -> None:
        status.append(done("late", next(late)))

    hooked(workspace, read_many=append_one, write=append_one, delete=append_one).compact()
    assert [row for row in attempts(status.history()) if row[0] == "late"] == [
        ("late", n) for n in range(10, next(late))
    ]
    assert len(status.history().query("id != 'late'")) == 8


@pytest.mark.parametrize("moment", ["read_many", "write", "delete"])
def test_two_compactions_at_the_same_time_lose_and_double_nothing(moment: str, workspace: Workspace) -> None:
    status = filled(workspace)
    before = status.history()
    hooked(workspace, **{moment: lambda *_: status.compact()}).compact()
    pd.testing.assert_frame_equal(status.history(), before)
    status.compact()
    assert len(names(workspace)) == 1
    pd.testing.assert_frame_equal(status.history(), before)


@pytest.mark.parametrize("reads", [1, 2])
def test_a_reader_sees_every_record_while_files_are_merged_under_it(reads: int, workspace: Workspace) -> None:
    status = filled(workspace)
    status.compact()
    filled(workspace, 2)
    before, calls = status.history(), itertools.count(1)

    def compact_then(*_: object) -> None:
        if next(calls) == reads:
            status.compact()

    pd.testing.assert_frame_equal(hooked(workspace, read_many=compact_then).history(), before)
    assert next(calls) > reads + 1


def test_a_reader_sees_every_record_if_its_listing_misses_the_merged_file_and_a_removed_one(
    workspace: Workspace,
) -> None:
    status = filled(workspace)
    before, parts = status.history(), sorted(names(workspace))

    class TornListing(HookedFiles):
        calls = 0

        def sizes(self, prefix: str = "") -> Mapping[str, int]:
            self.calls += 1
            if self.calls > 1:
                return workspace.files.sizes(prefix)
            listed = workspace.files.sizes(prefix)
            with pytest.raises(KilledError):  # a compaction that has removed no more than one file so far
                hooked(workspace, delete=delete_first).compact()
            return {name: size for name, size in listed.items() if name != parts[0]}

    def delete_first(_: object) -> None:
        workspace.files.delete([f"{FOLDER}/{parts[0]}"])
        raise KilledError

    torn = table(replace(workspace, files=TornListing(workspace.files)))
    pd.testing.assert_frame_equal(torn.history(), before)


APPEND = st.tuples(st.just("append"), st.lists(st.sampled_from("abc"), min_size=1, max_size=3), st.none())
COMPACT = st.tuples(st.just("compact"), st.none(), st.none() | st.integers(0, 4))
NESTED = st.tuples(st.just("compact in compaction"), st.sampled_from(["read_many", "write", "delete"]), st.none())


@given(steps=st.lists(APPEND | COMPACT | NESTED, max_size=14))
def test_any_interleaving_of_appends_and_compactions_killed_or_not_reads_as_all_appends(
    steps: list[tuple[str, Any, int | None]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    workspace = Workspace.open(tmp_path_factory.mktemp("any"))
    writers = itertools.cycle([table(workspace, run="r1"), table(workspace, run="r2")])
    appended: list[tuple[str, int]] = []
    for action, what, kill in steps:
        if action == "append":
            records = [(row, len(appended) + n) for n, row in enumerate(what)]
            next(writers).append([done(row, number) for row, number in records])
            appended += records
        elif action == "compact":
            fragile = replace(workspace, files=FragileFiles(workspace.files, kill))
            try:
                table(fragile).compact()
            except KilledError:
                assert kill is not None
        else:
            hooked(workspace, **{what: lambda *_: table(workspace).compact()}).compact()
        assert attempts(table(workspace).history()) == appended
        assert dict(attempts(table(workspace).latest())) == dict(appended)


# --- threads and processes ----------------------------------------------------------------------------------------

APPENDER = """
import sys
from storage.status_table import StatusRecord, StatusTable
from storage.workspace import Workspace
workspace, run, count = Workspace.open(sys.argv[1]), sys.argv[2], int(sys.argv[3])
status = StatusTable(workspace, "nightly", run=run)
for number in range(count):
    status.append([StatusRecord(id=f"{run}-{number}", state=state) for state in ("running", "done")])
    print(number, flush=True)
    if len(sys.argv) > 4 and number % 5 == 4:
        status.compact()
"""


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", APPENDER, str(folder), *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
    )


@pytest.mark.parametrize("reported", [3, 10, 17])
def test_a_writer_that_is_killed_leaves_every_append_that_it_reported_and_no_half_one(
    reported: int, tmp_path: Path
) -> None:
    process = start(tmp_path, "w", "100000", "compact")
    assert process.stdout is not None
    for _ in range(reported):
        process.stdout.readline()
    time.sleep(0.002 * reported)
    process.send_signal(signal.SIGKILL)
    lines = process.communicate()[0].splitlines()
    last = int(lines[-1]) if lines else reported - 1
    status = table(Workspace.open(tmp_path))
    history = status.history()
    rows = history.groupby("id", sort=False)["state"].agg(list)
    assert len(rows) - 1 in (last, last + 1)
    assert rows.to_dict() == {f"w-{number}": ["running", "done"] for number in range(len(rows))}
    status.compact()
    pd.testing.assert_frame_equal(status.history(), history)


def test_processes_that_append_and_compact_at_the_same_time_lose_and_double_nothing(tmp_path: Path) -> None:
    writers = [start(tmp_path, run, "25", *extra) for run, extra in (("p", ()), ("q", ("c",)), ("r", ("c",)))]
    for writer in writers:
        writer.communicate()
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    status = table(Workspace.open(tmp_path))
    expected = sorted(f"{run}-{number}" for run in "pqr" for number in range(25))
    assert sorted(status.latest().query("state == 'done'")["id"]) == expected
    assert len(status.history()) == 2 * 75


def test_threads_append_read_and_compact_one_table_at_the_same_time(tmp_path: Path) -> None:
    workspace, stop = Workspace.open(tmp_path), threading.Event()
    status = table(workspace)

    def append(thread: int) -> None:
        for number in range(30):
            status.append(done(f"t{thread}", number))

    def compact() -> None:
        while not stop.is_set():
            table(workspace).compact()

    def read() -> None:
        seen = 0
        while not stop.is_set():
            history = status.history()
            assert len(history) >= seen  # nothing that was there goes
            assert history["record"].is_unique
            seen = len(history)

    with ThreadPoolExecutor(8) as pool:
        others = [pool.submit(work) for work in (compact, compact, read, read)]
        for appender in [pool.submit(append, thread) for thread in range(4)]:
            appender.result()
        stop.set()
        for other in others:
            other.result()
    for thread in range(4):
        own = status.history().query(f"id == 't{thread}'")["attempts"]
        assert own.tolist() == list(range(30))


def test_ten_thousand_rows_in_a_thousand_files_are_read_in_seconds_and_after_compaction_at_once(
    tmp_path: Path,
) -> None:
    workspace = Workspace.open(f"memory://{tmp_path.name}")
    status = table(workspace)
    manifest = {f"column{n}": "some words of a prompt" for n in range(6)}
    seconds = {f"stage{n}": 1.0 for n in range(8)}
    for number in range(1000):
        status.append([done(f"{number}-{row}", seconds=seconds, manifest=manifest) for row in range(10)])

    def cpu_seconds(work: Callable[[], object]) -> float:
        before = time.process_time()
        work()
        return time.process_time() - before

    assert cpu_seconds(lambda: status.latest()) < 3  # 0.7 measured
    assert status.compact() == 1000
    assert cpu_seconds(lambda: status.latest()) < 1  # 0.1 measured
    assert len(status.latest()) == 10_000
