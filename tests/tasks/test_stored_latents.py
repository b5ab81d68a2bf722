from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.cancel import RunCancelled, raise_if_stopped, time_limit
from tasks.stored_latents import reading_ahead, storing_behind
from wave_ops.errors import NonFiniteError

SECONDS = 30.0
"""After which a test fails that would wait for ever."""


class Rows:
    """A writer of rows that calls a function of the row's number before it takes the row."""

    def __init__(self, before: Any = lambda number: None) -> None:
        self.before, self.begun, self.flushed = before, 0, 0
        self.rows: list[NDArray[np.float32]] = []

    def append(self, row: NDArray[np.float32]) -> None:
        self.begun += 1
        self.before(self.begun)
        self.rows.append(row)

    def flush(self) -> None:
        self.flushed += 1

    @property
    def values(self) -> list[float]:
        return [float(row[0]) for row in self.rows]


@contextmanager
def storing(rows: Rows) -> Iterator[Any]:
    untyped: Any = rows
    with storing_behind(untyped) as append:
        yield append


def latents(value: float) -> Tensor:
    return torch.full((2,), value)


def full_disk(number: int) -> None:
    if number == 2:
        raise OSError(errno.ENOSPC, "full")


def test_every_step_is_stored_in_its_order_before_the_context_is_left_and_no_thread_remains() -> None:
    rows, before = Rows(), threading.active_count()
    with storing(rows) as append, torch.inference_mode():
        for step in range(1, 6):
            append(latents(step), step)
    assert rows.values == [1, 2, 3, 4, 5]
    assert rows.flushed == 1
    assert threading.active_count() == before


def test_the_next_step_is_computed_while_one_is_stored() -> None:
    computed = threading.Event()
    found: list[bool] = []
    rows = Rows(lambda number: found.append(computed.wait(SECONDS)) if number == 1 else None)
    with storing(rows) as append:
        append(latents(1), 1)
        computed.set()  # of the second step: if the first had to be stored before, this would never be reached
        append(latents(2), 2)
    assert found == [True]


def test_steps_take_as_long_as_the_slower_of_computing_and_storing() -> None:
    storing_seconds = computing_seconds = 0.0

    def sleep() -> float:
        start = time.perf_counter()
        time.sleep(0.01)
        return time.perf_counter() - start

    def store(_number: int) -> None:
        nonlocal storing_seconds
        storing_seconds += sleep()

    start = time.perf_counter()
    with storing(Rows(store)) as append:
        for step in range(12):
            computing_seconds += sleep()
            append(latents(step), step)
    assert time.perf_counter() - start < 0.8 * (storing_seconds + computing_seconds)


def test_at_most_two_steps_wait_to_be_stored() -> None:
    goes_on, two, appended = threading.Event(), threading.Event(), 0
    rows = Rows(lambda _: goes_on.wait(SECONDS))

    def compute() -> None:
        nonlocal appended
        with storing(rows) as append:
            for step in range(5):
                append(latents(step), step)
                appended += 1
                if appended == 2:
                    two.set()

    stage = threading.Thread(target=compute)
    stage.start()
    assert two.wait(SECONDS)
    stage.join(0.1)
    waiting = appended
    goes_on.set()
    stage.join(SECONDS)
    assert waiting == 2
    assert rows.values == [0, 1, 2, 3, 4]


def test_latents_that_are_not_finite_end_the_stage_with_their_step_and_nothing_follows_them() -> None:
    rows, steps = Rows(), 0

    def compute() -> None:
        nonlocal steps
        with storing(rows) as append:
            for step in range(1, 10):
                append(latents(np.nan if step == 3 else step), step)
                steps += 1

    with pytest.raises(NonFiniteError, match="the latents of step 3 are not finite: 2 of 2 values"):
        compute()
    assert rows.values == [1, 2]
    assert steps <= 5
    assert rows.flushed == 0


