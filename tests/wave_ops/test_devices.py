from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from tests.wave_ops.conftest import build_model
from wave_ops.diffusion import encode_frames
from wave_ops.editing import EditingSettings, edit
from wave_ops.feature_warping import PairWarps
from wave_ops.inversion import InversionSettings, invert, reconstruct, step_orders
from wave_ops.schedule import DDIMSchedule, WarpSchedule

KEYFRAMES = 4  # in batches of 2: a fake index of one element is copied to the device in earnest
SCHEDULE = WarpSchedule(steps=2)  # an edit injects in the first step of two


@pytest.fixture
def fake_cuda(monkeypatch) -> Iterator[FakeTensorMode]:
    """Compute shapes, data types and devices alone, with no GPU present; an operation on a mix of devices raises."""
    from_config = DDIMSchedule.from_config

    def read_for_real(config, *, steps):
        with unset_fake_temporarily():  # the schedule is made of numbers, which fake tensors do not have
            return from_config(config, steps=steps)

    monkeypatch.setattr(DDIMSchedule, "from_config", read_for_real)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)  # not there for fake tensors
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        yield mode


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def model_on_cuda(dtype: torch.dtype):
    with torch.device("cuda"), default_dtype(dtype):
        return build_model(controlnet=True)


def on_cpu(mode: FakeTensorMode, warps: PairWarps) -> PairWarps:
    """Return fake flows and masks in main memory, where stored ones are loaded."""
    fake = mode.from_tensor
    return PairWarps(
        flow_to_prev={pair: fake(flow) for pair, flow in warps.flow_to_prev.items()},
        mask={pair: fake(mask) for pair, mask in warps.mask.items()},
    )


class CopyRecorder(TorchDispatchMode):
    """Notes each operation between the host and the device: the shapes of what is copied."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[int, ...]]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [each for each in tree_iter((args, kwargs, result)) if isinstance(each, torch.Tensor)]
        # A tensor without dimensions is passed to a kernel by its value
        devices = {each.device.type for each in tensors if each.ndim > 0}
        if len(devices) > 1:
            self.found.append((str(func), tuple(tensors[0].shape)))
        return result


def test_no_step_copies_from_or_to_the_host_but_for_stored_latents_and_inputs_of_controlnets(make_warps, fake_cuda):
    with unset_fake_temporarily():
        stored = make_warps(KEYFRAMES)
    model = model_on_cuda(torch.float16)
    schedule = WarpSchedule(steps=4)
    given = {"warps": on_cpu(fake_cuda, stored), "keyframe_batch": 2, "source_prompt": "a red star"}
    trajectory = [torch.zeros(KEYFRAMES, 4, 16, 16)] * 5
    inversion = InversionSettings(schedule=schedule)
    recorder, copies = CopyRecorder(), {}

    def note(step_index, x):
        """Note what was copied since the last step; the first one prepares the others."""
        copies[step_index] = recorder.found[:]
        recorder.found.clear()

    with recorder:
        invert(model, trajectory[0], settings=inversion, callback=note, **given)
        assert copies.pop(1)
        assert copies == {step_index: [] for step_index in (2, 3, 4)}
        edit(
            model,
            trajectory.__getitem__,
            prompt="a blue star",
            orders=step_orders(KEYFRAMES, inversion),
            settings=EditingSettings(schedule=schedule),
            edges=torch.ones(KEYFRAMES, 3, 128, 128),
            mask=torch.ones(KEYFRAMES, 1, 16, 16),
            callback=note,
            **given,
        )
    copied = {step_index: [shape for _, shape in found] for step_index, found in copies.items() if step_index < 3}
    latents, images = tuple(trajectory[0].shape), (2, 3, 128, 128)
    # Of the inversion: the latents while it is injected, and those that the mask keeps; the ControlNet's input by batch
    assert copied == {2: [latents, images, images, latents], 1: [images, images, latents], 0: [images, images, latents]}


@pytest.mark.parametrize(
    ("dtype", "keyframe_batch", "controlled"),
    [
        (torch.float32, None, False),
        (torch.float32, 2, True),
        (torch.float16, None, True),
        (torch.float16, 2, False),
    ],
)
def test_inversion_and_editing_on_cuda_mix_no_devices(make_warps, fake_cuda, dtype, keyframe_batch, controlled):
    with unset_fake_temporarily():
        stored = make_warps(KEYFRAMES)
    model = model_on_cuda(dtype)
    given = {
        "warps": on_cpu(fake_cuda, stored),
        "keyframe_batch": keyframe_batch,
        "source_prompt": "a red star",
    }
    latents = encode_frames(model, np.zeros((KEYFRAMES, 128, 128, 3), np.uint8))
    trajectory = [latents.cpu()]
    inversion = InversionSettings(schedule=SCHEDULE)
    invert(model, trajectory[0], settings=inversion, callback=lambda _, x: trajectory.append(x.cpu()), **given)
    orders = step_orders(KEYFRAMES, inversion)
    back = reconstruct(model, trajectory[-1], settings=inversion, orders=orders, **given)
    edited = edit(
        model,
        trajectory.__getitem__,
        prompt="a blue star",
        orders=orders,
        settings=EditingSettings(schedule=SCHEDULE),
        edges=torch.ones(KEYFRAMES, 3, 128, 128) if controlled else None,
        **given,
    )
    for result in (back, edited):
        assert isinstance(result, FakeTensor)
        assert (result.device.type, result.dtype) == ("cuda", torch.float32)
        assert result.shape == latents.shape
