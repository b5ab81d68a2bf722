from __future__ import annotations

import diffusers
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wave_ops.errors import WaveOpsError
from wave_ops.schedule import DDIMSchedule, WarpSchedule

SD15_PNDM = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}


def schedule(steps=50, **changes):
    return DDIMSchedule.from_config(SD15_PNDM | changes, steps=steps)


def test_a_pndm_config_of_stable_diffusion_has_the_published_timesteps():
    assert schedule().timesteps == tuple(range(1, 1000, 20))
    assert schedule().alphas_cumprod[0] == pytest.approx(1 - 0.00085)


@given(st.integers(1, 50), st.integers(0, 99), st.sampled_from(["epsilon", "v_prediction", "sample"]))
def test_a_step_undoes_an_inverse_step_for_a_fixed_noise(step_index, seed, prediction_type):
    plan = schedule(prediction_type=prediction_type)
    x, noise = torch.randn(2, 1, 4, 3, 3, generator=torch.Generator().manual_seed(seed)).unbind()
    there = plan.inverse_step(x, noise, step_index)
    torch.testing.assert_close(plan.step(there, noise, step_index), x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("step_index", [50, 25, 1])
def test_a_step_is_that_of_diffusers_ddim_scheduler(prediction_type, step_index):
    plan = schedule(prediction_type=prediction_type)
    config = {key: value for key, value in SD15_PNDM.items() if key not in {"_class_name", "skip_prk_steps"}}
    reference = diffusers.DDIMScheduler(**config, prediction_type=prediction_type)
    reference.set_timesteps(50)
    x, output = torch.randn(2, 1, 4, 3, 3).unbind()
    expected = reference.step(output, plan.timesteps[step_index - 1], x).prev_sample
    noise = plan.noise_prediction(output, x, step_index)
    torch.testing.assert_close(plan.step(x, noise, step_index), expected, rtol=1e-4, atol=1e-5)


@given(st.integers(2, 50), st.integers(0, 99))
def test_extrapolation_is_the_inverse_step_with_the_noise_of_the_step_before(step_index, seed):
    plan = schedule()
    x, noise = torch.randn(2, 1, 4, 3, 3, generator=torch.Generator().manual_seed(seed)).unbind()
    following = plan.inverse_step(x, noise, step_index - 1)
    ahead = plan.extrapolate(x, following, step_index)
    torch.testing.assert_close(ahead, plan.inverse_step(following, noise, step_index), rtol=1e-3, atol=1e-3)


def test_extrapolation_from_two_equal_levels_returns_the_latents():
    plan, x = schedule(steps_offset=0), torch.randn(2, 3)
    assert plan.alphas_cumprod[0] == plan.alphas_cumprod[1]
    assert torch.equal(plan.extrapolate(torch.randn(2, 3), x, 2), x)


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_a_number_of_steps_outside_the_trained_range_is_refused(steps):
    with pytest.raises(WaveOpsError, match="1 to 1000"):
        schedule(steps)


def test_an_unknown_prediction_type_is_refused():
    with pytest.raises(WaveOpsError, match="flow_prediction"):
        schedule(prediction_type="flow_prediction")


def test_the_published_windows_differ_on_twenty_of_fifty_steps():
    inversion, editing = (WarpSchedule(window="published").warped_steps(phase) for phase in ("inversion", "editing"))
    timesteps = schedule().timesteps
    assert {timesteps[j - 1] for j in inversion} == set(range(1, 782, 20))
    assert {timesteps[j - 1] for j in editing} == set(range(201, 982, 20))
    assert len(inversion ^ editing) == 20


def test_the_aligned_window_is_one_set_for_both_phases():
    assert (
        WarpSchedule().warped_steps("inversion") == WarpSchedule().warped_steps("editing") == frozenset(range(11, 51))
    )


@pytest.mark.parametrize(("fraction", "count"), [(0.0, 0), (1.0, 10), (0.5, 5)])
def test_the_fraction_sets_the_number_of_warped_steps(fraction, count):
    assert len(WarpSchedule(steps=10, warp_fraction=fraction).warped_steps("editing")) == count


def test_a_fraction_outside_zero_to_one_is_refused():
    with pytest.raises(WaveOpsError, match="0 to 1"):
        WarpSchedule(steps=10, warp_fraction=1.5)
