"""Joint editing of the keyframes (WAVE sec. 2.4): plug-and-play, extended attention, warping, ControlNet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor

from wave_ops.diffusion import StableDiffusion, encode_prompt
from wave_ops.errors import WaveOpsError
from wave_ops.feature_warping import PairWarps
from wave_ops.schedule import DDIMSchedule, WarpSchedule
from wave_ops.unet import Anchor, FeatureSession, FeatureStep, injected, resolve_sites

__all__ = ["NEGATIVE_PROMPT", "EditingSettings", "edit"]

NEGATIVE_PROMPT = "ugly, blurry, low res, unrealistic, unaesthetic"


@dataclass(frozen=True, slots=True, kw_only=True)
class EditingSettings:
    """What changes the edited latents, beside prompts and inputs."""

    schedule: WarpSchedule = field(default_factory=WarpSchedule)
    """The steps, and which of them warp features and extend attention: that of the inversion."""
    guidance_scale: float = 12.5
    """Weight of the classifier-free guidance; 1 follows the prompt alone."""
    injection_fraction: float = 0.5
    """Part of the steps, from the noisiest on, that take the source's features, 0 to 1; 0 switches injection off."""
    extended_attention: bool = True
    """In the warped steps, keys and values are computed from the anchor frame's tokens too, flows or none."""
    anchor: Anchor = "order"
    """The anchor frame: the first of the step's order, or the first in time, which needs all keyframes in one batch."""
    controlnet_scale: float = 0.5
    """Weight of the ControlNet's residuals, where there is a ControlNet."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            WaveOpsError: for a fraction outside 0 to 1.
        """
        if not 0 <= self.injection_fraction <= 1:
            raise WaveOpsError(f"the injected fraction must be from 0 to 1, got {self.injection_fraction}")

    @property
    def steps(self) -> int:
        """S, the steps of the schedule."""
        return self.schedule.steps

    def injects(self, step_index: int) -> bool:
        """Tell whether step j takes the source's features."""
        return self.steps - step_index < round(self.injection_fraction * self.steps)


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
    start: tuple[int, Float[Tensor, "keyframe channel height width"]] | None = None,
    keyframe_batch: int | None = None,
    callback: Callable[[int, Tensor], None] | None = None,
) -> Float[Tensor, "keyframe channel height width"]:
    """Denoise all keyframes together from x_S, with the branches [source, unconditional, conditional].

    Source: WAVE sec. 6 of the method; plug-and-play injection after Tumanyan et al. 2023. The source branch
    reads the stored inversion latent of each step. Deviates in computing it only while something is injected
    from it, which changes nothing else.

    Args:
        model: the diffusion model; its ControlNet is used where `edges` are given.
        inverted: gives the stored x_j of the inversion for a step j.
        prompt: what the edited clip shows.
        source_prompt: the inversion's prompt.
        negative_prompt: what the unconditional branch is given.
        orders: the inversion's stored orders of steps 1 to S.
        warps: flows and masks of the keyframe pairs; None for no warping.
        settings: see EditingSettings; its schedule must be that of the inversion.
        edges: canny images of the source keyframes, 0 or 1, three equal channels, at pixel size.
        start: (j, edited x_j) to resume from.
        keyframe_batch: keyframes in one UNet batch, in the order of the step; None for all.
        callback: receives (j, x_j) after each step, j from S - 1 down to 0.

    Returns:
        The edited x_0.

    Raises:
        WaveOpsError: where the number of orders is not that of the steps, or keyframes in several batches would
            all need the first one in time.
    """
    if len(orders) != settings.steps:
        raise WaveOpsError(f"editing in {settings.steps} steps needs as many orders, got {len(orders)}")
    prompts = [encode_prompt(model, text) for text in (source_prompt, negative_prompt, prompt)]
    denoiser = _Denoiser(model, settings, torch.cat(prompts), warps, edges, keyframe_batch)
    first, x = start if start is not None else (settings.steps, inverted(settings.steps))
    x = x.float().to(model.device)
    with injected(model.unet, denoiser.session, sites=resolve_sites(model.unet, sites=model.sites)):
        for j in range(first, 0, -1):
            source = inverted(j).float().to(model.device) if settings.injects(j) else None
            x = denoiser(x, source, j, order=orders[j - 1])
            if callback is not None:
                callback(j - 1, x)
    return x


class _Denoiser:
    """One joint step of all keyframes."""

    def __init__(
        self,
        model: StableDiffusion,
        settings: EditingSettings,
        prompts: Float[Tensor, "branch token channel"],
        warps: PairWarps | None,
        edges: Float[Tensor, "keyframe 3 image_height image_width"] | None,
        keyframe_batch: int | None,
    ) -> None:
        self.model, self.settings, self.prompts = model, settings, prompts
        self.schedule = DDIMSchedule.from_config(model.scheduler_config, steps=settings.steps)
        self.timesteps = self.schedule.timestep_tensor(model.device)
        self.warped = settings.schedule.warped_steps("editing")
        self.edges = None if edges is None else edges.to(model.device, model.dtype)
        self.session = FeatureSession(warps=warps, anchor=settings.anchor, keyframe_batch=keyframe_batch)

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
            branches=2 if source is None else 3,
            warping=warping,
            extending=warping and self.settings.extended_attention,
            injecting=source is not None,
        )
        edited = torch.empty_like(x)
        for frames in self.session.batches(step, latent_size=(x.shape[-2], x.shape[-1])):
            noise_pred = self._guided_noise(x, source, step_index, frames=frames)
            edited[frames] = self.schedule.step(x[frames], noise_pred, step_index)
        return edited

    def _guided_noise(
        self, x: Tensor, source: Tensor | None, step_index: int, *, frames: list[int]
    ) -> Float[Tensor, "frame channel height width"]:
        branches = ([] if source is None else [source[frames]]) + [x[frames], x[frames]]
        latents = torch.cat(branches)
        context = repeat(self.prompts[-len(branches) :], "b n c -> (b f) n c", f=len(frames))
        timestep = self.timesteps[step_index - 1]
        output = self.model.unet(
            latents.to(self.model.dtype),
            timestep,
            encoder_hidden_states=context,
            **self._control(latents, timestep, context, frames),
        ).sample
        edits = slice(-2 * len(frames), None)
        noise_pred = self.schedule.noise_prediction(output[edits], latents[edits], step_index)
        uncond, cond = noise_pred.chunk(2)
        return uncond + self.settings.guidance_scale * (cond - uncond)

    def _control(
        self, latents: Tensor, timestep: Tensor, context: Tensor, frames: list[int]
    ) -> dict[str, Tensor | list[Tensor]]:
        """Compute the ControlNet's residuals of the two edit branches; zeros for the source branch."""
        if self.edges is None or self.model.controlnet is None:
            return {}
        edits = slice(-2 * len(frames), None)
        down, mid = self.model.controlnet(
            latents[edits].to(self.model.dtype),
            timestep,
            encoder_hidden_states=context[edits],
            controlnet_cond=self.edges[frames].repeat(2, 1, 1, 1),
            conditioning_scale=self.settings.controlnet_scale,
            return_dict=False,
        )
        sources = len(latents) - 2 * len(frames)
        return {
            "down_block_additional_residuals": [_zeros_before(residual, sources) for residual in down],
            "mid_block_additional_residual": _zeros_before(mid, sources),
        }


def _zeros_before(residual: Tensor, count: int) -> Tensor:
    return torch.cat([residual.new_zeros(count, *residual.shape[1:]), residual])
