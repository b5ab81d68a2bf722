"""Inversion and sampling of all frames together by a compared method, on plug-and-play (Tumanyan et al., CVPR 2023)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from wave_ops.conditioning import Conditioning, encode_prompts
from wave_ops.diffusion import StableDiffusion
from wave_ops.editing import EditingSettings
from wave_ops.inversion import InversionSettings
from wave_ops.peers.method import PeerMethod, applied
from wave_ops.schedule import DDIMSchedule
from wave_ops.sites import Sites, resolve_sites
from wave_ops.unet import FeatureSession, FeatureStep, injected

__all__ = ["invert_peer", "predict_noise", "sample_peer"]

_BRANCHES = 3
"""Source, unconditional and conditional."""


@torch.inference_mode()
def sample_peer(
    model: StableDiffusion,
    inverted: Callable[[int], Float[Tensor, "frame channel height width"]],
    *,
    prompt: str,
    source_prompt: str,
    negative_prompt: str,
    settings: EditingSettings,
    method: PeerMethod,
) -> Float[Tensor, "frame channel height width"]:
    """Denoise all frames together from x_S, with the branches [source, unconditional, conditional].

    The source branch reads the inversion's latents of each step, and is computed in every step, since methods read from
    it. In the first steps its queries, keys and ResNet outputs are injected.

    Args:
        model: the diffusion model; its ControlNet is not used.
        inverted: returns the stored x_j of the inversion for a step j.
        prompt: describes the edited clip.
        source_prompt: the prompt of the inversion.
        negative_prompt: the prompt of the unconditional branch.
        settings: steps, guidance scale and injected fractions are used.
        method: how frames are bound together.

    Returns:
        The edited x_0, float32.
    """
    schedule = DDIMSchedule.from_config(model.scheduler_config, steps=settings.steps)
    prompts = encode_prompts(model, (source_prompt, negative_prompt, prompt))
    session = FeatureSession(warps=None)
    x = inverted(settings.steps).float().to(model.device)
    with injected(model.unet, session, sites=_injection_sites(model)), applied(model.unet, method, branches=_BRANCHES):
        for j in range(settings.steps, 0, -1):
            step = FeatureStep(
                order=tuple(range(len(x))),
                branches=_BRANCHES,
                injecting=settings.injects(j),
                injecting_features=settings.injects_features(j),
            )
            latents = torch.stack([inverted(j).to(x), x, x])
            for _ in session.batches(step, latent_size=(x.shape[-2], x.shape[-1])):
                _, uncond, cond = predict_noise(model, schedule, latents, prompts, step_index=j, method=method)
            x = schedule.step(x, uncond + settings.guidance_scale * (cond - uncond), j)
    return x


@torch.inference_mode()
def invert_peer(
    model: StableDiffusion,
    latents: Float[Tensor, "frame channel height width"],
    *,
    source_prompt: str,
    settings: InversionSettings,
    method: PeerMethod,
) -> tuple[Float[Tensor, "frame channel height width"], ...]:
    """Invert all frames by plain DDIM, with the method applied; return x_0 to x_S.

    Args:
        model: the diffusion model.
        latents: x_0.
        source_prompt: describes the source; may be empty.
        settings: steps, noise point and limit of extrapolation are used.
        method: how frames are bound together.
    """
    schedule = DDIMSchedule.from_config(model.scheduler_config, steps=settings.steps)
    prompts = encode_prompts(model, [source_prompt])
    found = [latents.float().to(model.device)]
    with applied(model.unet, method, branches=1):
        for j in range(1, settings.steps + 1):
            point = found[-1]
            extrapolates = settings.noise_point == "extrapolated" and j > 1
            if extrapolates and schedule.extrapolation_reach(j) <= settings.extrapolation_limit:
                point = schedule.extrapolate(found[-2], found[-1], j)
            (noise,) = predict_noise(model, schedule, point[None], prompts, step_index=j, method=method)
            found.append(schedule.inverse_step(found[-1], noise, j))
    return tuple(found)


def predict_noise(
    model: StableDiffusion,
    schedule: DDIMSchedule,
    latents: Float[Tensor, "branch frame channel height width"],
    prompts: Conditioning,
    *,
    step_index: int,
    method: PeerMethod,
) -> Float[Tensor, "branch frame channel height width"]:
    """Predict the noise of all branches and frames in one UNet call, laid out by a method."""
    method.start_step(step_index, latents)
    images = method.lay_out(latents)
    flat = images.flatten(0, 1)
    output = model.unet(
        flat.to(model.dtype),
        schedule.timestep_tensor(model.device)[step_index - 1],
        **prompts.arguments(flat),
    ).sample
    return method.restore(schedule.noise_prediction(output, flat, step_index).unflatten(0, images.shape[:2]))


def _injection_sites(model: StableDiffusion) -> Sites:
    sites = resolve_sites(model.unet, sites=model.sites)
    return replace(sites, warp_resnets=(), warp_attentions=(), extend_attentions=())
