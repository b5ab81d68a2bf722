"""Compiled inner loops of patch synthesis: patch error, search sweep, vote.

Packing. An image is packed as int16 (height + 4, (width + 4) * 16): the border is repeated twice on each side, so that
a patch never leaves the array; one pixel is 32 bytes, and one patch row is 80 adjacent numbers. The first three
channels are the style, the others the guides, each scaled by the square root of its weight, so that a plain sum of
squared differences is the weighted patch error. With 16-bit integers a patch error takes a quarter to a half of the
time that it takes with floats: a processor multiplies and adds twice as many at a time, from half as much memory.

A match (row, column) of target pixel p is the centre of its source patch, both in unpadded coordinates. Since the
padding is the patch radius, the same numbers are the patch's first row and column in the packed array.

All loops run in one fixed order, so the result depends on the arguments only.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wave_ops.propagation._jit import inline, jit

__all__ = [
    "CHANNELS",
    "OVERLAP_RADIUS",
    "PACKED_MAX",
    "PATCH",
    "RADIUS",
    "TILE",
    "Matching",
    "add_errors",
    "count_usage",
    "match_errors",
    "paint",
    "sweep",
    "try_candidates",
    "vote",
]

# Defined here for both searches. Not in a module of their own: numba's cache on disk notices that a constant has
# changed only if the file of the compiled function has.
PATCH = 5
RADIUS = 2
CHANNELS = 16
OVERLAP_RADIUS = 2 * RADIUS  # patches with centres further apart than this share no pixel
TILE = 16  # pixels are searched, or known to have settled, in tiles of this side
PACKED_MAX = 5181  # the squared differences of a patch row of 80 such numbers add up to less than 2^31
_ROW = PATCH * CHANNELS


class Matching(NamedTuple):
    """The state of one search: two packed images and the nearest-neighbour field between them.

    Errors are in packed units: sums of squares of packed differences.
    """

    source: NDArray[np.int16]  # packed
    target: NDArray[np.int16]  # packed; the style channels change with every vote
    style: NDArray[np.int16]  # the source's style alone, (source height + 4, source width + 4, 4), to stay in the cache
    nearest: NDArray[np.int32]  # (height, width, 2): row and column in the source
    error: NDArray[np.float32]  # (height, width): patch error of each match
    usage: NDArray[np.int32]  # (source height + 8, source width + 8): pixels by which the matches overlap each patch
    border_correction_rows: NDArray[np.float32]  # (source height): compensates for the overlap that the border cuts off
    border_correction_columns: NDArray[np.float32]  # (source width)
    uniformity_penalty: float  # error per unit of usage


@jit
def match_errors(m: Matching, active: NDArray[np.bool_]) -> None:
    """Compute the patch error of every match in the active tiles."""
    for y in range(m.nearest.shape[0]):
        for x in range(m.nearest.shape[1]):
            if active[y // TILE, x // TILE]:
                m.error[y, x] = _patch_error(m, m.nearest[y, x, 0], m.nearest[y, x, 1], y, x, np.inf)


@jit
def count_usage(m: Matching) -> None:
    """Count from zero how much every source patch is used."""
    m.usage[:] = 0
    for y in range(m.nearest.shape[0]):
        for x in range(m.nearest.shape[1]):
            _add_usage(m.usage, m.nearest[y, x, 0], m.nearest[y, x, 1], 1)


@jit
def try_candidates(m: Matching, candidates: NDArray[np.int32]) -> None:
    """Try one more match for every target pixel, (height, width, 2)."""
    for y in range(m.nearest.shape[0]):
        for x in range(m.nearest.shape[1]):
            _try_match(m, y, x, candidates[y, x, 0], candidates[y, x, 1])


@jit
def sweep(
    m: Matching,
    active: NDArray[np.bool_],
    changed: NDArray[np.bool_],
    step: int,
    seed: int,
    search_above: float,
    max_radius: int,
) -> None:
    """Pass once over the active tiles, downwards (step 1) or upwards (step -1), and mark the tiles that changed.

    Source: PatchMatch (Barnes et al. 2009). Deviates: both neighbours of an axis are tried, and random matches, within
    `max_radius` pixels to each side, only for pixels with an error above `search_above`.
    """
    height, width = m.error.shape
    for i in range(height):
        y = i if step > 0 else height - 1 - i
        for j in range(width):
            x = j if step > 0 else width - 1 - j
            if not active[y // TILE, x // TILE]:
                continue
            better = _propagate(m, y, x, step)
            better = _propagate(m, y, x, -step) or better
            if m.error[y, x] > search_above:
                better = _search(m, y, x, seed, max_radius) or better
            if better:
                changed[y // TILE, x // TILE] = True


@jit
def vote(m: Matching, active: NDArray[np.bool_]) -> None:
    """Set the target's style in the active tiles: the mean over the matched patches of all patches over a pixel."""
    height, width = m.error.shape
    for y in range(height):
        for x in range(width):
            if not active[y // TILE, x // TILE]:
                continue
            red, green, blue = np.int32(0), np.int32(0), np.int32(0)
            count = 0
            for qy in range(max(y - RADIUS, 0), min(y + RADIUS + 1, height)):
                for qx in range(max(x - RADIUS, 0), min(x + RADIUS + 1, width)):
                    sy = m.nearest[qy, qx, 0] + y - qy + RADIUS
                    sx = m.nearest[qy, qx, 1] + x - qx + RADIUS
                    red += m.style[sy, sx, 0]
                    green += m.style[sy, sx, 1]
                    blue += m.style[sy, sx, 2]
                    count += 1
            base = (x + RADIUS) * CHANNELS
            m.target[y + RADIUS, base] = _mean(red, count)
            m.target[y + RADIUS, base + 1] = _mean(green, count)
            m.target[y + RADIUS, base + 2] = _mean(blue, count)


@jit
def paint(m: Matching, source: NDArray[np.float32], image: NDArray[np.float32]) -> None:
    """Vote once more, in floating point, on any image of the source's size: padded, (height + 4, width + 4, 3)."""
    height, width = m.error.shape
    for y in range(height):
        for x in range(width):
            for channel in range(3):
                total = np.float32(0.0)
                count = 0
                for qy in range(max(y - RADIUS, 0), min(y + RADIUS + 1, height)):
                    for qx in range(max(x - RADIUS, 0), min(x + RADIUS + 1, width)):
                        sy = m.nearest[qy, qx, 0] + y - qy + RADIUS
                        sx = m.nearest[qy, qx, 1] + x - qx + RADIUS
                        total += source[sy, sx, channel]
                        count += 1
                image[y, x, channel] = total / np.float32(count)


@jit
def add_errors(
    nearest: NDArray[np.int32],
    source: NDArray[np.float32],
    target: NDArray[np.float32],
    weight: float,
    error: NDArray[np.float32],
) -> None:
    """Add `weight` times the squared difference of every match's patches, in floating point, to `error`.

    `source` and `target` are padded images, (height + 4, (width + 4) * 3).
    """
    for y in range(nearest.shape[0]):
        for x in range(nearest.shape[1]):
            total = np.float32(0.0)
            sy = nearest[y, x, 0]
            sx = nearest[y, x, 1] * 3
            for dy in range(PATCH):
                a = source[sy + dy, sx : sx + PATCH * 3]
                b = target[y + dy, x * 3 : x * 3 + PATCH * 3]
                for k in range(PATCH * 3):
                    d = a[k] - b[k]
                    total += d * d
            error[y, x] += total * np.float32(weight)


@inline
def _mean(total: np.int32, count: int) -> np.int16:
    """Return the rounded mean of numbers that are 0 or more."""
    return np.int16((2 * total + count) // (2 * count))


@inline
def _patch_error(m: Matching, sy: int, sx: int, ty: int, tx: int, limit: float) -> np.float32:
    """Sum the squared differences of two packed patches, row by row, up to the row that reaches `limit`.

    The integer types are explicit, since numba would widen them to 64 bits, and a vector register fits fewer of those:
    differences are taken in 16 bits, and multiplied and added in 32.
    """
    total = np.float32(0.0)
    for dy in range(PATCH):
        a = m.source[sy + dy, sx * CHANNELS : sx * CHANNELS + _ROW]
        b = m.target[ty + dy, tx * CHANNELS : tx * CHANNELS + _ROW]
        row = np.int32(0)
        for k in range(_ROW):
            d = np.int32(np.int16(a[k] - b[k]))
            row = np.int32(row + np.int32(d * d))
        total += np.float32(row)
        if total >= limit:
            break
    return total


@inline
def _add_usage(usage: NDArray[np.int32], sy: int, sx: int, sign: int) -> None:
    """Add (or take back) one match's overlap with every source patch around it."""
    for dy in range(2 * OVERLAP_RADIUS + 1):
        rows = np.int32(sign * (PATCH - abs(dy - OVERLAP_RADIUS)))
        for dx in range(2 * OVERLAP_RADIUS + 1):
            usage[sy + dy, sx + dx] += rows * np.int32(PATCH - abs(dx - OVERLAP_RADIUS))


@inline
def _penalty(m: Matching, y: int, x: int, from_y: int, from_x: int) -> np.float32:
    """Return the penalty on source patch (y, x) for a pixel now matched to (from_y, from_x).

    Only the usage by other pixels counts: the pixel's own would drive it away from its present match.
    """
    own_rows = PATCH - abs(y - from_y)
    own_columns = PATCH - abs(x - from_x)
    usage = m.usage[y + OVERLAP_RADIUS, x + OVERLAP_RADIUS]
    if own_rows > 0 and own_columns > 0:
        usage -= own_rows * own_columns
    penalty: np.float32 = (
        np.float32(usage * m.uniformity_penalty) * m.border_correction_rows[y] * m.border_correction_columns[x]
    )
    return penalty


@inline
def _try_match(m: Matching, y: int, x: int, cy: int, cx: int) -> bool:
    """Take source patch (cy, cx) for target pixel (y, x) if that lowers error plus penalty."""
    sy = m.nearest[y, x, 0]
    sx = m.nearest[y, x, 1]
    if cy == sy and cx == sx:
        return False
    limit = m.error[y, x] + _penalty(m, sy, sx, sy, sx) - _penalty(m, cy, cx, sy, sx)
    if limit <= 0:
        return False
    error = _patch_error(m, cy, cx, y, x, limit)
    if error >= limit:
        return False
    _add_usage(m.usage, sy, sx, -1)
    _add_usage(m.usage, cy, cx, 1)
    m.nearest[y, x, 0] = cy
    m.nearest[y, x, 1] = cx
    m.error[y, x] = error
    return True


@inline
def _propagate(m: Matching, y: int, x: int, step: int) -> bool:
    """Try the matches of the two neighbours before (step 1) or after (step -1) this pixel, shifted by one pixel."""
    better = False
    if 0 <= x - step < m.nearest.shape[1]:
        column = _clamp(m.nearest[y, x - step, 1] + step, m.border_correction_columns.shape[0])
        better = _try_match(m, y, x, m.nearest[y, x - step, 0], column)
    if 0 <= y - step < m.nearest.shape[0]:
        row = _clamp(m.nearest[y - step, x, 0] + step, m.border_correction_rows.shape[0])
        better = _try_match(m, y, x, row, m.nearest[y - step, x, 1]) or better
    return better


@inline
def _search(m: Matching, y: int, x: int, seed: int, max_radius: int) -> bool:
    """Try random matches around the present one, in windows that halve from `max_radius` to 1 pixel to each side."""
    height, width = m.border_correction_rows.shape[0], m.border_correction_columns.shape[0]
    counter = (y * m.nearest.shape[1] + x) * 32  # more than the windows of any image, so no two pixels share a number
    radius = min(max_radius, max(height, width))
    better = False
    while radius >= 1:
        number = _hash(seed, counter)
        span = 2 * radius + 1
        row = m.nearest[y, x, 0] + ((number >> 16) * span >> 16) - radius
        column = m.nearest[y, x, 1] + ((number & 0xFFFF) * span >> 16) - radius
        better = _try_match(m, y, x, _clamp(row, height), _clamp(column, width)) or better
        counter += 1
        radius //= 2
    return better


@inline
def _hash(seed: int, counter: int) -> np.int64:
    """Return a random number of 32 bits that depends on its arguments only (murmur's finalizer).

    Without a generator's state the numbers do not depend on which pixels were searched before.
    """
    h = np.uint32(seed) + np.uint32(counter) * np.uint32(0x9E3779B1)
    h = np.uint32((h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B))
    h = np.uint32((h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35))
    return np.int64(h ^ (h >> np.uint32(16)))


@inline
def _clamp(value: int, size: int) -> int:
    return min(max(value, 0), size - 1)
