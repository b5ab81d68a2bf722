"""The order in which the keyframes of one timestep are chained by feature warping."""

from __future__ import annotations

from itertools import combinations, pairwise
from typing import Literal

import numpy as np

from wave_ops.errors import WaveOpsError

__all__ = ["ShuffleMode", "reachable_pairs", "step_order"]

ShuffleMode = Literal["group", "natural", "permutation"]


def step_order(count: int, *, seed: int, step_index: int, mode: ShuffleMode = "group") -> tuple[int, ...]:
    """Draw the order of `count` keyframes at one timestep.

    Source: WAVE sec. 3, the group-2 shuffle as its authors ran it: natural order or its reverse, cut into
    groups of two (an odd keyframe is a group of one, first or last), each group shuffled. Deviates in the
    generator, which is seeded by (seed, step_index), so that a resumed run draws the same orders.

    Args:
        count: number of keyframes, at least 1.
        seed: seed of the run, at least 0.
        step_index: place in the schedule, 1 to S.
        mode: "group", or an ablation: "natural" (no shuffle) or "permutation" (of all keyframes).

    Returns:
        A permutation of 0 .. count - 1.

    Raises:
        WaveOpsError: for a count below 1, a negative seed or an unknown mode.
    """
    if count < 1 or seed < 0:
        raise WaveOpsError(f"an order needs at least 1 keyframe and a seed of 0 or more, got {count} and {seed}")
    rng = np.random.default_rng([seed, step_index])  # of this step alone: no other step needs to be drawn first
    match mode:
        case "natural":
            return tuple(range(count))
        case "permutation":
            return tuple(int(i) for i in rng.permutation(count))
        case "group":
            return _group_order(count, rng)
    raise WaveOpsError(f"unknown shuffle mode {mode!r}: expected group, natural or permutation")


def _group_order(count: int, rng: np.random.Generator) -> tuple[int, ...]:
    frames = list(range(count))
    if rng.random() < 0.5:
        frames.reverse()
    groups = _groups(frames, odd_one_first=rng.random() < 0.5)
    return tuple(frame for group in groups for frame in rng.permutation(group).tolist())


def _groups(frames: list[int], *, odd_one_first: bool) -> list[list[int]]:
    """Cut into groups of two; where the number of frames is odd, the first or the last group has one."""
    first = 1 if odd_one_first and len(frames) % 2 else 2
    cuts = [0, *range(first, len(frames), 2), len(frames)]
    return [frames[start:stop] for start, stop in pairwise(cuts)]


def reachable_pairs(count: int, *, mode: ShuffleMode = "group") -> tuple[tuple[int, int], ...]:
    """Return the keyframe pairs (a, b), a < b, that are neighbours in at least one order of the mode.

    Source: WAVE sec. 3. About 2.5 `count` pairs for "group" (11 for 6 keyframes): few enough to compute the flow of
    each pair once, before the first step.
    """
    if mode == "natural":
        return tuple(pairwise(range(count)))
    if mode == "permutation":
        return tuple(combinations(range(count), 2))
    frames = list(range(count))  # the reversed order has the same groups
    cuttings = [_groups(frames, odd_one_first=odd_one_first) for odd_one_first in (False, True)]
    return tuple(sorted(set[tuple[int, int]]().union(*map(_neighbours, cuttings))))


def _neighbours(groups: list[list[int]]) -> set[tuple[int, int]]:
    inside = {(group[0], group[1]) for group in groups if len(group) == 2}
    return inside | {(a, b) for left, right in pairwise(groups) for a in left for b in right}
