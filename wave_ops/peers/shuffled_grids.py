"""Frames denoised together as the cells of grids, which are shuffled at every step.

Source: Kara et al., "RAVE" (CVPR 2024), sec. 4: self-attention and convolutions see all frames of a grid as one
picture, and the shuffle spreads the agreement over all grids. Deviates: frames are guided by plug-and-play instead of a
ControlNet; where frames do not fill the last grid, some are in it twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from wave_ops.peers.method import PeerMethod

__all__ = ["ShuffledGrids"]


@dataclass(slots=True, kw_only=True)
class ShuffledGrids(PeerMethod):
    """Square grids of frames, in an order drawn at each step."""

    side: int = 3
    """Frames along each side of a grid."""
    seed: int = 0
    _cells: tuple[int, ...] = field(default=(), init=False)
    """The frame in each cell, grid by grid."""
    _count: int = field(default=0, init=False)

    def start_step(self, step_index: int, latents: Float[Tensor, "branch frame channel height width"]) -> None:
        """Draw the order of the frames."""
        self._count, size = latents.shape[1], self.side**2
        order = [int(i) for i in np.random.default_rng([self.seed, step_index]).permutation(self._count)]
        self._cells = tuple(order[i % self._count] for i in range(-(-self._count // size) * size))

    def lay_out(
        self, latents: Float[Tensor, "branch frame channel height width"]
    ) -> Float[Tensor, "branch image channel image_height image_width"]:
        """Put the frames into grids."""
        cells = latents[:, list(self._cells)]
        return rearrange(cells, "b (g r s) c h w -> b g c (r h) (s w)", r=self.side, s=self.side)

    def restore(
        self, images: Float[Tensor, "branch image channel image_height image_width"]
    ) -> Float[Tensor, "branch frame channel height width"]:
        """Take the frames out of their grids; of a repeated frame, its first cell."""
        cells = rearrange(images, "b g c (r h) (s w) -> b (g r s) c h w", r=self.side, s=self.side)
        frames = torch.empty_like(cells[:, : self._count])
        frames[:, list(self._cells[: self._count])] = cells[:, : self._count]
        return frames
