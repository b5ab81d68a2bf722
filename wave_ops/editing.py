"""Joint editing of the keyframes (WAVE sec. 2.4): plug-and-play, extended attention, warping, ControlNet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from wave_ops.conditioning import Conditioning, encode_prompts
from wave_ops.controls import Control, ControlNets, networks_of
from wave_ops.cuda_graphs import CudaGraphs, Inputs
from wave_ops.diffusion import StableDiffusion
from wave_ops.errors import WaveOpsError
from wave_ops.feature_warping import PairWarps
from wave_ops.schedule import DDIMSchedule
from wave_ops.settings import NEGATIVE_PROMPT, EditingSettings
from wave_ops.sites import resolve_sites
from wave_ops.unet import FeatureSession, FeatureStep, injected, within_memory

__all__ = ["NEGATIVE_PROMPT", "EditingSettings", "edit"]


@torch.inference_mode()
def edit(
    model: StableDiffusion,
    inverted: Callable[[int], Float[Tensor, "keyframe channel height width"]],
    *,
    prompt: str,
    source_prompt: str,
    negative_prompt: str = NEGATIVE_PROMPT,
    orders: Sequence[Sequence[int]],
    warps: PairWarps | None,
    settings: EditingSettings,
    edges: Float[Tensor, "keyframe 3 image_height image_width"] | None = None,
    controls: Sequence[Control] = (),
    mask: Float[Tensor, "keyframe 1 height width"] | None = None,
    start: tuple[int, Float[Tensor, "keyframe channel height width"]] | None = None,
    keyframe_batch: int | None = None,
    halved: Callable[[int], None] | None = None,
    callback: Callable[[int, Tensor], None] | None = None,
) -> Float[Tensor, "keyframe channel height width"]:
    """Denoise all keyframes together from x_S, with the branches [source, unconditional, conditional].

    Source: WAVE sec. 6; plug-and-play injection after Tumanyan et al. 2023. The source branch reads the stored
    inversion latent of each step. Deviates: it is computed only in the steps that inject from it, and the
    unconditional branch only where guidance is not 1, which changes no result.

    Args:
        model: the diffusion model; its ControlNets are used if `edges` or `controls` are passed.
        inverted: returns the stored x_j of the inversion for a step j.
        prompt: describes the edited clip.
        source_prompt: the prompt of the inversion.
        negative_prompt: the prompt of the unconditional branch.
        orders: the stored orders of the inversion, of steps 1 to S.
        warps: flows and masks of the keyframe pairs; None for no warping.
        settings: see EditingSettings; its schedule must be that of the inversion.
        edges: canny edges of the source keyframes, 0 or 1, three equal channels, in pixels: the input of the
            ControlNets in all steps.
        controls: instead of edges, the inputs of the ControlNets, one for each.
        mask: where the clip is edited, 0 to 1, on the latents' grid (see `change_mask`); elsewhere the latents of each
            step are the inversion's own. None edits everywhere.
        start: (j, edited x_j) to resume from; None to start from the inversion's x_S.
        keyframe_batch: keyframes in one UNet batch, in the order of the step; None for all. Changes memory, not the
            result.
        halved: receives the smaller batch when memory runs out.
        callback: receives (j, x_j) after each step, j from S - 1 down to 0.

    Returns:
        The edited x_0, float32.

    Raises:
        WaveOpsError: the number of orders is not that of the steps, that of controls not that of the ControlNets, or
            keyframes in several batches would all attend to the first one in time.
    """
    if len(orders) != settings.steps:
        raise WaveOpsError(f"expected the orders of {settings.steps} steps, got {len(orders)}: pass the inversion's")
    texts = (source_prompt, prompt) if settings.guidance_scale == 1 else (source_prompt, negative_prompt, prompt)
    prompts = encode_prompts(model, texts)
    if edges is not None:
        controls = [Control(images=edges)] * len(networks_of(model.controlnet))
    denoiser = _Denoiser(model, settings, prompts, warps, controls, keyframe_batch, halved)
    first, x = start if start is not None else (settings.steps, inverted(settings.steps))
    x = x.float().to(model.device)
    with injected(model.unet, denoiser.session, sites=resolve_sites(model.unet, sites=model.sites)):
        denoiser.session.prepare(orders[:first], latent_size=(x.shape[-2], x.shape[-1]))
        edited_part = None if mask is None else mask.to(x)
        for j in range(first, 0, -1):
            # Read from storage rather than denoised: the source branch then has no error to accumulate
            injects = settings.injects(j) or settings.injects_features(j)
            source = inverted(j).float().to(model.device) if injects else None
            x = denoiser(x, source, j, order=orders[j - 1])
            if edited_part is not None:
                x = torch.lerp(inverted(j - 1).float().to(x), x, edited_part)
            if callback is not None:
                callback(j - 1, x)
    return x


class _Denoiser:
    """The joint denoising step of all keyframes."""

    def __init__(
        self,
        model: StableDiffusion,
        settings: EditingSettings,
        prompts: Conditioning,  # the source's, then those of the edit branches
        warps: PairWarps | None,
        controls: Sequence[Control],
        keyframe_batch: int | None,
        halved: Callable[[int], None] | None,
    ) -> None:
        self.model, self.settings, self.prompts, self.halved = model, settings, prompts, halved
        self.schedule = DDIMSchedule.from_config(model.scheduler_config, steps=settings.steps)
        self.timesteps = self.schedule.timestep_tensor(model.device)
        self.warped = settings.schedule.warped_steps("editing")
        self.controls = ControlNets(model.controlnet, controls, weight=settings.controlnet_scale)
        self.edit_branches = len(prompts) - 1
        self.session = FeatureSession(
            warps=warps,
            anchor=settings.anchor,
            keyframe_batch=keyframe_batch,
            graphs=CudaGraphs() if model.cuda_graphs else None,
        )

    def __call__(
        self,
        x: Float[Tensor, "keyframe channel height width"],
        source: Float[Tensor, "keyframe channel height width"] | None,
        step_index: int,
        *,
        order: Sequence[int],
    ) -> Float[Tensor, "keyframe channel height width"]:
        warping = step_index in self.warped
        step = FeatureStep(
            order=tuple(order),
            branches=self.edit_branches + (source is not None),
            warping=warping,
            extending=warping and self.settings.extended_attention,
            injecting=source is not None and self.settings.injects(step_index),
            injecting_features=source is not None and self.settings.injects_features(step_index),
        )

        def denoise() -> Tensor:
            edited, done = torch.empty_like(x), 0
            for frames in self.session.batches(step, latent_size=(x.shape[-2], x.shape[-1])):
                keyframes = step.order[done : done + len(frames)]
                done += len(frames)
                images = self.controls.images(keyframes, frames, step_index=step_index, steps=self.settings.steps)
                noise_pred = self._guided_noise(x, source, step_index, frames=frames, images=images)
                edited.index_copy_(0, frames, self.schedule.step(x.index_select(0, frames), noise_pred, step_index))
            return edited

        return within_memory(self.session, len(x), denoise, halved=self.halved)

    def _guided_noise(
        self, x: Tensor, source: Tensor | None, step_index: int, *, frames: Tensor, images: list[Tensor]
    ) -> Float[Tensor, "frame channel height width"]:
        # The source branch comes first: `FeatureStep.injecting` copies from there
        sources = [] if source is None else [source.index_select(0, frames)]
        branches = sources + [x.index_select(0, frames)] * self.edit_branches
        latents = torch.cat(branches)
        inputs = {"latents": latents, "timestep": self.timesteps[step_index - 1], "images": images}
        output = self.session.predict(
            partial(self._output, branches=len(branches), step_index=step_index),
            inputs,
            variant=self.controls.acting(step_index, steps=self.settings.steps),
        )
        edits = slice(-self.edit_branches * len(frames), None)  # the last branches, with a source branch or without
        noise_pred = self.schedule.noise_prediction(output[edits], latents[edits], step_index)
        if self.edit_branches == 1:
            return noise_pred
        uncond, cond = noise_pred.chunk(2)
        return uncond + self.settings.guidance_scale * (cond - uncond)

    def _output(self, given: Inputs, *, branches: int, step_index: int) -> Tensor:
        """Return the UNet's output; of the step, only which ControlNets act is read."""
        latents, timestep = given["latents"], given["timestep"]
        output: Tensor = self.model.unet(
            latents.to(self.model.dtype),
            timestep,
            **self.prompts.last(branches).arguments(latents),
            **self._control(latents, timestep, step_index, images=given["images"], branches=branches),
        ).sample
        return output

    def _control(
        self, latents: Tensor, timestep: Tensor, step_index: int, *, images: list[Tensor], branches: int
    ) -> dict[str, Tensor | list[Tensor]]:
        """Return the UNet's arguments for ControlNets: residuals of the two edit branches, zeros for the source's."""
        sources = len(latents) // branches * (branches - self.edit_branches)
        edited = latents[sources:]
        residuals = self.controls.residuals(
            edited,
            timestep,
            self.prompts.last(self.edit_branches).arguments(edited),
            step_index=step_index,
            steps=self.settings.steps,
            images=images,
        )
        if residuals is None:
            return {}
        down, mid = residuals
        # The UNet adds residuals to its whole batch: zeros leave the source branch as it was inverted, without control
        return {
            "down_block_additional_residuals": [_zeros_before(residual, sources) for residual in down],
            "mid_block_additional_residual": _zeros_before(mid, sources),
        }


def _zeros_before(residual: Tensor, count: int) -> Tensor:
    return torch.cat([residual.new_zeros(count, *residual.shape[1:]), residual])
