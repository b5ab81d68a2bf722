"""Shuffled and warped DDIM inversion of the keyframes (WAVE sec. 2.1 to 2.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from wave_ops.conditioning import Conditioning, encode_prompts
from wave_ops.cuda_graphs import CudaGraphs, Inputs
from wave_ops.diffusion import StableDiffusion
from wave_ops.errors import WaveOpsError
from wave_ops.feature_warping import PairWarps
from wave_ops.schedule import DDIMSchedule
from wave_ops.settings import InversionSettings, NoisePoint
from wave_ops.shuffle import step_order
from wave_ops.sites import resolve_sites
from wave_ops.unet import FeatureSession, FeatureStep, injected, within_memory

__all__ = ["InversionSettings", "NoisePoint", "invert", "reconstruct", "step_orders"]


def step_orders(count: int, settings: InversionSettings) -> tuple[tuple[int, ...], ...]:
    """Draw the orders of `count` keyframes at the steps 1 to S (WAVE sec. 3)."""
    return tuple(
        step_order(count, seed=settings.seed, step_index=j, mode=settings.shuffle) for j in range(1, settings.steps + 1)
    )


@torch.inference_mode()
def invert(
    model: StableDiffusion,
    latents: Float[Tensor, "keyframe channel height width"],
    *,
    source_prompt: str,
    warps: PairWarps | None,
    settings: InversionSettings,
    start: int = 0,
    before: Float[Tensor, "keyframe channel height width"] | None = None,
    keyframe_batch: int | None = None,
    halved: Callable[[int], None] | None = None,
    callback: Callable[[int, Tensor], None],
) -> None:
    """Invert all keyframes together, from x_start to x_S.

    Source: WAVE sec. 5: the noise is predicted at (x_{j-1}, t_j), with the source prompt and guidance 1, and features
    are warped along the order of the step. Deviates in two options: the noise is predicted at an extrapolated x_j,
    because sampling predicts the noise of the same step at x_j; and fixed-point refinement predicts it again there.

    Args:
        model: the diffusion model.
        latents: x_start; x_0 are the latents of the frames.
        source_prompt: describes the source; may be empty.
        warps: flows and masks of the keyframe pairs; None for plain DDIM.
        settings: see InversionSettings.
        start: the step that `latents` belong to; 0, or the last step stored when an inversion is resumed.
        before: x_{start-1}, which extrapolation needs if `start` is not 0.
        keyframe_batch: keyframes in one UNet batch, in the order of the step; None for all. Changes memory, not the
            result.
        halved: receives the smaller batch when memory runs out.
        callback: receives (j, x_j) after each step, x_j float32.

    Raises:
        WaveOpsError: `before` is missing.
    """
    extrapolated = settings.noise_point == "extrapolated"
    if extrapolated and start > 0 and before is None:
        raise WaveOpsError(
            f"expected x_{start} and x_{start - 1} to extrapolate from, got x_{start} alone: pass `before`"
        )
    schedule = DDIMSchedule.from_config(model.scheduler_config, steps=settings.steps)
    warped = settings.schedule.warped_steps("inversion")
    orders = step_orders(len(latents), settings)
    prompt = encode_prompts(model, [source_prompt])
    predictor = _Predictor(model, schedule, prompt, warps, keyframe_batch, halved)
    x = latents.float().to(model.device)
    with injected(model.unet, predictor.session, sites=resolve_sites(model.unet, sites=model.sites)):
        predictor.session.prepare(orders[start:], latent_size=(x.shape[-2], x.shape[-1]))
        earlier = None if before is None else before.float().to(model.device)
        for j in range(start + 1, settings.steps + 1):
            following = x
            # The first step has one point only, and no line to extrapolate
            if extrapolated and earlier is not None and schedule.extrapolation_reach(j) <= settings.extrapolation_limit:
                following = schedule.extrapolate(earlier, x, j)
            for _ in range(1 + settings.refinements):
                noise_pred = predictor(following, j, order=orders[j - 1], warping=j in warped)
                following = schedule.inverse_step(x, noise_pred, j)  # always from x_{j-1}: only the noise is refined
            earlier, x = x, following
            callback(j, x)


@torch.inference_mode()
def reconstruct(
    model: StableDiffusion,
    latents: Float[Tensor, "keyframe channel height width"],
    *,
    source_prompt: str,
    warps: PairWarps | None,
    settings: InversionSettings,
    orders: Sequence[Sequence[int]],
    keyframe_batch: int | None = None,
) -> Float[Tensor, "keyframe channel height width"]:
    """Sample x_S back to x_0 with the same prompt, orders and warping, at guidance 1.

    Source: WAVE sec. 8, the reconstruction that an inversion is measured by.

    Args:
        model: the diffusion model.
        latents: x_S.
        source_prompt: the prompt of the inversion.
        warps: those of the inversion.
        settings: those of the inversion.
        orders: the stored orders of the inversion, of steps 1 to S.
        keyframe_batch: keyframes in one UNet batch, in the order of the step; None for all.

    Returns:
        The reconstructed x_0, float32.
    """
    schedule = DDIMSchedule.from_config(model.scheduler_config, steps=settings.steps)
    warped = settings.schedule.warped_steps("editing")
    predictor = _Predictor(model, schedule, encode_prompts(model, [source_prompt]), warps, keyframe_batch)
    x = latents.float().to(model.device)
    with injected(model.unet, predictor.session, sites=resolve_sites(model.unet, sites=model.sites)):
        predictor.session.prepare(orders, latent_size=(x.shape[-2], x.shape[-1]))
        for j in range(settings.steps, 0, -1):
            noise_pred = predictor(x, j, order=orders[j - 1], warping=j in warped)  # orders[0] is that of step 1
            x = schedule.step(x, noise_pred, j)
    return x


class _Predictor:
    """The noise prediction of all keyframes at one step, for one prompt."""

    def __init__(
        self,
        model: StableDiffusion,
        schedule: DDIMSchedule,
        context: Conditioning,
        warps: PairWarps | None,
        keyframe_batch: int | None,
        halved: Callable[[int], None] | None = None,
    ) -> None:
        self.model, self.schedule, self.context, self.halved = model, schedule, context, halved
        self.timesteps = schedule.timestep_tensor(model.device)
        graphs = CudaGraphs() if model.cuda_graphs else None
        self.session = FeatureSession(warps=warps, keyframe_batch=keyframe_batch, graphs=graphs)

    def __call__(
        self,
        x: Float[Tensor, "keyframe channel height width"],
        step_index: int,
        *,
        order: Sequence[int],
        warping: bool,
    ) -> Float[Tensor, "keyframe channel height width"]:
        step = FeatureStep(order=tuple(order), warping=warping)

        def predict() -> Tensor:
            noise_pred = torch.empty_like(x)
            for frames in self.session.batches(step, latent_size=(x.shape[-2], x.shape[-1])):
                latents = x.index_select(0, frames)
                inputs = {"latents": latents, "timestep": self.timesteps[step_index - 1]}
                output = self.session.predict(self._output, inputs)
                noise_pred.index_copy_(0, frames, self.schedule.noise_prediction(output, latents, step_index))
            return noise_pred

        return within_memory(self.session, len(x), predict, halved=self.halved)

    def _output(self, given: Inputs) -> Tensor:
        latents = given["latents"]
        arguments = self.context.arguments(latents)
        output: Tensor = self.model.unet(latents.to(self.model.dtype), given["timestep"], **arguments).sample
        return output
