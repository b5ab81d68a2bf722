"""Attention along the trajectories of optical flow.

Source: Cong et al., "FLATTEN" (ICLR 2024), sec. 4: after dense attention to the tokens of all frames, every token
attends to the outputs on its own trajectory, without projections of its own. A trajectory goes on as long as the flow
is consistent; a cell that none reaches starts a new one, and a cell belongs to one trajectory.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wave_ops.feature_warping import nearest_indices
from wave_ops.peers.method import AttentionLayer, PeerMethod

__all__ = ["FlowAttention", "attend_along", "trajectories"]


def trajectories(
    flows_to_prev: Float[Tensor, "pair 2 height width"],
    valid: Bool[Tensor, "pair height width"],
    size: tuple[int, int],
) -> Int[Tensor, "trajectory frame"]:
    """Follow the flow on a feature grid.

    Args:
        flows_to_prev: entry i is on the grid of frame i + 1 and points to frame i, pixels, x then y.
        valid: where entry i is consistent.
        size: the feature grid (height, width).

    Returns:
        The flat cell of each trajectory in each frame; -1 where it does not exist.
    """
    if not len(valid):
        return torch.arange(size[0] * size[1])[:, None]
    sources = nearest_indices(flows_to_prev, size)
    trusted = F.interpolate(valid[:, None].float(), size=size, mode="nearest-exact").flatten(1).bool()
    cells, count = list(range(size[0] * size[1])), size[0] * size[1]
    owners, paths = cells, [[(0, cell)] for cell in cells]
    for frame, (source, trust) in enumerate(zip(sources.tolist(), trusted.tolist(), strict=True), start=1):
        reached, current = set[int](), []
        for cell in range(count):
            owner = owners[source[cell]]
            if not trust[cell] or owner in reached:
                owner = len(paths)
                paths.append([])
            reached.add(owner)
            paths[owner].append((frame, cell))
            current.append(owner)
        owners = current
    found = torch.full((len(paths), len(sources) + 1), -1)
    for number, path in enumerate(paths):
        for frame, cell in path:
            found[number, frame] = cell
    return found


def attend_along(
    tokens: Float[Tensor, "branch frame token channel"], paths: Int[Tensor, "trajectory frame"], *, heads: int
) -> Float[Tensor, "branch frame token channel"]:
    """Let each token attend to those of its trajectory, itself included; queries, keys and values are the tokens."""
    exists = paths >= 0
    frames = torch.arange(tokens.shape[1]).expand_as(paths)
    gathered = tokens[:, frames, paths.clamp(min=0)]
    split = rearrange(gathered, "b t f (h d) -> b t h f d", h=heads)
    attended = F.scaled_dot_product_attention(split, split, split, attn_mask=exists[:, None, None].to(tokens.device))
    output = torch.empty_like(tokens)
    output[:, frames[exists], paths[exists]] = rearrange(attended, "b t h f d -> b t f (h d)")[:, exists]
    return output


@dataclass(slots=True, kw_only=True)
class FlowAttention(PeerMethod):
    """Dense attention to all frames, then attention along trajectories."""

    flows_to_prev: Float[Tensor, "pair 2 height width"]
    """Between neighbouring frames, as for `trajectories`."""
    valid: Bool[Tensor, "pair height width"]
    _latent_size: tuple[int, int] = field(default=(0, 0), init=False)
    _paths: dict[int, Int[Tensor, "trajectory frame"]] = field(default_factory=dict, init=False)
    """By the number of tokens of a frame."""

    def start_step(self, step_index: int, latents: Float[Tensor, "branch frame channel height width"]) -> None:
        """Note the size of the latents."""
        self._latent_size = (latents.shape[-2], latents.shape[-1])

    def self_attention(
        self, layer: AttentionLayer, tokens: Float[Tensor, "branch frame token channel"]
    ) -> Float[Tensor, "branch frame token channel"]:
        """Attend to the tokens of all frames, then along the trajectories."""
        count, cells = tokens.shape[1:3]
        dense = layer(tokens.flatten(1, 2)[:, None])[:, 0].unflatten(1, (count, cells))
        if cells not in self._paths:
            height = round((cells * self._latent_size[0] / self._latent_size[1]) ** 0.5)
            self._paths[cells] = trajectories(self.flows_to_prev, self.valid, (height, cells // height))
        return attend_along(dense, self._paths[cells], heads=layer.attention.heads)
