"""Where tasks run: threads of this process, or the workers of a Dask cluster. The one place that decides it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from flows.settings import WaveSettings

__all__ = ["on_cpu", "on_gpu", "task_runner"]


def task_runner(settings: WaveSettings) -> TaskRunner[Any]:
    """Choose the runner: threads by default, since the heavy operations release Python's lock."""
    if settings.dask_address is None:
        return ThreadPoolTaskRunner(max_workers=max(2, settings.max_tasks))
    from prefect_dask import DaskTaskRunner  # noqa: PLC0415  (needed only with a cluster)

    runner: TaskRunner[Any] = DaskTaskRunner(address=settings.dask_address)
    return runner


def on_gpu(settings: WaveSettings) -> AbstractContextManager[Any]:
    """Place what is submitted inside on a Dask worker that advertises a GPU."""
    return _placed(settings, "GPU")


def on_cpu(settings: WaveSettings) -> AbstractContextManager[Any]:
    """Place what is submitted inside on a Dask worker that advertises a CPU."""
    return _placed(settings, "CPU")


def _placed(settings: WaveSettings, resource: str) -> AbstractContextManager[Any]:
    if settings.dask_address is None:
        return nullcontext()
    import dask  # noqa: PLC0415

    placed: AbstractContextManager[Any] = dask.annotate(resources={resource: 1})
    return placed
