"""Full-video propagation to the frames between edited keyframes: patch synthesis, selection, blend and fusion."""

from __future__ import annotations

from wave_ops.propagation.compositing import blend, fuse_gradients, select, selected_gradients, selection_weight
from wave_ops.propagation.guides import Guides, source_guides, target_guides
from wave_ops.propagation.interval import (
    Candidate,
    KeyframeInterval,
    fuse_candidates,
    paint_candidates,
    propagate_interval,
)
from wave_ops.propagation.settings import PUBLISHED_GUIDES, PropagationSettings
from wave_ops.propagation.synthesis import Exemplar, Synthesis, synthesise

__all__ = [
    "PUBLISHED_GUIDES",
    "Candidate",
    "Exemplar",
    "Guides",
    "KeyframeInterval",
    "PropagationSettings",
    "Synthesis",
    "blend",
    "fuse_candidates",
    "fuse_gradients",
    "paint_candidates",
    "propagate_interval",
    "select",
    "selected_gradients",
    "selection_weight",
    "source_guides",
    "synthesise",
    "target_guides",
]
