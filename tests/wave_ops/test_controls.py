from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import ControlNetModel, MultiControlNetModel

from tests.wave_ops._hooks import recorded_inputs
from wave_ops.controls import Control
from wave_ops.diffusion import StableDiffusion
from wave_ops.editing import EditingSettings, edit
from wave_ops.errors import WaveOpsError
from wave_ops.settings import WarpSchedule

STEPS = 4
SETTINGS = EditingSettings(
    schedule=WarpSchedule(steps=STEPS, warp_fraction=0.0), guidance_scale=3.0, controlnet_scale=0.5
)


@pytest.fixture(scope="module")
def controlled(model) -> StableDiffusion:
    """The model with two ControlNets, the second of twice the first one's output layers."""
    second = ControlNetModel.from_config(model.controlnet.config).eval().requires_grad_(False)
    second.load_state_dict(model.controlnet.state_dict())
    for layer in [*second.controlnet_down_blocks, second.controlnet_mid_block]:
        layer.weight.mul_(2)
        layer.bias.mul_(2)
    return replace(model, controlnet=MultiControlNetModel([model.controlnet, second]))


@pytest.fixture
def images():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


class Noted:
    """Images that are read when asked for, and note for which keyframes they were."""

    def __init__(self, images):
        self.images, self.asked = images, []

    def __len__(self):
        return len(self.images)

    def __getitem__(self, keyframes, /):
        self.asked.append(keyframes)
        return self.images[keyframes]


def edited(model, controls=(), **arguments):
    stored = [torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(j)) for j in range(STEPS + 1)]
    steps = {}
    edit(
        model,
        stored.__getitem__,
        prompt="a blue star",
        source_prompt="a red star",
        orders=[(1, 0)] * STEPS,
        warps=None,
        settings=SETTINGS,
        controls=controls,
        callback=steps.__setitem__,
        **arguments,
    )
    return [steps[j] for j in range(STEPS - 1, -1, -1)]


def assert_same(found, expected):
    torch.testing.assert_close(torch.stack(found), torch.stack(expected), rtol=1e-4, atol=1e-4)


def test_a_single_controlnet_with_edges_is_a_control_in_all_steps(model, images):
    found = edited(model, [Control(images=images)])
    assert all(torch.equal(a, b) for a, b in zip(found, edited(model, edges=images), strict=True))
    assert not torch.allclose(found[-1], edited(model)[-1], atol=1e-3)


def test_the_residuals_of_several_controlnets_are_summed_with_their_weights(model, controlled, images):
    controls = [Control(images=images, weight=0.1), Control(images=images, weight=0.2)]
    assert_same(edited(controlled, controls), edited(model, [Control(images=images, weight=0.1 + 2 * 0.2)]))


def test_each_controlnet_sees_its_own_input_in_the_order_of_the_step(controlled, images):
    first, second = controlled.controlnet.nets
    with recorded_inputs(first) as ones, recorded_inputs(second) as others:
        edited(controlled, [Control(images=images), Control(images=1 - images)])
    for own, calls in ((images, ones), (1 - images, others)):
        assert len(calls) == STEPS
        assert all(torch.equal(call["controlnet_cond"], own[[1, 0]].repeat(2, 1, 1, 1)) for call in calls)
        assert {call["conditioning_scale"] for call in calls} == {0.5}


def test_images_are_read_for_each_batch_and_only_where_the_controlnet_acts(model, images):
    noted = Noted(images)
    with recorded_inputs(model.controlnet) as calls:
        found = edited(model, [Control(images=noted, stop=0.5)], keyframe_batch=1)
    assert noted.asked == [[1], [0]] * 2
    assert all(torch.equal(call["controlnet_cond"], images[[i] * 2]) for call, i in zip(calls, (1, 0) * 2, strict=True))
    assert_same(found, edited(model, [Control(images=images, stop=0.5)]))


def test_images_of_all_keyframes_in_one_batch_are_read_once(model, images):
    noted = Noted(images)
    found = edited(model, [Control(images=noted)])
    assert noted.asked == [[0, 1]]
    assert all(torch.equal(a, b) for a, b in zip(found, edited(model, edges=images), strict=True))


def test_a_controlnet_acts_in_its_part_of_the_steps_from_the_noisiest_on(controlled, model, images):
    first, second = controlled.controlnet.nets
    with recorded_inputs(first) as early, recorded_inputs(second) as late:
        edited(controlled, [Control(images=images, stop=0.5), Control(images=images, start=0.75)])
    times = [[int(call["1"]) for call in calls] for calls in (early, late)]
    assert [len(found) for found in times] == [2, 1]
    assert min(times[0]) > max(times[1])
    plain, part = edited(model), edited(model, [Control(images=images, start=0.5)])
    same = [torch.equal(a, b) for a, b in zip(part, plain, strict=True)]
    assert same == [True, True, False, False]


def test_inputs_that_do_not_match_the_controlnets_are_refused(controlled, images):
    with pytest.raises(WaveOpsError, match="inputs of 2 ControlNets, got 1"):
        edited(controlled, [Control(images=images)])
