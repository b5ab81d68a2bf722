"""The keyframes of one clip with the latents, flows and inversions that the compared methods share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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

from storage.digest import digest_of
from tasks.cancel import raise_if_stopped
from tasks.evaluation.clips.clip import EvaluationClip
from tasks.evaluation.comparisons.comparison import Resources
from tasks.models.flow_estimators import load_flow
from tasks.models.loading import loaded_model
from tasks.planning.method import KeyframeFlow
from wave_ops.diffusion import StableDiffusion, decode_latents, encode_frames
from wave_ops.feature_warping import PairWarps
from wave_ops.flow import compose_flows, refine_flow
from wave_ops.inversion import InversionSettings, invert, reconstruct, step_orders
from wave_ops.keyframes import keyframe_indices
from wave_ops.masks import ToleranceAt, colour_residual, occlusion_mask
from wave_ops.metrics import psnr
from wave_ops.resize import analysis_size, fit_size, resize_frames, to_images
from wave_ops.scenes.rendering import Scene, match_frames
from wave_ops.shuffle import ShuffleMode, reachable_pairs
from wave_ops.sites import Sites, resolve_sites, with_block

__all__ = [
    "KEYFRAME_INTERVAL",
    "MOST_PSNR",
    "Cost",
    "Inversion",
    "KeyframeContext",
    "Orders",
    "PairFlows",
    "SiteChoice",
    "Warping",
    "fit_masks",
    "masked_warps",
    "mean_psnr",
    "measure_cost",
    "true_warps",
]

Frames = NDArray[np.uint8]
Masks = NDArray[np.bool_]
Orders = tuple[tuple[int, ...], ...]
SiteChoice = Literal["method", "with another up block", "last up block only", "ResNets only", "attentions only"]

KEYFRAME_INTERVAL: Final = 4
_WARPED_UP_BLOCKS: Final = 2
_WARPED_KINDS: Final = ("warp_resnets", "warp_attentions")
_CACHED: Final = 2
"""How many inversions are cached: a plain and a warped one."""
MOST_PSNR: Final = 100.0
"""dB of two identical frames."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Warping:
    """The flow to warp features by, where it is trusted, and at which sites of the UNet."""

    flow: Literal["estimated", "true"] = "estimated"
    """The true flow and occlusion are known on scenes only."""
    residual: float | None = 0.04
    """Colour residual in [0, 1] from which on an estimate is not trusted; None to ignore colours."""
    occlusion: Literal["plain", "squared"] | None = "plain"
    """Form of the rule for occlusion; None to warp occluded pixels too."""
    sites: SiteChoice = "method"
    keyframes: KeyframeFlow = "composed"
    """How flow between keyframes is estimated."""
    tolerance_at: ToleranceAt = "match"
    """Where the rule for occlusion takes the length of the return flow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairFlows:
    """Estimated flow between keyframe pairs, and the keyframes on the grid of the flow."""

    pairs: tuple[tuple[int, int], ...]
    """Keyframe indices (first, second)."""
    images: Tensor
    """(keyframe, 3, height, width) in [0, 1]."""
    to_prev: Tensor
    """(pair, 2, height, width), on the second's grid, to the first; pixels, x then y."""
    to_cur: Tensor
    """On the first's grid, to the second."""


def masked_warps(flows: PairFlows, warping: Warping) -> PairWarps:
    """Return the pairs' flows with their masks B, by the rules of the method or with one of its two rules changed."""
    first, second = (flows.images[list(indices)] for indices in zip(*flows.pairs, strict=True))
    return PairWarps.from_pairs(
        flows.pairs,
        to_prev=flows.to_prev,
        to_cur=flows.to_cur,
        mask_cur=_trusted(first, second, flows=(flows.to_prev, flows.to_cur), warping=warping),
        mask_prev=_trusted(second, first, flows=(flows.to_cur, flows.to_prev), warping=warping),
    )


def true_warps(scene: Scene, keyframes: Sequence[int], pairs: Sequence[tuple[int, int]]) -> PairWarps:
    """Return the true flow of a scene, trusted where the matched point is visible."""
    both = [(b, a) for a, b in pairs] + list(pairs)
    found = [match_frames(scene, keyframes[here], keyframes[there]) for here, there in both]
    flows, hidden = (torch.from_numpy(np.stack(values)) for values in zip(*found, strict=True))
    count = len(pairs)
    return PairWarps.from_pairs(
        pairs, to_prev=flows[:count], to_cur=flows[count:], mask_cur=~hidden[:count], mask_prev=~hidden[count:]
    )


