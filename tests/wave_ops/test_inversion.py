from __future__ import annotations

import pytest
import torch

from tests.wave_ops._hooks import recorded_inputs, recorded_outputs
from wave_ops.errors import WaveOpsError
from wave_ops.inversion import InversionSettings, invert, reconstruct, step_orders
from wave_ops.schedule import WarpSchedule


@pytest.fixture
def latents():
    return torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(0))


def inverted(model, latents, *, settings, **arguments):
    trajectory = [latents]
    arguments = {"source_prompt": "a red star", "warps": None} | arguments
    invert(model, latents, settings=settings, callback=lambda _, x: trajectory.append(x), **arguments)
    return trajectory


def there_and_back(model, latents, warps, settings):
    last = inverted(model, latents, settings=settings, warps=warps)[-1]
    orders = step_orders(len(latents), settings)
    return reconstruct(model, last, source_prompt="a red star", warps=warps, settings=settings, orders=orders)


@pytest.mark.parametrize("fixture", ["model", "v_model"])
@pytest.mark.parametrize("warped", [False, True])
def test_inversion_then_sampling_returns_the_latents(request, fixture, warped, latents, make_warps):
    model = request.getfixturevalue(fixture)
    settings = InversionSettings(schedule=WarpSchedule(steps=20), refinements=3)
    back = there_and_back(model, latents, make_warps(3) if warped else None, settings)
    assert (back - latents).abs().mean() < 0.01 * latents.abs().mean()


def test_refinement_brings_the_latents_closer(model, latents, make_warps):
    warps = make_warps(3)
    choices = [
        InversionSettings(schedule=WarpSchedule(steps=10), noise_point="previous", refinements=count)
        for count in (0, 1, 3)
    ]
    errors = [(there_and_back(model, latents, warps, settings) - latents).abs().mean() for settings in choices]
    assert errors[0] > errors[1] > errors[2]


def test_an_extrapolated_noise_point_brings_the_latents_closer_at_no_cost(model, latents, make_warps):
    warps, errors, counts = make_warps(3), [], []
    for point in ("previous", "extrapolated"):
        settings = InversionSettings(schedule=WarpSchedule(steps=10), noise_point=point)
        with recorded_inputs(model.unet) as calls:
            back = there_and_back(model, latents, warps, settings)
        errors.append((back - latents).abs().mean())
        counts.append(len(calls))
    assert errors[1] < 0.9 * errors[0]
    assert counts == [20, 20]


@pytest.mark.parametrize(("window", "first_warped"), [("published", 1), ("aligned", 3)])
def test_an_inversion_warps_from_the_first_step_of_its_window_on(model, latents, make_warps, window, first_warped):
    settings = InversionSettings(schedule=WarpSchedule(steps=4, window=window, warp_fraction=0.5))
    warped, plain = (inverted(model, latents, settings=settings, warps=warps) for warps in (make_warps(3), None))
    equal = [torch.allclose(a, b, atol=1e-5) for a, b in zip(warped, plain, strict=True)]
    assert equal.index(False) == first_warped


@pytest.mark.parametrize("window", ["published", "aligned"])
def test_a_reconstruction_warps_the_steps_that_an_edit_warps(model, latents, make_warps, window):
    settings = InversionSettings(schedule=WarpSchedule(steps=4, window=window, warp_fraction=0.5))
    orders = step_orders(3, settings)
    with recorded_outputs(model.unet) as outputs:
        for warps in (make_warps(3), None):
            reconstruct(model, latents, source_prompt="", warps=warps, settings=settings, orders=orders)
    warped, plain = (outputs[i].sample for i in (0, 4))
    assert not torch.allclose(warped, plain, atol=1e-5)


def test_sampling_with_other_orders_does_not_return_the_latents(model, latents, make_warps):
    warps, settings = make_warps(3), InversionSettings(schedule=WarpSchedule(steps=10), refinements=3)
    last = inverted(model, latents, settings=settings, warps=warps)[-1]
    natural = [(0, 1, 2)] * 10
    arguments = {"source_prompt": "a red star", "warps": warps, "settings": settings}
    right = reconstruct(model, last, orders=step_orders(3, settings), **arguments)
    wrong = reconstruct(model, last, orders=natural, **arguments)
    assert (wrong - latents).abs().mean() > 2 * (right - latents).abs().mean()


def test_a_resumed_inversion_is_identical_to_an_uninterrupted_one(model, latents, make_warps):
    settings, warps = InversionSettings(schedule=WarpSchedule(steps=6)), make_warps(3)
    whole = inverted(model, latents, settings=settings, warps=warps)
    resumed = inverted(model, whole[4], settings=settings, warps=warps, start=4, before=whole[3])
    assert [torch.equal(a, b) for a, b in zip(resumed, whole[4:], strict=True)] == [True] * 3


@pytest.mark.parametrize("keyframe_batch", [1, 2])
def test_the_batch_size_does_not_change_the_latents(model, latents, make_warps, keyframe_batch):
    settings, warps = InversionSettings(schedule=WarpSchedule(steps=4)), make_warps(3)
    whole = inverted(model, latents, settings=settings, warps=warps)[-1]
    parts = inverted(model, latents, settings=settings, warps=warps, keyframe_batch=keyframe_batch)[-1]
    torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-4)


def test_without_warping_every_keyframe_is_inverted_as_if_alone(model, latents):
    settings = InversionSettings(schedule=WarpSchedule(steps=4))
    together = inverted(model, latents, settings=settings)[-1]
    alone = torch.cat([inverted(model, one[None], settings=settings)[-1] for one in latents])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-4)


def test_a_single_keyframe_is_inverted_without_pairs(model, latents, make_warps):
    trajectory = inverted(
        model, latents[:1], settings=InversionSettings(schedule=WarpSchedule(steps=3)), warps=make_warps(1)
    )
    assert len(trajectory) == 4


def test_the_first_step_is_that_of_the_formula(model, latents):
    settings = InversionSettings(schedule=WarpSchedule(steps=50))
    x_1 = []

    def stop(j, x):
        x_1.append(x)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        invert(model, latents, source_prompt="", warps=None, settings=settings, callback=stop)
    alphas = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2).cumprod(0)
    context = model.text_encoder(model.tokenizer("").input_ids).last_hidden_state
    eps = model.unet(latents, 1, encoder_hidden_states=context.expand(3, -1, -1)).sample
    clean = (latents - (1 - alphas[0]).sqrt() * eps) / alphas[0].sqrt()
    torch.testing.assert_close(x_1[0], alphas[1].sqrt() * clean + (1 - alphas[1]).sqrt() * eps, rtol=1e-4, atol=1e-5)


def test_noise_is_predicted_at_the_timestep_of_each_step(model, latents):
    settings = InversionSettings(schedule=WarpSchedule(steps=5), refinements=1)
    with recorded_inputs(model.unet) as calls:
        inverted(model, latents, settings=settings)
    assert [int(call["1"]) for call in calls] == [1, 1, 201, 201, 401, 401, 601, 601, 801, 801]


def test_resuming_an_extrapolated_inversion_without_the_latents_before_is_refused(model, latents):
    with pytest.raises(WaveOpsError, match="x_4 and x_3"):
        inverted(model, latents, settings=InversionSettings(schedule=WarpSchedule(steps=6)), start=4)


def test_an_unknown_noise_point_is_refused(unchecked):
    with pytest.raises(WaveOpsError, match="noise_point"):
        InversionSettings(noise_point="next")


def test_a_negative_number_of_refinements_is_refused():
    with pytest.raises(WaveOpsError, match="refinements"):
        InversionSettings(refinements=-1)
