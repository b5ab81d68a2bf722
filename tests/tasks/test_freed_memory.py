from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tasks.freed_memory import return_freed_memory

glibc = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="needs glibc"
)
SIZE, COUNT = 64 << 10, 2000  # blocks so small that each does not have pages of its own


def memory() -> int:
    return int(psutil.Process().memory_info().rss)


@glibc
def test_what_was_freed_goes_back_to_the_system() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    blocks = [libc.malloc(SIZE) for _ in range(COUNT)]
    for block in blocks:
        ctypes.memset(block, 1, SIZE)
    for block in blocks[:-1]:  # the last one keeps the heap from shrinking by itself
        libc.free(block)
    before = memory()
    assert return_freed_memory(at_most_every=0)
    assert before - memory() > SIZE * COUNT // 2
    libc.free(blocks[-1])


@glibc
def test_it_is_not_looked_for_again_at_once() -> None:
    return_freed_memory(at_most_every=0)
    assert not return_freed_memory(at_most_every=60)
    assert return_freed_memory(at_most_every=0)


_COUNT_HEAPS = """
import ctypes, re, sys, threading
from pathlib import Path
from tasks.freed_memory import keep_few_heaps

keep_few_heaps()
libc, barrier = ctypes.CDLL(None), threading.Barrier(9)
libc.malloc.restype = ctypes.c_void_p
def allocate():
    ctypes.memset(libc.malloc(1000), 1, 1000)
    barrier.wait()
    barrier.wait()
threads = [threading.Thread(target=allocate) for _ in range(8)]
for thread in threads:
    thread.start()
barrier.wait()
report = Path(sys.argv[1])
libc.fopen.restype, libc.malloc_info.argtypes = ctypes.c_void_p, [ctypes.c_int, ctypes.c_void_p]
libc.fclose.argtypes = [ctypes.c_void_p]
file = libc.fopen(str(report).encode(), b"w")
libc.malloc_info(0, file)
libc.fclose(file)
barrier.wait()
print(report.read_text().count("<heap nr="))
"""


@glibc
@pytest.mark.parametrize(("variable", "heaps"), [(None, {1, 2}), ("6", {3, 4, 5, 6})])
def test_threads_share_two_heaps_unless_the_environment_says_otherwise(
    variable: str | None, heaps: set[int], tmp_path: Path
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    environment |= {} if variable is None else {"MALLOC_ARENA_MAX": variable}
    command = [sys.executable, "-c", _COUNT_HEAPS, f"{tmp_path}/report.xml"]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert int(found.stdout) in heaps
