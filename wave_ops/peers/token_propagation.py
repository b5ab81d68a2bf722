"""Propagation of tokens from jointly edited keyframes, by nearest neighbours among the source's tokens.

Source: Geyer et al., "TokenFlow" (ICLR 2024), sec. 4. At every step one keyframe is drawn in each interval; keyframes
attend to each other's tokens. Every other frame takes, at each position, the outputs of the nearest keyframe before and
after it at the most similar position in the source, mixed by the distance in time.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from wave_ops.peers.method import AttentionLayer, PeerMethod

__all__ = ["TokenPropagation", "nearest_tokens"]


def nearest_tokens(
    tokens: Float[Tensor, "token channel"], others: Float[Tensor, "other channel"]
) -> Int[Tensor, " token"]:
    """Return for each token the index of the one among others that is most similar, by the cosine."""
    nearest: Tensor = (F.normalize(tokens, dim=-1) @ F.normalize(others, dim=-1).T).argmax(dim=-1)
    return nearest


@dataclass(slots=True, kw_only=True)
class TokenPropagation(PeerMethod):
    """Keyframes are edited together, and their outputs of each self-attention are propagated to the other frames."""

    interval: int = 8
    """Frames of which one is drawn as keyframe at each step."""
    seed: int = 0
    _keyframes: tuple[int, ...] = field(default=(), init=False)

    def start_step(self, step_index: int, latents: Float[Tensor, "branch frame channel height width"]) -> None:
        """Draw the keyframes of a step."""
        rng, count = np.random.default_rng([self.seed, step_index]), latents.shape[1]
        starts = range(0, count, self.interval)
        self._keyframes = tuple(int(rng.integers(start, min(start + self.interval, count))) for start in starts)

    def self_attention(
        self, layer: AttentionLayer, tokens: Float[Tensor, "branch frame token channel"]
    ) -> Float[Tensor, "branch frame token channel"]:
        """Attend jointly at the keyframes, and propagate to the others; the source branch remains as it is."""
        keyframes = list(self._keyframes)
        output = layer(tokens)
        joint = tokens[:, keyframes].flatten(1, 2)[:, None].expand(-1, len(keyframes), -1, -1)
        edited = layer(tokens[:, keyframes], joint)[1:]
        propagated = [self._propagate(frame, output[0], edited) for frame in range(tokens.shape[1])]
        return torch.cat([output[:1], torch.stack(propagated, dim=1)])

    def _propagate(
        self,
        frame: int,
        source: Float[Tensor, "frame token channel"],
        edited: Float[Tensor, "branch keyframe token channel"],
    ) -> Float[Tensor, "branch token channel"]:
        after = bisect_right(self._keyframes, frame)
        near = [place for place in (after - 1, after) if 0 <= place < len(self._keyframes)]
        if self._keyframes[near[0]] == frame:
            return edited[:, near[0]]
        mixed = torch.zeros_like(edited[:, 0])
        for place in near:
            taken = nearest_tokens(source[frame], source[self._keyframes[place]])
            mixed += self._weight(frame, place, near) * edited[:, place, taken]
        return mixed

    def _weight(self, frame: int, place: int, near: list[int]) -> float:
        """Return the share of a keyframe in a frame: linear in time between two, 1 outside of them."""
        if len(near) == 1:
            return 1.0
        first, last = (self._keyframes[one] for one in near)
        return (frame - first if place == near[1] else last - frame) / (last - first)
