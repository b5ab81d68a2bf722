"""Attention maps of the source, fused into those of the edit.

Source: Qi et al., "FateZero" (ICCV 2023), sec. 3, on Hertz et al., "Prompt-to-Prompt" (ICLR 2023). In the first steps,
words that both prompts have keep the source's maps; self-attention keeps the source's maps outside the region of the
words that are replaced; and every frame also attends to the middle one. Deviates: maps come from the source branch,
which reads the inversion's latents, instead of a stored inversion, and the region is that of the step before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from wave_ops.diffusion import StableDiffusion
from wave_ops.peers.method import AttentionLayer, PeerMethod

__all__ = ["AttentionMaps", "PromptAlignment", "align_prompts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptAlignment:
    """The places of words, as tokens, that two prompts have in common."""

    common: tuple[tuple[int, int], ...]
    """(place in the source prompt, place in the edit's prompt)."""
    replaced: tuple[int, ...]
    """Places of the source prompt that the edit's does not have."""


def align_prompts(model: StableDiffusion, source_prompt: str, prompt: str) -> PromptAlignment:
    """Align the tokens of two prompts."""
    source, edited = (_token_ids(model, text) for text in (source_prompt, prompt))
    blocks = SequenceMatcher(a=source, b=edited, autojunk=False).get_matching_blocks()
    common = tuple((block.a + i, block.b + i) for block in blocks for i in range(block.size))
    return PromptAlignment(common=common, replaced=tuple(sorted(set(range(len(source))) - {a for a, _ in common})))


def _token_ids(model: StableDiffusion, prompt: str) -> list[int]:
    length = model.tokenizer.model_max_length
    found = model.tokenizer(prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    ids: list[int] = found.input_ids[0].tolist()
    return ids


@dataclass(slots=True, kw_only=True)
class AttentionMaps(PeerMethod):
    """Maps of the conditional branch are fused from its own and those of the source branch."""

    alignment: PromptAlignment
    steps: int
    """S of the schedule."""
    fused_fraction: float = 0.8
    """Fraction of the steps, from the noisiest on, that fuse maps."""
    threshold: float = 0.3
    """Of the greatest attention to the replaced words in a frame, from which on a cell is edited."""
    _fusing: bool = field(default=False, init=False)
    _region: Float[Tensor, "frame 1 height width"] | None = field(default=None, init=False)
    """Attention to the replaced words in the step before, over its maximum."""
    _found: list[Tensor] = field(default_factory=list, init=False)
    _latent_size: tuple[int, int] = field(default=(0, 0), init=False)

    def start_step(self, step_index: int, latents: Float[Tensor, "branch frame channel height width"]) -> None:
        """Take the region from the maps of the step before."""
        self._fusing = self.steps - step_index < round(self.fused_fraction * self.steps)
        self._latent_size = (latents.shape[-2], latents.shape[-1])
        if self._found:
            mean = torch.stack(self._found).mean(dim=0)
            self._region = mean / mean.amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12)
        self._found.clear()

    def self_attention(
        self, layer: AttentionLayer, tokens: Float[Tensor, "branch frame token channel"]
    ) -> Float[Tensor, "branch frame token channel"]:
        """Attend to the frame itself and to the middle one, outside the region by the source's maps."""
        middle = tokens[:, tokens.shape[1] // 2, None].expand_as(tokens)
        maps, values = _maps(layer, tokens, torch.cat([tokens, middle], dim=2))
        if self._fusing:
            inside = self._inside(tokens.shape[2]).to(tokens.device)
            maps = torch.stack([maps[0], maps[1], torch.where(inside, maps[2], maps[0])])
        return _outputs(layer, maps, values)

    def cross_attention(
        self,
        layer: AttentionLayer,
        tokens: Float[Tensor, "branch frame token channel"],
        context: Float[Tensor, "branch frame word word_channel"],
    ) -> Float[Tensor, "branch frame token channel"]:
        """Attend to common words by the source's maps."""
        maps, values = _maps(layer, tokens, context)
        self._found.append(self._attention_to(maps[0], self.alignment.replaced))
        if self._fusing and self.alignment.common:
            source, edited = (list(places) for places in zip(*self.alignment.common, strict=True))
            maps[2, ..., edited] = maps[0][..., source]
        return _outputs(layer, maps, values)

    def _attention_to(
        self, maps: Float[Tensor, "frame head token word"], words: Sequence[int]
    ) -> Float[Tensor, "frame 1 height width"]:
        grid = self._grid(maps.shape[2])
        found = maps[..., list(words)].sum(dim=-1).mean(dim=1).unflatten(1, grid)[:, None]
        return F.interpolate(found.float(), size=self._latent_size, mode="bilinear", align_corners=False)

    def _inside(self, cells: int) -> Tensor:
        """Return where a query is edited, (frame, 1, token, 1); nowhere before the first map."""
        if self._region is None:
            return torch.zeros(1, 1, 1, 1, dtype=torch.bool)
        found = F.interpolate(self._region, size=self._grid(cells), mode="bilinear", align_corners=False)
        return (found > self.threshold).flatten(2)[..., None]

    def _grid(self, cells: int) -> tuple[int, int]:
        height = round((cells * self._latent_size[0] / self._latent_size[1]) ** 0.5)
        return height, cells // height


def _maps(
    layer: AttentionLayer,
    tokens: Float[Tensor, "branch frame token channel"],
    context: Float[Tensor, "branch frame other other_channel"],
) -> tuple[Float[Tensor, "branch frame head token other"], Float[Tensor, "branch frame head other depth"]]:
    """Compute the maps and values of an attention."""
    attention = layer.attention
    query, key, value = (
        rearrange(projected, "b f n (h d) -> b f h n d", h=attention.heads)
        for projected in (attention.to_q(tokens), attention.to_k(context), attention.to_v(context))
    )
    return (query @ key.mT * attention.scale).softmax(dim=-1), value


def _outputs(
    layer: AttentionLayer,
    maps: Float[Tensor, "branch frame head token other"],
    values: Float[Tensor, "branch frame head other depth"],
) -> Float[Tensor, "branch frame token channel"]:
    """Compute the output of an attention from its maps."""
    output: Tensor = layer.attention.to_out[0](rearrange(maps @ values, "b f h n d -> b f n (h d)"))
    return output