@dataclass(slots=True, kw_only=True)
class Cost:
    """The cost of running a model."""

    seconds: float = 0.0
    calls: int = 0
    """Calls of the UNet; all keyframes in one batch are one call."""


@contextmanager
def measure_cost(model: StableDiffusion, *, after: Cost | None = None) -> Iterator[Cost]:
    """Count UNet calls and seconds in this context, on top of an earlier cost if one is given."""
    cost = Cost() if after is None else replace(after)

    def count(_: Any, __: Any) -> None:
        cost.calls += 1

    hook, started = model.unet.register_forward_pre_hook(count), perf_counter()
    try:
        yield cost
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
    finally:
        hook.remove()
        cost.seconds += perf_counter() - started


@dataclass(frozen=True, slots=True, kw_only=True)
class Inversion:
    """The latents x_0 to x_S of all keyframes, and the orders of the steps between them."""

    latents: tuple[Tensor, ...]
    orders: Orders
    cost: Cost


class KeyframeContext:
    """One clip with what its methods share: keyframes, latents, flows, and the latest inversions.

    Args:
        clip: the clip.
        resources: model, flow estimator and device.
        shuffles: the shuffle modes of the methods; flow is estimated between all keyframe pairs that these may warp.
        interval: frames from keyframe to keyframe.
    """

    def __init__(
        self,
        clip: EvaluationClip,
        resources: Resources,
        *,
        shuffles: Sequence[ShuffleMode] = ("group",),
        interval: int = KEYFRAME_INTERVAL,
    ) -> None:
        self.clip, self.resources = clip, resources
        self.keyframes = keyframe_indices(len(clip.frames), interval, cuts=clip.cuts)
        reachable = (reachable_pairs(len(self.keyframes), mode=mode) for mode in dict.fromkeys(shuffles))
        self.pairs = tuple(sorted(set[tuple[int, int]]().union(*reachable)))
        model, (height, width) = resources.model, clip.frames.shape[1:3]
        self.size = fit_size((height, width), native_area=model.native_area, multiple=model.size_multiple)
        self.frames = self.fit(clip.frames)
        self.encoded = lru_cache(maxsize=None)(self._encoded)
        self.flows = lru_cache(maxsize=None)(self._flows)
        self.warps = lru_cache(maxsize=_CACHED)(self._warps)
        self.invert = lru_cache(maxsize=_CACHED)(self._invert)

    @property
    def shuffle_seed(self) -> int:
        """Return the seed of the clip's orders: each clip draws its own, so that intervals over clips include them."""
        return int(digest_of("orders", self.resources.order_seed, self.clip.digest)[:8], 16)

    def fit(self, frames: Frames) -> Frames:
        """Return the keyframes among a clip's frames, at the model's size."""
        return resize_frames(frames[list(self.keyframes)], self.size)

    @contextmanager
    def model(self, sites: SiteChoice = "method") -> Iterator[StableDiffusion]:
        """Load the model for the time of this context: between two methods other tasks may use it.

        A call of its UNet raises RunCancelled once the evaluation is cancelled.
        """
        own = self.resources
        with loaded_model(own.model, own.controlnet, device=own.device, dtype=own.dtype) as model:
            look = model.unet.register_forward_pre_hook(lambda *_: raise_if_stopped())
            try:
                yield model if sites == "method" else replace(model, sites=_sites_of(model, sites))
            finally:
                look.remove()

    def reconstruct(
        self, settings: InversionSettings, *, inversion: Warping | None, sampling: Warping | None
    ) -> tuple[Tensor, Frames, Cost]:
        """Invert the keyframes, and sample with the same prompt; return x_0, frames, and the total cost."""
        inverted, warps = self.invert(settings, inversion), self.warps(sampling)
        with self.model(_sites(sampling)) as model:
            with measure_cost(model, after=inverted.cost) as cost:
                latents = reconstruct(
                    model,
                    inverted.latents[-1],
                    source_prompt=self.clip.caption,
                    warps=warps,
                    settings=settings,
                    orders=inverted.orders,
                )
            return latents.cpu(), decode_latents(model, latents), cost

    def _encoded(self) -> tuple[Tensor, Frames]:
        """Encode the keyframes, and decode their latents again; return latents and frames."""
        with self.model() as model:
            latents = encode_frames(model, self.frames)
            return latents.cpu(), decode_latents(model, latents)

    def _invert(self, settings: InversionSettings, warping: Warping | None) -> Inversion:
        latents, warps = self.encoded()[0], self.warps(warping)
        stored = [latents]
        with self.model(_sites(warping)) as model, measure_cost(model) as cost:
            invert(
                model,
                latents,
                source_prompt=self.clip.caption,
                warps=warps,
                settings=settings,
                callback=lambda _, x: stored.append(x.cpu()),
            )
        return Inversion(latents=tuple(stored), orders=step_orders(len(latents), settings), cost=cost)

    def _warps(self, warping: Warping | None) -> PairWarps | None:
        if warping is None or not self.pairs:
            return None
        if warping.flow == "true" and self.clip.scene is not None:
            return true_warps(self.clip.scene, self.keyframes, self.pairs)
        return masked_warps(self.flows(warping.keyframes), warping)

    def _flows(self, kind: KeyframeFlow = "composed") -> PairFlows:
        """Estimate flow as `wave edit` does, at its size: the clip's own, up to its limit."""
        clip = resize_frames(self.clip.frames, analysis_size(self.clip.frames.shape[1:3]))
        frames = clip[list(self.keyframes)]
        estimate = load_flow(self.resources.flow, device=self.resources.device)
        if kind == "composed" and self.resources.flow.name == "dis":
            neighbours = [estimate(*clip[index : index + 2]) for index in range(len(clip) - 1)]
            starts = [_composed(neighbours, *(self.keyframes[place] for place in pair)) for pair in self.pairs]
            found = [
                refine_flow(frames[first], frames[second], start)
                for (first, second), start in zip(self.pairs, starts, strict=True)
            ]
        else:
            found = [estimate(frames[first], frames[second]) for first, second in self.pairs]
        to_prev, to_cur = (torch.from_numpy(np.stack(flows)) for flows in zip(*found, strict=True))
        return PairFlows(pairs=self.pairs, images=to_images(frames), to_prev=to_prev, to_cur=to_cur)


