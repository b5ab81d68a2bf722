"""Cross-frame attention: keys and values of every frame are those of other frames.

Source: Khachatryan et al., "Text2Video-Zero" (ICCV 2023), sec. 3.3.2: the first frame; Ceylan et al., "Pix2Video" (ICCV
2023), sec. 3: the first and the previous frame. Without the latter's guidance of latents by the previous frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from wave_ops.peers.method import AttentionLayer, PeerMethod

__all__ = ["CrossFrameAttention"]


@dataclass(slots=True, kw_only=True)
class CrossFrameAttention(PeerMethod):
    """Self-attention to the first frame, and by option to the previous one, instead of the frame itself."""

    previous: bool = False
    """Whether keys and values are also computed from the previous frame, which the first one takes from itself."""

    def self_attention(
        self, layer: AttentionLayer, tokens: Float[Tensor, "branch frame token channel"]
    ) -> Float[Tensor, "branch frame token channel"]:
        """Attend to the tokens of other frames."""
        first = tokens[:, :1]
        context = first.expand_as(tokens)
        if self.previous:
            before = torch.cat([first, tokens[:, :-1]], dim=1)
            context = torch.cat([context, before], dim=2)
        return layer(tokens, context)
