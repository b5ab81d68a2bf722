"""The keyframes of one clip on their way through a diffusion model: what comparisons of its methods share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from time import perf_counter
from typing import Any, Final, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.evaluation.comparison import EvaluationClip, Resources
from tasks.models.flow_estimators import load_flow
from tasks.models.loading import loaded_model
from wave_ops.diffusion import StableDiffusion, decode_latents, encode_frames
from wave_ops.feature_warping import PairWarps
from wave_ops.inversion import InversionSettings, invert, reconstruct, step_orders
from wave_ops.keyframes import keyframe_indices
from wave_ops.masks import colour_residual, occlusion_mask
from wave_ops.metrics import psnr
from wave_ops.resize import analysis_size, fit_size, resize_frames, to_images
from wave_ops.scenes.rendering import Scene, match_frames
from wave_ops.shuffle import ShuffleMode, reachable_pairs
from wave_ops.unet import Sites, resolve_sites, with_block

__all__ = [
    "KEYFRAME_INTERVAL",
    "MOST_PSNR",
    "Bench",
    "Effort",
    "Handling",
    "Inversion",
    "Orders",
    "PairFlows",
    "SiteChoice",
    "Warping",
    "fit_masks",
    "masked_warps",
    "mean_psnr",
    "measured",
    "true_warps",
]

Frames = NDArray[np.uint8]
Masks = NDArray[np.bool_]
Orders = tuple[tuple[int, ...], ...]
SiteChoice = Literal["method", "with another up block", "last up block only", "ResNets only", "attentions only"]

KEYFRAME_INTERVAL: Final = 4
_WARPED_UP_BLOCKS: Final = 2
_WARPED_KINDS: Final = ("warp_resnets", "warp_attentions")
_KEPT: Final = 2
"""How many inversions are kept: a plain and a warped one."""
MOST_PSNR: Final = 100.0
"""dB told where two frames are the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Warping:
    """Which flow features follow, where it is trusted, and at which sites of the UNet."""

    flow: Literal["estimated", "true"] = "estimated"
    """On scenes the true flow is known, and where it holds."""
    residual: float | None = 0.04
    """Colour residual from which on an estimate is not trusted, on [0, 1]; None to look at no colour."""
    occlusion: Literal["plain", "squared"] | None = "plain"
    """Form of the rule for occlusion; None to warp what is occluded too."""
    sites: SiteChoice = "method"


@dataclass(frozen=True, slots=True, kw_only=True)
class PairFlows:
    """Estimated flow between keyframe pairs, and the keyframes on the grid that it lies on."""

    pairs: tuple[tuple[int, int], ...]
    """Keyframe slots (first, second)."""
    images: Tensor
    """(keyframe, 3, height, width) in [0, 1]."""
    to_prev: Tensor
    """(pair, 2, height, width), on the second's grid, to the first; pixels, x then y."""
    to_cur: Tensor
    """On the first's grid, to the second."""


def masked_warps(flows: PairFlows, warping: Warping) -> PairWarps:
    """The pairs' flows with their masks B, as the method has them or with one of its two rules changed."""
    first, second = (flows.images[list(slots)] for slots in zip(*flows.pairs, strict=True))
    return PairWarps.from_pairs(
        flows.pairs,
        to_prev=flows.to_prev,
        to_cur=flows.to_cur,
        mask_cur=_trusted(first, second, flows=(flows.to_prev, flows.to_cur), warping=warping),
        mask_prev=_trusted(second, first, flows=(flows.to_cur, flows.to_prev), warping=warping),
    )