def test_a_step_that_waits_behind_one_that_failed_is_not_stored() -> None:
    waits = threading.Event()

    def fail_first(number: int) -> None:
        if number == 1:
            assert waits.wait(SECONDS)
            raise OSError(errno.ENOSPC, "full")

    rows = Rows(fail_first)

    def compute() -> None:
        with storing(rows) as append:
            append(latents(1), 1)
            append(latents(2), 2)
            waits.set()

    with pytest.raises(OSError, match="full"):
        compute()
    assert (rows.begun, rows.values) == (1, [])


def test_an_error_of_storing_the_last_step_is_raised_on_leaving_with_its_own_type() -> None:
    rows = Rows(full_disk)

    def compute() -> None:
        with storing(rows) as append:
            append(latents(1), 1)
            append(latents(2), 2)

    with pytest.raises(OSError, match="full") as caught:
        compute()
    assert caught.value.errno == errno.ENOSPC
    assert rows.values == [1]
    assert rows.flushed == 0


@pytest.mark.parametrize(
    ("before", "error", "raised", "stored"),
    [
        (lambda _: None, RuntimeError, RuntimeError, [1, 2]),
        (full_disk, RuntimeError, OSError, [1]),  # with steps stored at once, there would have been no other error
        (full_disk, RunCancelled, RunCancelled, [1]),
        (lambda _: None, KeyboardInterrupt, KeyboardInterrupt, [1, 2]),
        (full_disk, KeyboardInterrupt, KeyboardInterrupt, [1]),
    ],
)
def test_after_an_error_of_the_stage_what_it_had_computed_is_stored_and_the_first_error_raised(
    before: Any, error: type[BaseException], raised: type[BaseException], stored: list[float]
) -> None:
    rows, threads = Rows(before), threading.active_count()

    def compute() -> None:
        with storing(rows) as append:
            append(latents(1), 1)
            append(latents(2), 2)
            raise error

    with pytest.raises(raised):
        compute()
    assert rows.values == stored
    assert rows.flushed == 0
    assert threading.active_count() == threads


def test_storing_and_reading_happen_in_the_context_of_the_stage() -> None:
    name: ContextVar[str] = ContextVar("name")
    found: list[str] = []

    def read(step_index: int) -> Tensor:
        found.append(name.get())
        return latents(step_index)

    name.set("a stage")
    with storing(Rows(lambda _: found.append(name.get()))) as append, reading_ahead(read) as ahead:
        append(ahead(0), 0)
    assert found == ["a stage", "a stage"]
    with pytest.raises(TimeoutError), time_limit(0), storing(Rows(lambda _: raise_if_stopped())) as append:
        append(latents(1), 1)


def test_the_step_that_follows_is_read_ahead_and_each_is_read_once() -> None:
    read: list[int] = []
    second = threading.Event()

    def slow(step_index: int) -> Tensor:
        read.append(step_index)
        if step_index == 2:
            second.set()
        return latents(step_index)

    with reading_ahead(slow) as ahead:
        assert torch.equal(ahead(3), latents(3))
        assert second.wait(SECONDS)  # before it is asked for
        for step in (2, 2, 1, 1, 0):  # an edit that keeps what is outside a mask asks twice
            assert torch.equal(ahead(step), latents(step))
    assert read == [3, 2, 1, 0]


def test_an_error_of_reading_is_raised_for_the_step_that_was_asked_for() -> None:
    def read(step_index: int) -> Tensor:
        if step_index == 1:
            raise OSError(errno.EIO, "damaged")
        return latents(step_index)

    with reading_ahead(read) as ahead:
        assert torch.equal(ahead(2), latents(2))
        with pytest.raises(OSError, match="damaged"):
            ahead(1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_latents_of_a_cuda_device_are_stored_and_read_as_they_were_computed() -> None:
    rows, x = Rows(), torch.zeros(1000, 1000, device="cuda")
    with storing(rows) as append:
        for step in range(5):
            x = x + 1
            append(x, step)
    assert [float(row[0, 0]) for row in rows.rows] == [1, 2, 3, 4, 5]
    assert all((row == row[0, 0]).all() for row in rows.rows)
    with reading_ahead(lambda step: torch.full((1000, 1000), float(step)), device=x.device) as ahead:
        assert all(ahead(step).is_cuda and (ahead(step) == step).all() for step in (2, 1, 0))
