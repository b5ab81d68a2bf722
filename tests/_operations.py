"""Counts of torch operations, as far as a GPU would run a kernel for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Operations"]

_VIEWS = ("alias", "as_strided", "detach", "empty", "expand", "permute", "select", "slice", "split", "transpose")
_VIEWS += ("unbind", "unfold", "unsqueeze", "squeeze", "view", "_unsafe_view", "lift_fresh", "new_empty")


class Operations(TorchDispatchMode):
    """Counts the operations inside a `with` block by name, without views and allocations, while it is `on`."""

    def __init__(self) -> None:
        super().__init__()
        self.by_name: Counter[str] = Counter()
        self.on = True

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: tuple[type, ...],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = str(func).split(".")[1]
        if self.on and name not in _VIEWS:
            self.by_name[name] += 1
        return func(*args, **(kwargs or {}))
