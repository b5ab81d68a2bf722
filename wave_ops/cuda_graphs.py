"""Recording of a network's calls as CUDA graphs, which are replayed with other inputs.

A call of a UNet launches about 3,000 kernels. With few keyframes the host takes longer to launch them than the device
to compute them: a graph launches all of them at once. The kernels are the same, and so is every bit of the output.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

__all__ = ["CudaGraphs", "Inputs", "without_graphs"]

Inputs: TypeAlias = dict[str, Any]
"""Tensors on the device, in dictionaries and lists."""
_ALLOWED: ContextVar[bool] = ContextVar("cuda_graphs", default=True)
_LOG = logging.getLogger(__name__)


class CudaGraphs:
    """The graphs of one stage's calls, which share their memory.

    A call is computed as usual the first time, when kernels are loaded and chosen, and recorded the second time. Calls
    with another key, or inputs of other shapes, have a graph of their own. Everything else that a call reads, such as
    weights, must stay where it is in memory.
    """

    def __init__(self) -> None:
        self._graphs: dict[Hashable, _Graph | None] = {}
        """None for what was computed once."""
        self._pool: Any = None
        self._stream: Any = None
        self._off = False

    def __call__(self, key: Hashable, compute: Callable[[Inputs], Tensor], inputs: Inputs) -> Tensor:
        """Compute, or replay what was computed with the same key and shapes.

        Args:
            key: whatever the call depends on that is not in its inputs.
            compute: neither waits for the device nor copies from the host, and keeps none of the inputs.
            inputs: of the call.

        Returns:
            What `compute` returns; overwritten by the next call of the same kind.
        """
        if self._off or not _ALLOWED.get():
            return compute(inputs)
        leaves, structure = tree_flatten(inputs)
        key = (key, str(structure), tuple((leaf.shape, leaf.dtype, leaf.stride()) for leaf in leaves))
        if key not in self._graphs:
            self._graphs[key] = None
            return compute(inputs)
        graph = self._graphs[key]
        if graph is None:
            graph = self._record(lambda copies: compute(tree_unflatten(copies, structure)), leaves)
            if graph is None:
                return compute(inputs)
            self._graphs[key] = graph
        return graph.replay(leaves)

    def release(self) -> bool:
        """Free the memory of all graphs, and record no more; return whether there were any."""
        found = any(graph is not None for graph in self._graphs.values())
        self._graphs.clear()
        self._off = True
        return found

    def _record(self, compute: Callable[[list[Tensor]], Tensor], leaves: list[Tensor]) -> _Graph | None:
        """Record a call; None where it cannot be recorded, and no other will be."""
        if self._pool is None:
            self._pool, self._stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream()
        torch.cuda.empty_cache()  # what usual calls left cannot serve a graph
        inputs = [leaf.clone() for leaf in leaves]
        graph = torch.cuda.CUDAGraph()
        self._stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(self._stream):
                # Other threads may allocate memory and wait for the device meanwhile
                graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
                try:
                    output = compute(inputs)
                finally:
                    graph.capture_end()
        except RuntimeError as error:
            _LOG.warning("The UNet's calls are not recorded as CUDA graphs: %s", str(error).partition("\n")[0])
            self.release()
            return None
        torch.cuda.current_stream().wait_stream(self._stream)
        return _Graph(graph, inputs, output)


@contextmanager
def without_graphs() -> Iterator[None]:
    """Record and replay nothing in this context, so that hooks see every call."""
    token = _ALLOWED.set(False)
    try:
        yield
    finally:
        _ALLOWED.reset(token)


class _Graph:
    """One recorded call."""

    def __init__(self, graph: Any, inputs: list[Tensor], output: Tensor) -> None:
        self._graph, self._inputs, self._output = graph, inputs, output

    def replay(self, leaves: list[Tensor]) -> Tensor:
        for copy, leaf in zip(self._inputs, leaves, strict=True):
            copy.copy_(leaf)
        self._graph.replay()
        return self._output
