"""Ablations of single choices: the full method with only that choice changed."""

from __future__ import annotations

from typing import Final

from tasks.evaluation.comparisons.editing import EditingComparison

__all__ = ["ANCHOR", "MASK", "REFINEMENT", "SITES", "STEPS", "WINDOW"]

ANCHOR: Final = EditingComparison(
    name="anchor",
    title="Should attention be extended by the first frame of the order, or by the first in time?",
    baseline="order",
    recipes={"order": {"anchor": "order"}, "time": {"anchor": "time"}},
)

WINDOW: Final = EditingComparison(
    name="window",
    title="Which steps should be warped: the same timesteps in both directions, or the first of each direction?",
    baseline="aligned",
    recipes={"aligned": {"window": "aligned"}, "published": {"window": "published"}},
    reconstructs=True,
)

REFINEMENT: Final = EditingComparison(
    name="refinement",
    title="Does a more exact inversion improve an edit, and is it worth its UNet calls?",
    baseline="extrapolated point",
    recipes={
        "extrapolated point": {"noise_point": "extrapolated", "refinements": 0},
        "previous point": {"noise_point": "previous", "refinements": 0},
        "previous point, 1 refinement": {"noise_point": "previous", "refinements": 1},
        "previous point, 2 refinements": {"noise_point": "previous", "refinements": 2},
    },
)

STEPS: Final = EditingComparison(
    name="steps",
    title="Does an edit need as many steps as the paper takes?",
    baseline="50 steps",
    recipes={
        "50 steps": {"steps": 50, "noise_point": "extrapolated"},
        "20 steps": {"steps": 20, "noise_point": "extrapolated"},
        "10 steps": {"steps": 10, "noise_point": "extrapolated"},
        "20 steps, previous point": {"steps": 20, "noise_point": "previous"},
        "10 steps, previous point": {"steps": 10, "noise_point": "previous"},
    },
)

SITES: Final = EditingComparison(
    name="sites",
    title="At which sites of the UNet should features be warped?",
    baseline="method",
    recipes={
        "method": {"sites": "method"},
        "with another up block": {"sites": "with another up block"},
        "last up block only": {"sites": "last up block only"},
        "ResNets only": {"sites": "ResNets only"},
        "attentions only": {"sites": "attentions only"},
    },
)

MASK: Final = EditingComparison(
    name="mask",
    title="Where should features be warped: which flow, which mask?",
    baseline="residual 0.04",
    recipes={
        "residual 0.04": {"residual": 0.04, "occlusion": "plain", "flow": "estimated"},
        "residual 0.02": {"residual": 0.02, "occlusion": "plain", "flow": "estimated"},
        "residual 0.08": {"residual": 0.08, "occlusion": "plain", "flow": "estimated"},
        "occlusion only": {"residual": None, "occlusion": "plain", "flow": "estimated"},
        "squared occlusion": {"residual": 0.04, "occlusion": "squared", "flow": "estimated"},
        "no mask": {"residual": None, "occlusion": None, "flow": "estimated"},
        "true flow and occlusion": {"residual": None, "occlusion": None, "flow": "true"},
    },
)
