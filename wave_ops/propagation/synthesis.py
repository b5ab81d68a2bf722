"""Guided patch synthesis: paints a frame in the style of an edited keyframe.

Source: EbSynth's algorithm (Jamriska et al. 2019; StyLit, Fiser et al. 2016) as run by WAVE (ECCV 2024): PatchMatch
with a price on overused source patches, rounds of search and vote, coarse to fine. Deviates: the search starts from
the flow, if given; the first guess of the image is the temporal guide; source patches may be centred at the border,
which is repeated; a pixel's own use is left out of the price; from round to round the price falls to nothing and the
search draws in, unless the schedule is "published".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray

from wave_ops.errors import WaveOpsError
from wave_ops.propagation import patch_match as pm
from wave_ops.propagation.guides import Guides
from wave_ops.propagation.settings import PropagationSettings

__all__ = ["Exemplar", "Synthesis", "pace", "pyramid_sizes", "synthesise"]

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Shorts = NDArray[np.int16]
Tiles = NDArray[np.bool_]
Positions = Float32[np.ndarray, "2 height width"]


class _Level(NamedTuple):
    """The source at one size of the pyramid; see `patch_match.Matching`."""

    packed: Shorts
    style: Shorts


@dataclass(frozen=True, slots=True)
class Exemplar:
    """An edited keyframe and its guides, packed at every size of the pyramid, finest first."""

    levels: tuple[_Level, ...]
    sizes: tuple[tuple[int, int], ...]
    images: tuple[Floats, ...]
    """Style and guides as they were given, (height, width, 3) each."""
    settings: PropagationSettings

    @classmethod
    def build(
        cls, style: Float32[np.ndarray, "height width 3"], guides: Guides, *, settings: PropagationSettings
    ) -> Exemplar:
        """Pack an edited keyframe (8-bit units) for `synthesise`.

        Raises:
            WaveOpsError: style and guides differ in size.
        """
        size = style.shape[0], style.shape[1]
        sizes = pyramid_sizes(size, settings.coarsest_side)
        levels = tuple(_level(packed) for packed in _pyramid(style, guides, sizes, settings=settings))
        return cls(levels, sizes, (style, *guides), settings)


@dataclass(frozen=True, slots=True)
class Synthesis:
    """A synthesised frame, how well each pixel is matched, and by what.

    image: float32 (height, width, 3), 8-bit units.
    error: float32 (height, width), over the 5 x 5 patch and all channels the sum of weight times squared difference.
    matches: float32 (2, height, width), x then y: the centre of each pixel's patch in the keyframe.
    seen: float32 (height, width, 3), 8-bit units: what the same patches show of the keyframe's colour guide.
    """

    image: Floats
    error: Floats
    matches: Floats
    seen: Floats


def synthesise(exemplar: Exemplar, guides: Guides, *, starts: Sequence[Positions] = ()) -> Synthesis:
    """Paint the frame that `guides` describe out of patches of the exemplar, with the exemplar's settings.

    Args:
        exemplar: the edited keyframe.
        guides: the target's guides, of the exemplar's size; the temporal guide is also the first guess.
        starts: where each pixel's match may lie, in keyframe pixels, x then y; the first is where the search starts,
            the others are offered. Without any it starts at random.

    Raises:
        WaveOpsError: guides or starts of another size.
    """
    settings = exemplar.settings
    size = exemplar.sizes[0]
    shapes = [guide.shape for guide in guides] + [(*start.shape[1:], 3) for start in starts]
    if any(shape != (*size, 3) for shape in shapes):
        raise WaveOpsError(f"expected guides and starts of the keyframe's size {size}, got {shapes}")
    # The frame before, as carried here, is the first guess; the matches that fit it best start the first vote.
    targets = _pyramid(guides.temporal, guides, exemplar.sizes, settings=settings)
    nearest: Ints | None = None
    for index in reversed(range(len(targets))):
        fields = [_at_size(start, exemplar.sizes[index]) for start in starts]
        if nearest is not None:
            fields.append(_enlarge(nearest, exemplar.sizes[index]))
        if not fields:
            fields.append(_random_field(exemplar.sizes[index], settings.seed))
        matching = _matching(exemplar.levels[index], targets[index], fields[0], settings)
        _search_and_vote(matching, fields[1:], settings, seed=settings.seed + 7919 * index)
        nearest = matching.nearest
    return _result(matching, exemplar, guides)


def _search_and_vote(m: pm.Matching, offers: Sequence[Ints], settings: PropagationSettings, *, seed: int) -> None:
    """Run one level: alternate between better matches for the image and a better image for the matches."""
    search_above = settings.search_above / _unit(settings)
    active = np.ones([-(-side // pm.TILE) for side in m.error.shape], np.bool_)
    pm.count_use(m)
    pm.match_errors(m, active)
    for field in offers:
        pm.offer(m, field)
    _vote(m, active)
    for round_index in range(settings.rounds):
        price, reach = pace(round_index, settings, side=max(m.error.shape))
        now = m._replace(use_price=m.use_price * price)
        moved = np.zeros_like(active)
        for sweep_index in range(settings.sweeps):
            changed = np.zeros_like(active)
            number = round_index * settings.sweeps + sweep_index
            pm.sweep(now, active, changed, 1 - 2 * (number % 2), seed + 101 * number, search_above, reach)
            moved |= changed
            active = _with_neighbours(changed)
        # A match that moves changes colours 2 pixels away and errors 4 pixels away: at most in the tiles beside its own
        active = _with_neighbours(moved)
        _vote(m, active)


def pace(round_index: int, settings: PropagationSettings, *, side: int) -> tuple[float, int]:
    """Return which part of the price a round asks for, and how far it searches, in pixels."""
    if settings.schedule == "published":
        return 1.0, side
    left = 1 - round_index / settings.rounds
    return max(left - 1 / settings.rounds, 0) * settings.rounds / max(settings.rounds - 1, 1), round(side**left)


def _with_neighbours(tiles: Tiles) -> Tiles:
    """Return the tiles that are set or touch one that is."""
    grown: Tiles = cv2.dilate(tiles.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return grown


def _vote(m: pm.Matching, active: Tiles) -> None:
    """Paint the active tiles anew and tell how well the matches fit what is there now."""
    pm.vote(m, active)
    _repeat_border(m.target.reshape(m.target.shape[0], -1, pm.CHANNELS)[..., :3])
    pm.match_errors(m, active)


def _repeat_border(padded: Shorts) -> None:
    """Refresh the two repeated rows and columns on each side, in place."""
    r = pm.RADIUS
    padded[:r], padded[-r:] = padded[r], padded[-r - 1]
    padded[:, :r], padded[:, -r:] = padded[:, r : r + 1], padded[:, -r - 1 : -r]


def _result(m: pm.Matching, exemplar: Exemplar, guides: Guides) -> Synthesis:
    """Vote once more and measure the errors, both without the rounding of the search."""
    image, seen = (_painted(m, shown) for shown in exemplar.images[:2])
    error = np.zeros_like(m.error)
    pairs = zip(_weights(exemplar.settings), exemplar.images, (image, *guides), strict=True)
    for weight, source, target in pairs:
        pm.add_errors(m.nearest, _flat(_padded(source)), _flat(_padded(target)), weight / 3, error)
    matches = np.ascontiguousarray(np.moveaxis(m.nearest, -1, 0)[::-1]).astype(np.float32)
    return Synthesis(image, error, matches, seen)


def _painted(m: pm.Matching, source: Floats) -> Floats:
    image = np.empty((*m.error.shape, 3), np.float32)
    pm.paint(m, _padded(source), image)
    return image


def _padded(image: Floats) -> Floats:
    r = pm.RADIUS
    padded: Floats = cv2.copyMakeBorder(image, r, r, r, r, cv2.BORDER_REPLICATE)
    return padded


def _flat(image: Floats) -> Floats:
    return image.reshape(image.shape[0], -1)


def _weights(settings: PropagationSettings) -> tuple[float, ...]:
    """Weights of the style and of the four guides, in their order."""
    guides = settings.colour_weight, settings.edge_weight, settings.temporal_weight, settings.position_weight
    return tuple(float(weight) for weight in (settings.style_weight, *guides))


def _scales(settings: PropagationSettings) -> tuple[float, ...]:
    """Factors of style and guides that make plain squares carry the weights, and 255 at most the largest number."""
    roots = [sqrt(weight) for weight in _weights(settings)]
    return tuple(pm.MOST / 255 / max(roots) * root for root in roots)


def _unit(settings: PropagationSettings) -> float:
    """What an error of 1 in packed numbers is in the settings' units."""
    return settings.style_weight / 3 / _scales(settings)[0] ** 2