def true_warps(scene: Scene, keyframes: Sequence[int], pairs: Sequence[tuple[int, int]]) -> PairWarps:
    """The flow that a scene was drawn with, trusted wherever the matched point is to be seen."""
    both = [(b, a) for a, b in pairs] + list(pairs)
    found = [match_frames(scene, keyframes[here], keyframes[there]) for here, there in both]
    flows, hidden = (torch.from_numpy(np.stack(values)) for values in zip(*found, strict=True))
    count = len(pairs)
    return PairWarps.from_pairs(
        pairs, to_prev=flows[:count], to_cur=flows[count:], mask_cur=~hidden[:count], mask_prev=~hidden[count:]
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Handling:
    """How flows become warps, and which orders the way back takes, given those of the inversion.

    By default as the method has it; anything else shows what a mistake there costs.
    """

    warps: Callable[[PairFlows, Warping], PairWarps] = masked_warps
    orders: Callable[[Orders], Orders] = tuple


@dataclass(slots=True, kw_only=True)
class Effort:
    """What a piece of work takes."""

    seconds: float = 0.0
    calls: int = 0
    """Of the UNet: all keyframes in one batch are one call."""


@contextmanager
def measured(model: StableDiffusion, *, after: Effort | None = None) -> Iterator[Effort]:
    """Measure what is done in this context; what was done before, if anything, is counted in."""
    effort = Effort() if after is None else replace(after)

    def count(_: Any, __: Any) -> None:
        effort.calls += 1

    hook, started = model.unet.register_forward_pre_hook(count), perf_counter()
    try:
        yield effort
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
    finally:
        hook.remove()
        effort.seconds += perf_counter() - started


@dataclass(frozen=True, slots=True, kw_only=True)
class Inversion:
    """The latents x_0 to x_S of all keyframes, and the orders of the steps between them."""

    latents: tuple[Tensor, ...]
    orders: Orders
    effort: Effort


class Bench:
    """One clip with what its methods share: keyframes, latents, flows, and the latest inversions."""

    def __init__(
        self,
        clip: EvaluationClip,
        resources: Resources,
        *,
        shuffles: Sequence[ShuffleMode] = ("group",),
        handling: Handling,
        interval: int = KEYFRAME_INTERVAL,
    ) -> None:
        self.clip, self.resources, self.handling = clip, resources, handling
        self.keyframes = keyframe_indices(len(clip.frames), interval, cuts=clip.cuts)
        reachable = (reachable_pairs(len(self.keyframes), mode=mode) for mode in dict.fromkeys(shuffles))
        self.pairs = tuple(sorted(set[tuple[int, int]]().union(*reachable)))
        model, (height, width) = resources.model, clip.frames.shape[1:3]
        self.size = fit_size((height, width), native_area=model.native_area, multiple=model.size_multiple)
        self.frames = self.fit(clip.frames)
        self.encoded = lru_cache(maxsize=None)(self._encoded)
        self.flows = lru_cache(maxsize=None)(self._flows)
        self.warps = lru_cache(maxsize=_KEPT)(self._warps)
        self.invert = lru_cache(maxsize=_KEPT)(self._invert)

    def fit(self, frames: Frames) -> Frames:
        """The keyframes of a clip's frames, at the model's size."""
        return resize_frames(frames[list(self.keyframes)], self.size)

    @contextmanager
    def model(self, sites: SiteChoice = "method") -> Iterator[StableDiffusion]:
        """Borrow the model for one piece of work: between two methods somebody else may want it."""
        parts = self.resources
        with loaded_model(parts.model, parts.controlnet, device=parts.device, dtype=parts.dtype) as model:
            yield model if sites == "method" else replace(model, sites=_chosen_sites(model, sites))

    def reconstruct(
        self, settings: InversionSettings, *, inversion: Warping | None, sampling: Warping | None
    ) -> tuple[Tensor, Frames, Effort]:
        """Invert, and sample back with the same prompt: x_0, frames, and what both ways took."""
        inverted, warps = self.invert(settings, inversion), self.warps(sampling)
        with self.model(_sites(sampling)) as model:
            with measured(model, after=inverted.effort) as effort:
                latents = reconstruct(
                    model,
                    inverted.latents[-1],
                    source_prompt=self.clip.caption,
                    warps=warps,
                    settings=settings,
                    orders=self.handling.orders(inverted.orders),
                )
            return latents.cpu(), decode_latents(model, latents), effort

    def _encoded(self) -> tuple[Tensor, Frames]:
        """The keyframes' own latents, and the frames that the VAE makes of them."""
        with self.model() as model:
            latents = encode_frames(model, self.frames)
            return latents.cpu(), decode_latents(model, latents)

    def _invert(self, settings: InversionSettings, warping: Warping | None) -> Inversion:
        latents, warps = self.encoded()[0], self.warps(warping)
        stored = [latents]
        with self.model(_sites(warping)) as model, measured(model) as effort:
            invert(
                model,
                latents,
                source_prompt=self.clip.caption,
                warps=warps,
                settings=settings,
                callback=lambda _, x: stored.append(x.cpu()),
            )
        return Inversion(latents=tuple(stored), orders=step_orders(len(latents), settings), effort=effort)

    def _warps(self, warping: Warping | None) -> PairWarps | None:
        if warping is None or not self.pairs:
            return None
        if warping.flow == "true" and self.clip.scene is not None:
            return true_warps(self.clip.scene, self.keyframes, self.pairs)
        return self.handling.warps(self.flows(), warping)

    def _flows(self) -> PairFlows:
        """Estimate flow where the product does: at the clip's own size, up to its limit."""
        frames = self.clip.frames[list(self.keyframes)]
        frames = resize_frames(frames, analysis_size((frames.shape[1], frames.shape[2])))
        estimate = load_flow(self.resources.flow, device=self.resources.device)
        found = [estimate(frames[first], frames[second]) for first, second in self.pairs]
        to_prev, to_cur = (torch.from_numpy(np.stack(flows)) for flows in zip(*found, strict=True))
        return PairFlows(pairs=self.pairs, images=to_images(frames), to_prev=to_prev, to_cur=to_cur)


def mean_psnr(made: Frames, wanted: Frames) -> float:
    """Mean over frames, in dB."""
    return float(psnr(to_images(made), to_images(wanted)).clamp(max=MOST_PSNR).mean())


def fit_masks(masks: Masks, size: tuple[int, int]) -> Masks:
    """Masks (frame, height, width) on another grid, nearest."""
    resized = [cv2.resize(mask.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST_EXACT) for mask in masks]
    return np.stack(resized).astype(np.bool_)


def _trusted(prev: Tensor, cur: Tensor, *, flows: tuple[Tensor, Tensor], warping: Warping) -> Tensor:
    """The mask B of `wave_ops.masks.warp_mask`, rule by rule."""
    trusted = torch.ones_like(cur[:, 0], dtype=torch.bool)
    if warping.occlusion is not None:
        trusted &= ~occlusion_mask(*flows, squared=warping.occlusion == "squared")
    if warping.residual is not None:
        trusted &= colour_residual(prev, cur, flows[0]) < warping.residual
    return trusted


def _sites(warping: Warping | None) -> SiteChoice:
    return "method" if warping is None else warping.sites


def _chosen_sites(model: StableDiffusion, choice: SiteChoice) -> dict[str, tuple[str, ...]]:
    """Change where features are warped, not where they are injected; only another block is extended too.

    The other block is the one before those that the method warps: up block 1 in Stable Diffusion 1.x.
    """
    sites, first = resolve_sites(model.unet, sites=model.sites), len(model.unet.up_blocks) - _WARPED_UP_BLOCKS
    match choice:
        case "ResNets only":
            sites = replace(sites, warp_attentions=())
        case "attentions only":
            sites = replace(sites, warp_resnets=())
        case "with another up block":
            sites = with_block(model.unet, sites, block=f"up_blocks.{first - 1}")
        case "last up block only":
            kept = {kind: _outside(getattr(sites, kind), f"up_blocks.{first}") for kind in _WARPED_KINDS}
            sites = replace(sites, **kept)
    return {kind.name: getattr(sites, kind.name) for kind in fields(Sites)}


def _outside(names: Sequence[str], block: str) -> tuple[str, ...]:
    return tuple(name for name in names if not name.startswith(f"{block}."))
