"""What a compared method may change: the attention of a UNet, and how frames are laid out in its batch.

Attention is changed by processors, diffusers' own seam: a method receives the tokens of all frames, and calls the
processor that was installed before, as often as it likes. Hooks on the layer's projections still act.

Convention:
    A batch is (branch frame), branches outermost, frames in the order of time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["AttentionLayer", "PeerMethod", "applied"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionLayer:
    """One attention of a UNet, as it computes without the method."""

    name: str
    """Such as "up_blocks.1.attentions.0.transformer_blocks.0.attn1"."""
    attention: Any
    """The diffusers Attention."""
    processor: Any
    """The processor that was installed before."""

    def __call__(
        self,
        tokens: Float[Tensor, "branch group token channel"],
        context: Float[Tensor, "branch group other_token other_channel"] | None = None,
    ) -> Float[Tensor, "branch group token channel"]:
        """Compute the attention of each group of tokens to itself, or to a context.

        Args:
            tokens: queries; all branches, in their order, since injection copies from the first to the others.
            context: what keys and values are computed from.
        """
        other = None if context is None else context.flatten(0, 1)
        found: Tensor = self.processor(self.attention, tokens.flatten(0, 1), encoder_hidden_states=other)
        grouped: Tensor = found.unflatten(0, tokens.shape[:2])
        return grouped


class PeerMethod:
    """Edits each frame alone; a method overrides what it changes."""

    def start_step(self, step_index: int, latents: Float[Tensor, "branch frame channel height width"]) -> None:
        """Prepare one step of all frames; called before the UNet.

        Args:
            step_index: j, from S down to 1 while sampling.
            latents: what the step starts from.
        """

    def lay_out(
        self, latents: Float[Tensor, "branch frame channel height width"]
    ) -> Float[Tensor, "branch image channel image_height image_width"]:
        """Return the images that the UNet processes."""
        return latents

    def restore(
        self, images: Float[Tensor, "branch image channel image_height image_width"]
    ) -> Float[Tensor, "branch frame channel height width"]:
        """Return the frames of images that were laid out; the inverse of `lay_out`."""
        return images

    def self_attention(
        self, layer: AttentionLayer, tokens: Float[Tensor, "branch image token channel"]
    ) -> Float[Tensor, "branch image token channel"]:
        """Compute a self-attention."""
        return layer(tokens)

    def cross_attention(
        self,
        layer: AttentionLayer,
        tokens: Float[Tensor, "branch image token channel"],
        context: Float[Tensor, "branch image word word_channel"],
    ) -> Float[Tensor, "branch image token channel"]:
        """Compute an attention to the prompt."""
        return layer(tokens, context)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Processor:
    """A processor that computes an attention by a method."""

    method: PeerMethod
    layer: AttentionLayer
    branches: int

    def __call__(
        self, attention: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any
    ) -> Tensor:
        tokens = hidden_states.unflatten(0, (self.branches, -1))
        if encoder_hidden_states is None:
            return self.method.self_attention(self.layer, tokens).flatten(0, 1)
        context = encoder_hidden_states.unflatten(0, (self.branches, -1))
        return self.method.cross_attention(self.layer, tokens, context).flatten(0, 1)


@contextmanager
def applied(unet: Any, method: PeerMethod, *, branches: int) -> Iterator[None]:
    """Let a method compute every attention of a UNet; on any exit the processors are the ones from before.

    Args:
        unet: a UNet2DConditionModel.
        method: the method.
        branches: copies of the frames in one batch.
    """
    before: dict[str, Any] = dict(unet.attn_processors)
    modules: dict[str, nn.Module] = dict(unet.named_modules())
    processors = {}
    for key, processor in before.items():
        name = key.removesuffix(".processor")
        layer = AttentionLayer(name=name, attention=modules[name], processor=processor)
        processors[key] = _Processor(method=method, layer=layer, branches=branches)
    try:
        unet.set_attn_processor(processors)  # empties the dict
        yield
    finally:
        unet.set_attn_processor(dict(before))