def pyramid_sizes(size: tuple[int, int], coarsest_side: int) -> tuple[tuple[int, int], ...]:
    """Halve the size, rounding up, while the shorter side stays at least `coarsest_side`."""
    sizes = [size]
    while min(half := tuple((side + 1) // 2 for side in sizes[-1])) >= coarsest_side:
        sizes.append((half[0], half[1]))
    return tuple(sizes)


def _pyramid(
    style: Floats, guides: Guides, sizes: Sequence[tuple[int, int]], *, settings: PropagationSettings
) -> list[Shorts]:
    """Return style and guides side by side at every size, each from the one before by area, padded and packed.

    Four channels at a time: that is what OpenCV resizes at once, and all sixteen in floats would take the most memory.
    """
    if any(guide.shape != style.shape for guide in guides):
        raise WaveOpsError(f"expected guides of the style's shape {style.shape}, got {[g.shape for g in guides]}")
    r = pm.RADIUS
    packed = [np.zeros((height + 2 * r, width + 2 * r, pm.CHANNELS), np.int16) for height, width in sizes]
    for first, planes in _scaled_planes(style, guides, settings):
        for level, (height, width) in zip(packed, sizes, strict=True):
            if planes.shape[:2] != (height, width):
                planes = cv2.resize(planes, (width, height), interpolation=cv2.INTER_AREA)
            level[r:-r, r:-r, first : first + 4] = np.rint(planes)
    for level in packed:
        _repeat_border(level)
    return [level.reshape(level.shape[0], -1) for level in packed]


def _scaled_planes(style: Floats, guides: Guides, settings: PropagationSettings) -> Iterator[tuple[int, Floats]]:
    """Yield the number of the first of every four channels, and these, scaled for packing, (height, width, 4)."""
    scaled = zip((style, *guides), _scales(settings), strict=True)
    channels = [(image[..., k], np.float32(scale)) for image, scale in scaled for k in range(3)]
    for first in range(0, pm.CHANNELS, 4):
        planes = np.zeros((*style.shape[:2], 4), np.float32)
        for place, (plane, scale) in enumerate(channels[first : first + 4]):
            np.multiply(plane, scale, out=planes[..., place])
        yield first, np.clip(planes, 0, pm.MOST, out=planes)


def _level(packed: Shorts) -> _Level:
    return _Level(packed, packed.reshape(packed.shape[0], -1, pm.CHANNELS)[..., :4].copy())


def _matching(level: _Level, target: Shorts, nearest: Ints, settings: PropagationSettings) -> pm.Matching:
    height, width = nearest.shape[:2]
    return pm.Matching(
        source=level.packed,
        target=target,
        style=level.style,
        nearest=nearest,
        error=np.zeros((height, width), np.float32),
        use=np.zeros((height + 2 * pm.REACH, width + 2 * pm.REACH), np.int32),
        fair_rows=_fair(height),
        fair_columns=_fair(width),
        # A patch that every pixel around it uses once has a use of 25 * 25.
        use_price=settings.uniformity / _unit(settings) / pm.PATCH**4,
    )


def _fair(count: int) -> Floats:
    """Return by how much the border cuts the overlap of a patch at each place, as a factor of at least 1."""
    overlap = pm.PATCH - np.abs(np.arange(-pm.REACH, pm.REACH + 1))
    full = np.convolve(np.ones(count), overlap)[pm.REACH : pm.REACH + count]
    factors: Floats = (overlap.sum() / full).astype(np.float32)
    return factors


def _at_size(start: Positions, size: tuple[int, int]) -> Ints:
    """Return matches (row, column) on a grid of another size; positions are in pixels of their own grid."""
    _, height, width = start.shape
    if size != (height, width):
        start = np.stack([cv2.resize(plane, size[::-1], interpolation=cv2.INTER_AREA) for plane in start])
    x = (start[0] + 0.5) * (size[1] / width) - 0.5
    y = (start[1] + 0.5) * (size[0] / height) - 0.5
    return _rounded(y, x, size)


def _enlarge(nearest: Ints, size: tuple[int, int]) -> Ints:
    """Return the field of a coarser level on a finer grid: each pixel's offset is its parent's, rescaled."""
    height, width = nearest.shape[:2]
    y, x = np.mgrid[: size[0], : size[1]]
    parent_y = np.minimum((y * 2 + 1) * height // (2 * size[0]), height - 1)
    parent_x = np.minimum((x * 2 + 1) * width // (2 * size[1]), width - 1)
    parent = nearest[parent_y, parent_x]
    rows = y + (parent[..., 0] - parent_y) * (size[0] / height)
    columns = x + (parent[..., 1] - parent_x) * (size[1] / width)
    return _rounded(rows, columns, size)


def _rounded(rows: np.ndarray, columns: np.ndarray, size: tuple[int, int]) -> Ints:
    field = np.stack((np.clip(np.rint(rows), 0, size[0] - 1), np.clip(np.rint(columns), 0, size[1] - 1)), axis=-1)
    return field.astype(np.int32)


def _random_field(size: tuple[int, int], seed: int) -> Ints:
    rng = np.random.default_rng(seed)
    field: Ints = rng.integers(0, size, size=(*size, 2), dtype=np.int32)
    return field
