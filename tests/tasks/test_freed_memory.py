from __future__ import annotations

import ctypes
import sys

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
