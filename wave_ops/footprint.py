"""Memory of a computation, predicted from the structure of the networks: on meta tensors, so nothing is allocated.

A step is run on copies of the networks that have shapes and no values. All tensors that it creates are counted from
their creation to their release, so the prediction follows whatever the networks and the hooks do. Memory grows linearly
with the keyframes of a stage and with those in one UNet batch: three small runs predict all others.
"""

from __future__ import annotations

import copy
import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import chain
from typing import Any, Final, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from wave_ops.diffusion import StableDiffusion

__all__ = ["Footprint", "footprint", "peak_bytes", "weight_bytes", "without_values"]

M = TypeVar("M", bound=nn.Module)

_MAPPED: Final = 32 * 2**20
"""Bytes from which the C library of Linux returns a tensor's memory to the system at once."""
_HEAP: Final = 1.5
"""What smaller tensors take of main memory over their size, as they leave gaps in the heap: from 1.2 to 1.8."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Peak memory over that of the loaded networks, bytes."""

    fixed: float
    keyframe: float
    """For each keyframe of the stage."""
    batched: float
    """For each keyframe in one UNet batch."""

    def bytes(self, keyframes: int, batch: int | None = None) -> int:
        """Return the peak for a number of keyframes in batches; None for one batch."""
        return math.ceil(self.fixed + self.keyframe * keyframes + self.batched * min(batch or keyframes, keyframes))

    def batch_within(self, limit: float, keyframes: int) -> int:
        """Return the keyframes of the largest batch with a peak within a limit, bytes; 0 if none is."""
        rest = limit - self.fixed - self.keyframe * keyframes
        return max(0, min(keyframes, math.floor(rest / self.batched)))


def footprint(compute: Callable[[int, int], object], *, keyframe: float, device: torch.device) -> Footprint:
    """Predict the memory of a stage from three small ones, in three batches or more: one receives and passes on.

    Args:
        compute: computes a step of a number of keyframes in batches of another, on meta tensors.
        keyframe: bytes for each keyframe of the stage, in whatever batches.
        device: where the stage will run.
    """
    few, more, in_pairs = (
        peak_bytes(partial(compute, keyframes, batch), device=device) for keyframes, batch in ((3, 1), (6, 1), (6, 2))
    )
    batched = in_pairs - more
    # What a keyframe takes of what was simulated, which is less than `keyframe`
    return Footprint(fixed=few - batched - (more - few), keyframe=keyframe, batched=batched)


def peak_bytes(compute: Callable[[], object], *, device: torch.device) -> int:
    """Return the most bytes that the tensors created in a function take together.

    Args:
        compute: works on meta tensors.
        device: where the same computation will run.
    """
    with _LiveTensors(on_cpu=device.type == "cpu") as live, _FusedAttention():
        compute()
    peak: int = live.peak
    return peak


def without_values(model: StableDiffusion) -> StableDiffusion:
    """Return a copy of a model with its networks on the meta device: structure, shapes and data types alone."""
    copies = {name: _without_values(network) for name, network in _networks(model).items()}
    return replace(model, **copies, cuda_graphs=False)


def _without_values(network: M) -> M:
    # deepcopy takes what the memo has for the copy of a tensor
    empty: dict[int, Any] = {
        id(tensor): nn.Parameter(tensor.to("meta"), requires_grad=False) for tensor in network.parameters()
    }
    empty |= {id(tensor): tensor.to("meta") for tensor in network.buffers()}
    return copy.deepcopy(network, empty)


def weight_bytes(model: StableDiffusion) -> int:
    """Return the bytes of a model's weights."""
    tensors = (chain(network.parameters(), network.buffers()) for network in _networks(model).values())
    return sum(int(tensor.nbytes) for tensor in chain.from_iterable(tensors))


def _networks(model: StableDiffusion) -> dict[str, Any]:
    """Return the networks that the model has, by the names of its fields."""
    found = {each.name: getattr(model, each.name) for each in fields(model)}
    return {name: value for name, value in found.items() if isinstance(value, nn.Module)}


class _LiveTensors(TorchDispatchMode):
    """Counts the bytes of the tensors that operations return, until they are released."""

    def __init__(self, *, on_cpu: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._on_cpu = on_cpu
        self._now = 0
        self._known: dict[int, int] = {}
        """Bytes by the address of a storage; 0 for one that was there before."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        with self:  # under inference mode operations arrive whole: their parts have tensors of their own
            parts = func.decompose(*args, **(kwargs or {}))
        if parts is not NotImplemented:
            return parts
        for value in tree_iter((args, kwargs)):
            if isinstance(value, Tensor):
                self._add(value, created=False)
        result = func(*args, **(kwargs or {}))
        for value in tree_iter(result):
            if isinstance(value, Tensor):
                self._add(value, created=True)
        scratch = _scratch(args, result) if self._on_cpu and func is torch.ops.aten.convolution.default else 0
        self.peak = max(self.peak, self._now + scratch)
        return result

    def _add(self, tensor: Tensor, *, created: bool) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._known:
            return
        self._known[key] = self._taken(storage.nbytes()) if created else 0
        self._now += self._known[key]
        weakref.finalize(storage, self._release, key).atexit = False

    def _taken(self, size: int) -> int:
        return math.ceil(_HEAP * size) if self._on_cpu and size < _MAPPED else size

    def _release(self, key: int) -> None:
        self._now -= self._known.pop(key)


def _scratch(args: tuple[Any, ...], result: Tensor) -> int:
    """Return the bytes of a CPU's convolution: copies of input, weights and output in the layout of its kernel."""
    features, weights = args[:2]
    return int(features.nbytes + weights.nbytes + result.nbytes)


class _FusedAttention(TorchFunctionMode):
    """Replaces attention by its output: its kernels do not store the matrix of all pairs of tokens."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            query, _, value = args[:3]
            batch, heads, tokens, _ = query.shape
            return query.new_empty(batch, tokens, heads, value.shape[-1]).transpose(1, 2)
        return func(*args, **(kwargs or {}))