def _composed(
    neighbours: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]], first: int, second: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Compose the flow between two frames, in both directions, of that between neighbours."""
    back, onward = ([torch.from_numpy(flows[side]) for flows in neighbours[first:second]] for side in (0, 1))
    return compose_flows(back[::-1]).numpy(), compose_flows(onward).numpy()


def mean_psnr(frames: Frames, reference: Frames) -> float:
    """Compute the mean PSNR over frames, in dB."""
    return float(psnr(to_images(frames), to_images(reference)).clamp(max=MOST_PSNR).mean())


def fit_masks(masks: Masks, size: tuple[int, int]) -> Masks:
    """Resize masks (frame, height, width) to another grid, by the nearest pixel."""
    resized = [cv2.resize(mask.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST_EXACT) for mask in masks]
    return np.stack(resized).astype(np.bool_)


def _trusted(prev: Tensor, cur: Tensor, *, flows: tuple[Tensor, Tensor], warping: Warping) -> Tensor:
    """Compute the mask B of `wave_ops.masks.warp_mask`, rule by rule."""
    trusted = torch.ones_like(cur[:, 0], dtype=torch.bool)
    if warping.occlusion is not None:
        trusted &= ~occlusion_mask(*flows, squared=warping.occlusion == "squared", tolerance_at=warping.tolerance_at)
    if warping.residual is not None:
        trusted &= colour_residual(prev, cur, flows[0]) < warping.residual
    return trusted


def _sites(warping: Warping | None) -> SiteChoice:
    return "method" if warping is None else warping.sites


def _sites_of(model: StableDiffusion, choice: SiteChoice) -> dict[str, tuple[str, ...]]:
    """Return the sites of a choice: it changes where features are warped, not where they are injected.

    Only "with another up block" also extends attention there: in the block before those that the method warps, which
    is up block 1 in Stable Diffusion 1.x.
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
