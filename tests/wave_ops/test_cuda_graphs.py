"""Recorded calls on the CPU: a call's operations are traced once, with what they read, and carried out again."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from wave_ops.controls import Control
from wave_ops.cuda_graphs import CudaGraphs, without_graphs
from wave_ops.editing import EditingSettings, edit
from wave_ops.errors import NonFiniteError
from wave_ops.finite import traced
from wave_ops.inversion import InversionSettings, invert, step_orders
from wave_ops.schedule import WarpSchedule
from wave_ops.unet import FeatureSession, within_memory

KEYFRAMES, STEPS = 3, 4


class Operations(TorchDispatchMode):
    """Notes the operations of a computation, with what they read and returned."""

    def __init__(self) -> None:
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.found.append((func, args, kwargs or {}, result))
        return result


class TracedGraph:
    """Stands for a CUDA graph: fixed inputs, fixed operations, and everything else as it was at the recording."""

    def __init__(self, compute, leaves) -> None:
        self.inputs = [leaf.clone() for leaf in leaves]
        with Operations() as operations:
            self.output = compute(self.inputs)
        self.operations = operations.found

    def replay(self, leaves):
        values = {id(copy): leaf.clone() for copy, leaf in zip(self.inputs, leaves, strict=True)}
        for func, args, kwargs, result in self.operations:
            args, kwargs = tree_map(partial(_replaced, values), (args, kwargs))
            pairs = zip(tree_leaves(result), tree_leaves(func(*args, **kwargs)), strict=True)
            values |= {id(before): after for before, after in pairs}
        return values[id(self.output)]


def _replaced(values, each):
    return values.get(id(each), each)


@pytest.fixture
def graphs(monkeypatch):
    """Record on the CPU, and return the list of what is recorded."""
    recorded = []

    def record(self, compute, leaves):
        recorded.append(TracedGraph(compute, leaves))
        return recorded[-1]

    monkeypatch.setattr(CudaGraphs, "_record", record)
    return recorded


@contextmanager
def counted_calls(network):
    calls = []
    hook = network.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        yield calls
    finally:
        hook.remove()


def test_an_inversion_of_recorded_calls_is_the_same(model, make_warps, graphs) -> None:
    latents, warps = torch.randn(KEYFRAMES, 4, 16, 16), make_warps(KEYFRAMES)
    settings = InversionSettings(schedule=WarpSchedule(steps=STEPS, warp_fraction=1.0))

    def trajectory(used):
        found = []
        invert(used, latents, source_prompt="a", warps=warps, settings=settings, callback=lambda _, x: found.append(x))
        return torch.stack(found)

    expected = trajectory(model)
    with counted_calls(model.unet) as calls:
        assert torch.equal(trajectory(replace(model, cuda_graphs=True)), expected)
    assert len(graphs) == 1
    assert len(calls) == 2  # the first, and the recorded one; the orders of all steps differ


def test_an_edit_of_recorded_calls_is_the_same(model, make_warps, graphs) -> None:
    schedule = WarpSchedule(steps=6)
    trajectory = torch.randn(7, KEYFRAMES, 4, 16, 16)

    def edited(used):
        return edit(
            used,
            trajectory.__getitem__,
            prompt="b",
            source_prompt="a",
            orders=step_orders(KEYFRAMES, InversionSettings(schedule=schedule)),
            warps=make_warps(KEYFRAMES),
            settings=EditingSettings(schedule=schedule),
            controls=[Control(images=torch.ones(KEYFRAMES, 3, 128, 128), stop=0.67)],
        )

    expected = edited(model)
    with counted_calls(model.controlnet) as calls:
        assert torch.equal(edited(replace(model, cuda_graphs=True)), expected)
    assert len(graphs) >= 1
    assert len(calls) < 4  # of the 4 steps in which the ControlNet acts


def test_other_shapes_and_other_keys_are_recorded_apart(graphs) -> None:
    calls = CudaGraphs()
    for key, size in (("a", 2), ("a", 2), ("a", 3), ("b", 2), ("a", 3), ("b", 2), ("a", 2)):
        factor = {"a": 2, "b": 3}[key]
        x = torch.randn(size)
        assert torch.equal(calls(key, lambda given, factor=factor: given["x"] * factor, {"x": x}), x * factor)
    assert len(graphs) == 3


def test_nothing_is_replayed_while_modules_are_traced(model, make_warps, graphs) -> None:
    """A trace must see every call: the module that returns NaN is found in whichever step it does."""
    latents, steps = torch.randn(KEYFRAMES, 4, 16, 16), []

    def spoil(_, args, output):
        steps.append(1)
        return output * torch.nan if len(steps) == 3 else output

    hook = model.unet.conv_in.register_forward_hook(spoil)
    try:
        with traced(model), pytest.raises(NonFiniteError, match="conv_in"):
            invert(
                replace(model, cuda_graphs=True),
                latents,
                source_prompt="a",
                warps=make_warps(KEYFRAMES),
                settings=InversionSettings(schedule=WarpSchedule(steps=STEPS)),
                callback=lambda *_: None,
            )
    finally:
        hook.remove()
    assert len(steps) == 3
    assert graphs == []


def test_without_graphs_every_call_is_computed(graphs) -> None:
    calls, seen = CudaGraphs(), []
    with without_graphs():
        for _ in range(3):
            calls("a", lambda given: seen.append(1) or given["x"], {"x": torch.ones(1)})
    assert len(seen) == 3
    assert graphs == []


def test_a_call_that_cannot_be_recorded_is_computed_and_none_is_recorded_later(monkeypatch, caplog) -> None:
    class Broken:
        def capture_begin(self, **_):
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Broken)
    for name in ("graph_pool_handle", "Stream", "current_stream", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, FakeStream)
    monkeypatch.setattr(torch.cuda, "stream", FakeStream)
    calls, seen = CudaGraphs(), []
    for number in range(4):
        assert calls("a", lambda given: seen.append(1) or given["x"], {"x": torch.tensor(number)}) == number
    assert len(seen) == 4
    assert [record.getMessage() for record in caplog.records] == [
        "The UNet's calls are not recorded as CUDA graphs: operation not permitted when stream is capturing"
    ]


class FakeStream:
    def __init__(self, *_):
        pass

    def wait_stream(self, _):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def test_where_memory_runs_out_recorded_calls_are_released_before_the_batch_is_halved(graphs, caplog) -> None:
    calls = CudaGraphs()
    for _ in range(2):
        calls("a", lambda given: given["x"], {"x": torch.ones(1)})
    session, tries = FeatureSession(warps=None, graphs=calls), []

    def compute():
        tries.append(session.keyframe_batch)
        if len(tries) < 3:
            raise torch.OutOfMemoryError("no memory")
        return "done"

    assert within_memory(session, 4, compute) == "done"
    assert tries == [None, None, 2]
    assert "without recorded calls" in caplog.text
