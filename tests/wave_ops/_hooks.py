"""Forward hooks that are removed whether a test passes or fails, since tests share one model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def recorded_inputs(module: nn.Module) -> Iterator[list[dict[str, Any]]]:
    """Record the arguments of every call: positional ones by their index, as text, keyword ones by their name.

    Hooks run in the order of their registration: what is opened before another hook sees what that one changes.
    """
    calls: list[dict[str, Any]] = []

    def record(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append({str(i): _copied(value) for i, value in enumerate(args)} | kwargs)

    hook = module.register_forward_pre_hook(record, with_kwargs=True)
    try:
        yield calls
    finally:
        hook.remove()


@contextmanager
def recorded_outputs(module: nn.Module) -> Iterator[list[Any]]:
    """Record the output of every call."""
    outputs: list[Any] = []
    hook = module.register_forward_hook(lambda _, __, output: outputs.append(_copied(output)))
    try:
        yield outputs
    finally:
        hook.remove()


def has_hooks(module: nn.Module) -> bool:
    return any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value
