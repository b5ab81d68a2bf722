"""One step of the method written plainly: one frame and one branch at a time, cell by cell.

The counterpart of `wave_ops.unet` and `wave_ops.feature_warping`, which batch frames and branches and compose the
recursion into one gather. After WAVE sec. 4 (feature warping) and 6 (injection, extended attention).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from math import sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wave_ops.feature_warping import PairWarps
from wave_ops.sites import Sites

__all__ = ["PlainStep", "source_cells", "warp_features"]

Cell = tuple[int, int]
"""(y, x)."""


def warp_features(cur: Tensor, prev: Tensor, sources: Mapping[Cell, Cell]) -> Tensor:
    """z^_cur = B W(z^_prev) + (1 - B) z_cur; features (..., height, width)."""
    to, taken = (torch.tensor(list(cells), dtype=torch.long).view(-1, 2) for cells in (sources, sources.values()))
    fused = cur.clone()
    fused[..., to[:, 0], to[:, 1]] = prev[..., taken[:, 0], taken[:, 1]]
    return fused


def source_cells(warps: PairWarps, pair: tuple[int, int], size: tuple[int, int]) -> dict[Cell, Cell]:
    """Map each cell where B is 1 to the cell of the previous frame that it copies; pair (previous, current).

    Positions p + flow are resized bilinearly to the grid (height, width), then rounded, with reflection at the
    border. B is resized by taking the pixel at the cell's centre.
    """
    flow, mask = warps.flow_to_prev[pair], warps.mask[pair]
    scale_y, scale_x = size[0] / flow.shape[1], size[1] / flow.shape[2]
    dx, dy = F.interpolate(flow[None], size=size, mode="bilinear", align_corners=False)[0].tolist()
    return {
        (y, x): (reflect(round(y + dy[y][x] * scale_y), size[0]), reflect(round(x + dx[y][x] * scale_x), size[1]))
        for y, x in product(range(size[0]), range(size[1]))
        if mask[int((y + 0.5) / scale_y), int((x + 0.5) / scale_x)]
    }


def reflect(index: int, length: int) -> int:
    """Mirror about the outer edges of the border cells until the index lies inside."""
    while not 0 <= index < length:
        index = -1 - index if index < 0 else 2 * length - 1 - index
    return index


@dataclass(kw_only=True)
class PlainStep:
    """The UNet's output for all keyframes of a step, in one call per frame and branch."""

    unet: nn.Module
    sites: Sites
    order: Sequence[int]
    warps: PairWarps
    warping: bool = False
    extending: bool = False
    injecting: bool = False
    fused: dict[tuple[str, int, int], Tensor] = field(default_factory=dict)
    """The feature after the recursion, by site, branch and frame."""
    source: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    """What the source branch, branch 0, computes, by module and frame."""
    cells: dict[tuple[tuple[int, int], tuple[int, int]], dict[Cell, Cell]] = field(default_factory=dict)
    """`source_cells` by pair and size."""

    def __call__(
        self,
        latents: Tensor,
        timestep: int,
        context: Tensor,
        residuals: Callable[..., Mapping[str, Any]] = lambda **_: {},
    ) -> Tensor:
        """Compute the output, of the latents' shape.

        Args:
            latents: (branch, keyframe, channel, height, width).
            timestep: training index.
            context: (branch, token, channel).
            residuals: further arguments of the UNet, such as a ControlNet's residuals, by `branch` and `frame`.
        """
        output, size = torch.empty_like(latents), (latents.shape[-2], latents.shape[-1])
        for place, branch in product(range(len(self.order)), range(len(latents))):
            frame = self.order[place]
            with self._hooks(place, branch, latent_size=size):
                output[branch, frame] = self.unet(
                    latents[branch, frame][None],
                    timestep,
                    encoder_hidden_states=context[branch][None],
                    **residuals(branch=branch, frame=frame),
                ).sample[0]
        return output

    def _fuse(self, site: str, z: Tensor, place: int, branch: int, *, warping: bool) -> Tensor:
        """z^_first = z_first; z^_cur = B W(z^_prev) + (1 - B) z_cur, with z^_prev already fused."""
        frame = self.order[place]
        if warping and place > 0:
            pair, size = (self.order[place - 1], frame), (z.shape[-2], z.shape[-1])
            if (pair, size) not in self.cells:
                self.cells[pair, size] = source_cells(self.warps, pair, size)
            z = warp_features(z, self.fused[site, branch, pair[0]], self.cells[pair, size])
        self.fused[site, branch, frame] = z
        return z

    def _before_conv1(self, place: int, branch: int, site: str, _: nn.Module, args: tuple[Tensor, ...]) -> Any:
        return (self._fuse(site, args[0], place, branch, warping=self.warping), *args[1:])

    def _before_attn1(
        self, place: int, branch: int, latent_size: tuple[int, int], site: str, _: nn.Module, args: Any, kwargs: Any
    ) -> Any:
        """Warp the input of self-attention, so that Q, K and V are tied; take K and V of [anchor ; own] tokens."""
        z = _to_image(args[0], latent_size)
        warping = self.warping and site in self.sites.warp_attentions
        own = _to_tokens(self._fuse(site, z, place, branch, warping=warping))
        if self.extending and site in self.sites.extend_attentions and place > 0:
            anchor = _to_tokens(self.fused[site, branch, self.order[0]])
            kwargs = {**kwargs, "encoder_hidden_states": torch.cat([anchor, own], dim=1)}
        return (own, *args[1:]), kwargs

    def _after_injected(self, place: int, branch: int, name: str, _: nn.Module, args: Any, output: Tensor) -> Any:
        """Replace a feature of the other branches by that of the source branch, whose turn comes first."""
        frame = self.order[place]
        if branch == 0:
            self.source[name, frame] = output
        return self.source[name, frame] if self.injecting else None

    @contextmanager
    def _hooks(self, place: int, branch: int, *, latent_size: tuple[int, int]) -> Iterator[None]:
        sites, module = self.sites, self.unet.get_submodule
        projections = [f"{site}.{name}" for site in sites.inject_attentions for name in ("to_q", "to_k")]
        with ExitStack() as stack:
            for site in sites.warp_resnets:
                hook = partial(self._before_conv1, place, branch, site)
                stack.callback(module(f"{site}.conv1").register_forward_pre_hook(hook).remove)
            for site in {*sites.warp_attentions, *sites.extend_attentions}:
                hook = partial(self._before_attn1, place, branch, latent_size, site)
                stack.callback(module(site).register_forward_pre_hook(hook, with_kwargs=True).remove)
            for name in [*projections, *(f"{site}.conv2" for site in sites.inject_resnets)]:
                hook = partial(self._after_injected, place, branch, name)
                stack.callback(module(name).register_forward_hook(hook).remove)
            yield


def _to_image(tokens: Tensor, latent_size: tuple[int, int]) -> Tensor:
    """(1, position, channel) -> (1, channel, height, width), of the latents' aspect."""
    height = round(sqrt(tokens.shape[1] * latent_size[0] / latent_size[1]))
    return tokens.mT.unflatten(2, (height, -1))


def _to_tokens(image: Tensor) -> Tensor:
    return image.flatten(2).mT
