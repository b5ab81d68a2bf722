"""Merging of similar tokens across frames before self-attention.

Source: Li et al., "VidToMe" (CVPR 2024), sec. 3, on Bolya et al., "Token Merging" (ICLR 2023). Frames are cut into
chunks, which are processed in an order drawn at each step. In a chunk the tokens of all frames but one, drawn as well,
are merged into the most similar ones of that frame (local); the tokens of the chunk are merged with those of the chunks
before it (global); self-attention runs on what is left, and its output is copied back to all places. Deviates: one
matching, of the mean similarity of the branches, serves all branches, so that injection keeps its places.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from wave_ops.peers.method import AttentionLayer, PeerMethod

__all__ = ["TokenMatch", "TokenMerging", "match_tokens"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenMatch:
    """Which tokens are merged into which targets, and which are kept."""

    merged: Int[Tensor, " merged"]
    into: Int[Tensor, " merged"]
    """The target of each merged token."""
    kept: Int[Tensor, " kept"]

    def merge(
        self, tokens: Float[Tensor, "branch token channel"], targets: Float[Tensor, "branch target channel"]
    ) -> Float[Tensor, "branch left channel"]:
        """Return the targets, each the mean of itself and what is merged into it, then the tokens that are kept."""
        means = targets.index_add(1, self.into, tokens[:, self.merged])
        counts = torch.ones_like(targets[0, :, :1]).index_add(0, self.into, torch.ones_like(tokens[0, self.merged, :1]))
        return torch.cat([means / counts, tokens[:, self.kept]], dim=1)

    def unmerge(
        self, left: Float[Tensor, "branch left channel"]
    ) -> tuple[Float[Tensor, "branch token channel"], Float[Tensor, "branch target channel"]]:
        """Copy merged tokens back to all their places; return tokens and targets."""
        count = len(self.merged) + len(self.kept)
        targets = left[:, : left.shape[1] - len(self.kept)]
        tokens = left.new_empty(left.shape[0], count, left.shape[2])
        tokens[:, self.merged] = targets[:, self.into]
        tokens[:, self.kept] = left[:, targets.shape[1] :]
        return tokens, targets


def match_tokens(
    tokens: Float[Tensor, "branch token channel"], targets: Float[Tensor, "branch target channel"], *, fraction: float
) -> TokenMatch:
    """Match the fraction of tokens that is most similar to a target, by the cosine, with that target."""
    similarity = (F.normalize(tokens, dim=-1) @ F.normalize(targets, dim=-1).mT).mean(dim=0)
    best, into = similarity.max(dim=1)
    order = best.argsort(descending=True, stable=True)
    count = round(fraction * len(order))
    return TokenMatch(merged=order[:count], into=into[order[:count]], kept=order[count:].sort().values)


@dataclass(slots=True, kw_only=True)
class TokenMerging(PeerMethod):
    """Self-attention on tokens that are merged within chunks of frames, and with those of earlier chunks."""

    chunk: int = 4
    """Frames of a chunk."""
    local_fraction: float = 0.9
    """Of the tokens of a chunk's other frames, the fraction that is merged."""
    global_fraction: float = 0.8
    """The same with the chunks before."""
    seed: int = 0
    _chunks: tuple[tuple[int, ...], ...] = field(default=(), init=False)
    """Frames in the order in which they are processed, the target of each chunk first."""
    _rng: np.random.Generator = field(default_factory=np.random.default_rng, init=False)

    def start_step(self, step_index: int, latents: Float[Tensor, "branch frame channel height width"]) -> None:
        """Draw the order of the chunks and the target frame of each."""
        self._rng, count = np.random.default_rng([self.seed, step_index]), latents.shape[1]
        chunks = [np.arange(start, min(start + self.chunk, count)) for start in range(0, count, self.chunk)]
        rolled = [np.roll(chunks[i], -self._rng.integers(len(chunks[i]))) for i in self._rng.permutation(len(chunks))]
        self._chunks = tuple(tuple(int(frame) for frame in chunk) for chunk in rolled)

    def self_attention(
        self, layer: AttentionLayer, tokens: Float[Tensor, "branch frame token channel"]
    ) -> Float[Tensor, "branch frame token channel"]:
        """Merge, attend and copy back, chunk by chunk."""
        output, earlier = torch.empty_like(tokens), None
        for chunk in self._chunks:
            first, *others = chunk
            found = tokens[:, others].flatten(1, 2)
            match = match_tokens(found, tokens[:, first], fraction=self.local_fraction)
            attended, earlier = self._attend(layer, match.merge(found, tokens[:, first]), earlier)
            rest, output[:, first] = match.unmerge(attended)
            output[:, others] = rest.unflatten(1, (len(others), tokens.shape[2]))
        return output

    def _attend(
        self,
        layer: AttentionLayer,
        local: Float[Tensor, "branch token channel"],
        earlier: Float[Tensor, "branch earlier_token channel"] | None,
    ) -> tuple[Float[Tensor, "branch token channel"], Tensor]:
        """Attend together with the tokens of earlier chunks; return outputs, and the tokens for later chunks."""
        if earlier is None:
            return layer(local[:, None])[:, 0], local
        # Either may be the target, drawn each time, so that no chunk's tokens always win
        onto_earlier = self._rng.random() < 0.5
        pair = (local, earlier) if onto_earlier else (earlier, local)
        match = match_tokens(*pair, fraction=self.global_fraction)
        joined = match.merge(*pair)
        outputs = match.unmerge(layer(joined[:, None])[:, 0])
        return outputs[0 if onto_earlier else 1], joined
