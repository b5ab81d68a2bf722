"""Full-video propagation to the frames between edited keyframes: patch synthesis, selection, blend and fusion."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
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

_HOMES: Final = {
    "compositing": (
        "blend",
        "fuse_gradients",
        "select",
        "selected_gradients",
        "selection_weight",
    ),
    "guides": (
        "Guides",
        "source_guides",
        "target_guides",
    ),
    "interval": (
        "Candidate",
        "KeyframeInterval",
        "fuse_candidates",
        "paint_candidates",
        "propagate_interval",
    ),
    "settings": (
        "PUBLISHED_GUIDES",
        "PropagationSettings",
    ),
    "synthesis": (
        "Exemplar",
        "Synthesis",
        "synthesise",
    ),
}
"""Names by the module that defines them, imported when they are first asked for: settings need no compiled loops."""


def __getattr__(name: str) -> object:
    """Import a name. Raises AttributeError for an unknown one."""
    home = next((module for module, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
