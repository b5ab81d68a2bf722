"""A whole inversion and a whole edit written plainly: every step, keyframe and branch by itself.

After WAVE sec. 3 to 6: shuffled orders, DDIM inversion with warping, joint editing with injection and extended
attention. The oracle of `wave_ops.inversion` and `wave_ops.editing`, on top of one step of `PlainStep`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import sqrt
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from tests.wave_ops._reference import PlainStep
from wave_ops.conditioning import Conditioning, encode_prompts
from wave_ops.diffusion import StableDiffusion
from wave_ops.feature_warping import PairWarps
from wave_ops.sites import resolve_sites

__all__ = ["Orders", "PlainMethod"]

Orders = Sequence[Sequence[int]]
"""The order of the keyframes at the steps 1 to S."""


@dataclass(kw_only=True)
class PlainMethod:
    """The method on one model and one set of keyframes; the least noisy fifth of the steps does not warp."""

    model: StableDiffusion
    steps: int
    orders: Orders
    warps: PairWarps
    source_prompt: str
    edges: Tensor | None = None
    """What the model's ControlNet sees of each keyframe, at scale 0.5, in the two edit branches."""

    def __post_init__(self) -> None:
        """Read the timesteps t_1 to t_S and a_0 to a_S from the schedule that the checkpoint was trained with."""
        scheduler = DDIMScheduler.from_config(dict(self.model.scheduler_config))
        scheduler.set_timesteps(self.steps)
        self.timesteps = [int(t) for t in reversed(scheduler.timesteps)]
        self.a = [float(scheduler.final_alpha_cumprod), *(float(scheduler.alphas_cumprod[t]) for t in self.timesteps)]
        self.first_warped = self.steps - round(0.8 * self.steps) + 1  # both directions warp the noisiest 80 %

    @torch.inference_mode()
    def invert(self, x: Tensor) -> list[Tensor]:
        """Return x_0 to x_S: eps = UNet(x_{j-1}, t_j, source prompt), guidance 1."""
        trajectory, prompt = [x], encode_prompts(self.model, [self.source_prompt])
        for j in range(1, self.steps + 1):
            (eps,) = self._noise(x[None], prompt, j)
            x = self._move(x, eps, level=j - 1, target=j)
            trajectory.append(x)
        return trajectory

    @torch.inference_mode()
    def edit(
        self,
        inverted: Sequence[Tensor],
        *,
        prompt: str,
        negative_prompt: str,
        guidance_scale: float,
    ) -> Iterator[Tensor]:
        """Yield x_{S-1} to x_0, with the branches [source, unconditional, conditional] while anything is injected."""
        prompts = encode_prompts(self.model, (self.source_prompt, negative_prompt, prompt))
        x = inverted[self.steps]
        for j in range(self.steps, 0, -1):
            injecting = self.steps - j < round(0.5 * self.steps)
            latents, context = [x, x], prompts.last(2)
            if injecting:  # the source branch reads the stored latent of that timestep
                latents, context = [inverted[j], *latents], prompts
            noise = self._noise(torch.stack(latents), context, j, editing=True, injecting=injecting)
            x = self._move(x, noise[-2] + guidance_scale * (noise[-1] - noise[-2]), level=j, target=j - 1)
            yield x

    def _noise(
        self, latents: Tensor, prompts: Conditioning, j: int, *, editing: bool = False, injecting: bool = False
    ) -> Tensor:
        warping = j >= self.first_warped
        step = PlainStep(
            unet=self.model.unet,
            sites=resolve_sites(self.model.unet),
            order=self.orders[j - 1],
            warps=self.warps,
            warping=warping,
            extending=editing and warping,
            injecting=injecting,
        )
        controlled = range(len(latents) - 2, len(latents)) if editing and self.edges is not None else ()
        given = partial(self._given, prompts, latents, self.timesteps[j - 1], controlled)
        return step(latents, self.timesteps[j - 1], prompts.text, given)

    def _given(
        self,
        prompts: Conditioning,
        latents: Tensor,
        timestep: int,
        controlled: Sequence[int],
        *,
        branch: int,
        frame: int,
    ) -> dict[str, Any]:
        """Return further arguments of the UNet for one frame of one branch."""
        added = _added(prompts, latents, branch=branch)
        if branch not in controlled:
            return added
        down, mid = self.model.controlnet(
            latents[branch, frame][None],
            timestep,
            encoder_hidden_states=prompts.text[branch][None],
            controlnet_cond=self.edges[frame][None],
            conditioning_scale=0.5,
            return_dict=False,
            **added,
        )
        return added | {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}

    def _move(self, x: Tensor, eps: Tensor, *, level: int, target: int) -> Tensor:
        """x0 = (x - sqrt(1 - a) eps) / sqrt(a), then sqrt(a') x0 + sqrt(1 - a') eps."""
        a, b = self.a[level], self.a[target]
        return sqrt(b) * (x - sqrt(1 - a) * eps) / sqrt(a) + sqrt(1 - b) * eps


def _added(prompts: Conditioning, latents: Tensor, *, branch: int) -> dict[str, Any]:
    """Return what SDXL embeds with the timestep: pooled prompt; original size, crop and target size, in pixels."""
    if prompts.pooled is None:
        return {}
    height, width = 8 * latents.shape[-2], 8 * latents.shape[-1]
    sizes = torch.tensor([[height, width, 0, 0, height, width]])
    return {"added_cond_kwargs": {"text_embeds": prompts.pooled[branch : branch + 1], "time_ids": sizes}}
