"""Where tasks run: in threads of this process, or on the workers of a Dask cluster. The one place that decides it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any, cast

from prefect import Task
from prefect.context import FlowRunContext
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from flows.settings import WaveSettings
from tasks.planning.stages import Resource
from tasks.progress import PROGRESS_TOPIC, Listener, current_listener

__all__ = ["ConfiguredTaskRunner", "configure_runner", "placed", "task_runner"]


def task_runner(settings: WaveSettings) -> TaskRunner[Any]:
    """Return the runner: threads by default, since the heavy operations release Python's lock."""
    if settings.dask_address is None:
        return ThreadPoolTaskRunner(max_workers=max(2, settings.max_tasks))
    from prefect_dask import DaskTaskRunner  # noqa: PLC0415  (needed only with a cluster)

    runner: TaskRunner[Any] = DaskTaskRunner(address=settings.dask_address)
    return runner


class ConfiguredTaskRunner(TaskRunner[PrefectFuture[Any]]):
    """Submits to the runner that a flow's own settings ask for, which are known only once the flow runs."""

    def __init__(self) -> None:
        """Create a runner that is configured later."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._stack = ExitStack()
        self._runner: TaskRunner[Any] | None = None

    def configure(self, settings: WaveSettings, *, run: str) -> None:
        """Start the runner that the settings ask for, for the tasks of the flow run of this ID."""
        if self._runner is None:
            self._runner = self._stack.enter_context(task_runner(settings))
            listener = current_listener()
            if settings.dask_address is not None and listener is not None:
                _hear_workers(cast("Any", self._runner).client, listener, run=run)

    def duplicate(self) -> ConfiguredTaskRunner:
        """Return a new runner, not yet configured."""
        return type(self)()

    def submit(
        self,
        task: Task[Any, Any],
        parameters: dict[str, Any],
        wait_for: Iterable[PrefectFuture[Any]] | None = None,
        dependencies: dict[str, set[Any]] | None = None,
    ) -> PrefectFuture[Any]:
        """Submit a task to the configured runner.

        Raises:
            RuntimeError: if the flow has not called `configure_runner`.
        """
        if self._runner is None:
            raise RuntimeError("the flow must call configure_runner(settings) before it submits a task")
        future: PrefectFuture[Any] = self._runner.submit(task, parameters, wait_for, dependencies)
        return future

    def __exit__(self, *error: Any) -> None:
        """Stop the configured runner."""
        self._stack.__exit__(*error)
        self._runner = None
        super().__exit__(*error)


def configure_runner(settings: WaveSettings) -> None:
    """Let the current flow run submit its tasks where its settings say, unless it was given another runner."""
    context = FlowRunContext.get()
    runner = None if context is None else context.task_runner
    if isinstance(runner, ConfiguredTaskRunner):
        runner.configure(settings, run=str(flow_run.id))


def _hear_workers(client: Any, listener: Listener, *, run: str) -> None:
    """Call the listener with the progress that Dask workers report of a flow run, until the client is closed."""

    def hear(event: tuple[float, dict[str, Any]]) -> None:
        _, report = event
        if report["run"] == run:
            listener(report["stage"], report["part"], report["done"], report["total"])

    client.subscribe_topic(PROGRESS_TOPIC, hear)


def placed(settings: WaveSettings, resource: Resource, *, priority: int = 0) -> AbstractContextManager[Any]:
    """Place what is submitted in this context on a Dask worker that advertises the resource.

    Args:
        settings: where tasks run; without a cluster the rest has no effect.
        resource: what the worker must have.
        priority: of tasks that wait for a worker, those with the highest run first.
    """
    if settings.dask_address is None:
        return nullcontext()
    import dask  # noqa: PLC0415

    annotated: AbstractContextManager[Any] = dask.annotate(resources={resource.upper(): 1}, priority=priority)
    return annotated
