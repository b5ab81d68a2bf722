from __future__ import annotations

import pytest
import torch

from tests.wave_ops._plain_method import PlainMethod
from wave_ops.editing import NEGATIVE_PROMPT, EditingSettings, edit
from wave_ops.inversion import InversionSettings, invert, step_orders
from wave_ops.settings import WarpSchedule

STEPS, KEYFRAMES = 4, 6
SCHEDULE = WarpSchedule(steps=STEPS)
INVERSION = InversionSettings(schedule=SCHEDULE, noise_point="previous", seed=3)
EDITING = EditingSettings(schedule=SCHEDULE, guidance_scale=3.0)
ORDERS = step_orders(KEYFRAMES, INVERSION)
SOURCE, TARGET = "a red star", "a blue star"


@pytest.fixture(scope="module")
def latents():
    return torch.randn(KEYFRAMES, 4, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def warps(make_warps):
    return make_warps(KEYFRAMES)


def inverted(model, latents, warps, *, start=0, stored=None, keyframe_batch=None):
    trajectory = [latents] if stored is None else list(stored)
    invert(
        model,
        trajectory[-1],
        source_prompt=SOURCE,
        warps=warps,
        settings=INVERSION,
        start=start,
        keyframe_batch=keyframe_batch,
        callback=lambda _, x: trajectory.append(x),
    )
    return trajectory


def edited(model, trajectory, warps, **arguments):
    steps = {}
    edit(
        model,
        trajectory.__getitem__,
        prompt=TARGET,
        source_prompt=SOURCE,
        orders=ORDERS,
        warps=warps,
        settings=EDITING,
        callback=steps.__setitem__,
        **arguments,
    )
    return [steps[j] for j in sorted(steps, reverse=True)]


def assert_close(results, references):
    for result, reference in zip(results, references, strict=True):
        torch.testing.assert_close(result, reference, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_an_inversion_and_an_edit_equal_the_method_frame_by_frame(model, latents, warps):
    plain = PlainMethod(model=model, steps=STEPS, orders=ORDERS, warps=warps, source_prompt=SOURCE)
    trajectory = plain.invert(latents)
    edits = list(plain.edit(trajectory, prompt=TARGET, negative_prompt=NEGATIVE_PROMPT, guidance_scale=3.0))
    for keyframe_batch in (None, 4):
        assert_close(inverted(model, latents, warps, keyframe_batch=keyframe_batch), trajectory)
        assert_close(edited(model, trajectory, warps, keyframe_batch=keyframe_batch), edits)


def test_what_resumes_in_batches_is_the_undisturbed_run_bit_for_bit(model, latents, warps):
    whole = inverted(model, latents, warps, keyframe_batch=4)
    steps = edited(model, whole, warps, keyframe_batch=4)
    again = inverted(model, latents, warps, start=2, stored=whole[:3], keyframe_batch=4)
    assert all(torch.equal(a, b) for a, b in zip(again, whole, strict=True))
    rest = edited(model, whole, warps, start=(STEPS - 1, steps[0]), keyframe_batch=4)
    assert all(torch.equal(a, b) for a, b in zip(rest, steps[1:], strict=True))
