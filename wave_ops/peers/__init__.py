"""Other methods to edit videos, for comparison: one file each, written from the papers, on plug-and-play sampling.

A method is a `PeerMethod`: it changes the attention of a UNet, or how frames are laid out, while `sample_peer` denoises
all frames together. `edit_with_shared_noise` needs no inversion and has its own loop. What a paper adds beyond that,
such as a ControlNet or a finetuned model, is left out: the methods differ in how they bind frames together, and in
nothing else.
"""

from __future__ import annotations

from wave_ops.peers.attention_maps import AttentionMaps, align_prompts
from wave_ops.peers.cross_frame import CrossFrameAttention
from wave_ops.peers.flow_attention import FlowAttention
from wave_ops.peers.method import AttentionLayer, PeerMethod, applied
from wave_ops.peers.sampling import invert_peer, sample_peer
from wave_ops.peers.shared_noise import SharedNoiseSettings, edit_with_shared_noise
from wave_ops.peers.shuffled_grids import ShuffledGrids
from wave_ops.peers.token_merging import TokenMerging
from wave_ops.peers.token_propagation import TokenPropagation

__all__ = [
    "AttentionLayer",
    "AttentionMaps",
    "CrossFrameAttention",
    "FlowAttention",
    "PeerMethod",
    "SharedNoiseSettings",
    "ShuffledGrids",
    "TokenMerging",
    "TokenPropagation",
    "align_prompts",
    "applied",
    "edit_with_shared_noise",
    "invert_peer",
    "sample_peer",
]
