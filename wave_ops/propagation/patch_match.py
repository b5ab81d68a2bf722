"""Compiled inner loops of patch synthesis: patch error, search sweep, vote.

Layout. An image is packed as int16 (height + 4, (width + 4) * 16): the border is repeated twice on each side, so that a
patch never leaves the array; one pixel is 32 bytes, and one patch row is 80 numbers side by side. The first three
channels are the style, the rest the guides, each scaled by `SCALE` and the square root of its weight relative to
style. Whole numbers of 16 bits make a patch a quarter to a half as dear as floats do: processors multiply and add
twice as many at a time, and half as much memory is fetched.

A match (row, column) of target pixel p is the centre of its source patch, both in unpadded coordinates. Since the
padding is the patch radius, the same numbers are the patch's first row and column in the packed array.

Everything runs in one fixed order, so the result depends on the arguments only.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wave_ops.propagation._jit import inline, jit

__all__ = [
    "CHANNELS",
    "MOST",
    "PATCH",
    "RADIUS",
    "REACH",
    "TILE",
    "Matching",
    "add_errors",
    "count_use",
    "match_errors",
    "offer",
    "paint",
    "sweep",
    "vote",
]

PATCH = 5
RADIUS = 2
CHANNELS = 16
REACH = 2 * RADIUS  # patches further apart than this share no pixel
TILE = 16  # pixels are searched, or known to have settled, in tiles of this side
_ROW = PATCH * CHANNELS
MOST = 5181  # the largest packed number: the squared differences of a patch row then add up to less than 2^31


class Matching(NamedTuple):
    """The state of one search: two packed images and the nearest-neighbour field between them.

    Errors are in packed units: sums of squares of packed differences.
    """

    source: NDArray[np.int16]  # packed
    target: NDArray[np.int16]  # packed; the style channels change with every vote
    style: NDArray[np.int16]  # the source's style alone, (source height + 4, source width + 4, 4): stays in the cache
    nearest: NDArray[np.int32]  # (height, width, 2): row and column in the source
    error: NDArray[np.float32]  # (height, width): patch error of each match
    use: NDArray[np.int32]  # (source height + 8, source width + 8): how much the matched patches overlap each patch
    fair_rows: NDArray[np.float32]  # (source height): makes up for the overlap that the border cuts off
    fair_columns: NDArray[np.float32]  # (source width)
    use_price: float  # error per unit of use


@jit
def match_errors(m: Matching, active: NDArray[np.bool_]) -> None:
    """Compute anew the patch error of every match in the active tiles."""
    for y in range(m.nearest.shape[0]):
        for x in range(m.nearest.shape[1]):
            if active[y // TILE, x // TILE]:
                m.error[y, x] = _patch_error(m, m.nearest[y, x, 0], m.nearest[y, x, 1], y, x, np.inf)


@jit
def count_use(m: Matching) -> None:
    """Count anew how much every source patch is used."""
    m.use[:] = 0
    for y in range(m.nearest.shape[0]):
        for x in range(m.nearest.shape[1]):
            _add_use(m.use, m.nearest[y, x, 0], m.nearest[y, x, 1], 1)


@jit
def offer(m: Matching, candidates: NDArray[np.int32]) -> None:
    """Offer every target pixel one more match of its own, (height, width, 2)."""
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
    reach: int,
) -> None:
    """Pass once over the active tiles, downwards (step 1) or upwards (step -1), and mark the tiles that changed.

    Source: PatchMatch (Barnes et al. 2009); the search goes on only where the error is above `search_above`, in windows
    of at most `reach` pixels to each side.
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
                better = _search(m, y, x, seed, reach) or better
            if better:
                changed[y // TILE, x // TILE] = True


@jit
def vote(m: Matching, active: NDArray[np.bool_]) -> None:
    """Set the target's style in the active tiles: the mean of what the matches of all patches over a pixel show."""
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
    """The rounded mean of numbers that are 0 or more."""
    return np.int16((2 * total + count) // (2 * count))


@inline
def _patch_error(m: Matching, sy: int, sx: int, ty: int, tx: int, limit: float) -> np.float32:
    """Sum of squared differences of two packed patches; given up row by row once it reaches `limit`.

    The widths of the numbers are spelt out: subtracted in 16 bits, multiplied and added in 32.
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
def _add_use(use: NDArray[np.int32], sy: int, sx: int, sign: int) -> None:
    """Add (or take back) one match's overlap with every source patch around it."""
    for dy in range(2 * REACH + 1):
        rows = np.int32(sign * (PATCH - abs(dy - REACH)))
        for dx in range(2 * REACH + 1):
            use[sy + dy, sx + dx] += rows * np.int32(PATCH - abs(dx - REACH))


@inline
def _penalty(m: Matching, y: int, x: int, from_y: int, from_x: int) -> np.float32:
    """The price of source patch (y, x) for a pixel now matched to (from_y, from_x), whose own use is left out."""
    own_rows = PATCH - abs(y - from_y)
    own_columns = PATCH - abs(x - from_x)
    use = m.use[y + REACH, x + REACH]
    if own_rows > 0 and own_columns > 0:
        use -= own_rows * own_columns
    price: np.float32 = np.float32(use * m.use_price) * m.fair_rows[y] * m.fair_columns[x]
    return price


@inline
def _try_match(m: Matching, y: int, x: int, cy: int, cx: int) -> bool:
    """Take source patch (cy, cx) for target pixel (y, x) if that lowers error plus price."""
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
    _add_use(m.use, sy, sx, -1)
    _add_use(m.use, cy, cx, 1)
    m.nearest[y, x, 0] = cy
    m.nearest[y, x, 1] = cx
    m.error[y, x] = error
    return True


@inline
def _propagate(m: Matching, y: int, x: int, step: int) -> bool:
    """Try the matches of the two neighbours before (step 1) or after (step -1) this pixel, moved along with it."""
    better = False
    if 0 <= x - step < m.nearest.shape[1]:
        column = _inside(m.nearest[y, x - step, 1] + step, m.fair_columns.shape[0])
        better = _try_match(m, y, x, m.nearest[y, x - step, 0], column)
    if 0 <= y - step < m.nearest.shape[0]:
        row = _inside(m.nearest[y - step, x, 0] + step, m.fair_rows.shape[0])
        better = _try_match(m, y, x, row, m.nearest[y - step, x, 1]) or better
    return better


@inline
def _search(m: Matching, y: int, x: int, seed: int, reach: int) -> bool:
    """Try random matches around the present one, in windows from `reach` pixels to each side down to its neighbours."""
    height, width = m.fair_rows.shape[0], m.fair_columns.shape[0]
    counter = (y * m.nearest.shape[1] + x) * 32
    radius = min(reach, max(height, width))
    better = False
    while radius >= 1:
        number = _hash(seed, counter)
        span = 2 * radius + 1
        row = m.nearest[y, x, 0] + ((number >> 16) * span >> 16) - radius
        column = m.nearest[y, x, 1] + ((number & 0xFFFF) * span >> 16) - radius
        better = _try_match(m, y, x, _inside(row, height), _inside(column, width)) or better
        counter += 1
        radius //= 2
    return better


@inline
def _hash(seed: int, counter: int) -> np.int64:
    """A random number of 32 bits that depends on its arguments only (murmur's finalizer)."""
    h = np.uint32(seed) + np.uint32(counter) * np.uint32(0x9E3779B1)
    h = np.uint32((h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B))
    h = np.uint32((h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35))
    return np.int64(h ^ (h >> np.uint32(16)))


@inline
def _inside(value: int, size: int) -> int:
    return min(max(value, 0), size - 1)
