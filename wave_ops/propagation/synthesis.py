"""Guided patch synthesis: paints a frame in the style of an edited keyframe.

Source: EbSynth's algorithm (Jamriska et al. 2019; StyLit, Fiser et al. 2016) as run by WAVE (ECCV 2024): PatchMatch
with a price on overused source patches, rounds of search and vote, coarse to fine. Deviates: the search starts from
the flow, if given; the first guess of the image is the temporal guide; source patches may be centred at the border,
which is repeated; a pixel's own use is left out of the price.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray

from wave_ops.errors import WaveOpsError
from wave_ops.propagation import patch_match as pm
from wave_ops.propagation.guides import Guides
from wave_ops.propagation.settings import PropagationSettings

__all__ = ["Exemplar", "Synthesis", "pyramid_sizes", "synthesise"]

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Positions = Float32[np.ndarray, "2 height width"]


class _Level(NamedTuple):
    """The source at one size of the pyramid; see `patch_match.Matching`."""

    packed: Floats
    style: Floats


@dataclass(frozen=True, slots=True)
class Exemplar:
    """An edited keyframe and its guides, packed at every size of the pyramid, finest first."""

    levels: tuple[_Level, ...]
    sizes: tuple[tuple[int, int], ...]
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
        images = _pyramid(_stack(style, guides, settings), sizes)
        return cls(tuple(_level(image) for image in images), sizes, settings)


@dataclass(frozen=True, slots=True)
class Synthesis:
    """A synthesised frame, how well each pixel is matched, and by what.

    image: float32 (height, width, 3), 8-bit units.
    error: float32 (height, width), over the 5 x 5 patch and all channels the sum of weight times squared difference.
    matches: float32 (2, height, width), x then y: the centre of each pixel's patch in the keyframe.
    """

    image: Floats
    error: Floats
    matches: Floats


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
    targets = _pyramid(_stack(guides.temporal, guides, settings), exemplar.sizes)
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
    return _result(matching, settings)


def _search_and_vote(m: pm.Matching, offers: Sequence[Ints], settings: PropagationSettings, *, seed: int) -> None:
    """Run one level: alternate between better matches for the image and a better image for the matches."""
    search_above = settings.search_above * 3 / settings.style_weight
    pm.count_use(m)
    pm.match_errors(m)
    for field in offers:
        pm.offer(m, field)
    _vote(m)
    pm.match_errors(m)
    active = np.ones([-(-side // pm.TILE) for side in m.error.shape], np.bool_)
    for round_index in range(settings.rounds):
        moved = np.zeros_like(active)
        for sweep_index in range(settings.sweeps):
            changed = np.zeros_like(active)
            number = round_index * settings.sweeps + sweep_index
            pm.sweep(m, active, changed, 1 - 2 * (number % 2), seed + 101 * number, search_above)
            moved |= changed
            active = _with_neighbours(changed)
        _vote(m)
        pm.match_errors(m)
        active = _with_neighbours(moved)


def _with_neighbours(tiles: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the tiles that are set or touch one that is."""
    grown: NDArray[np.bool_] = cv2.dilate(tiles.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return grown


def _vote(m: pm.Matching) -> None:
    pm.vote(m)
    _repeat_border(m.target.reshape(m.target.shape[0], -1, pm.CHANNELS)[..., :3])


def _repeat_border(padded: Floats) -> None:
    """Refresh the two repeated rows and columns on each side, in place."""
    r = pm.RADIUS
    padded[:r], padded[-r:] = padded[r], padded[-r - 1]
    padded[:, :r], padded[:, -r:] = padded[:, r : r + 1], padded[:, -r - 1 : -r]


def _result(m: pm.Matching, settings: PropagationSettings) -> Synthesis:
    r = pm.RADIUS
    image = m.target.reshape(m.target.shape[0], -1, pm.CHANNELS)[r:-r, r:-r, :3].copy()
    matches = np.ascontiguousarray(np.moveaxis(m.nearest, -1, 0)[::-1]).astype(np.float32)
    return Synthesis(image, m.error * np.float32(settings.style_weight / 3), matches)


def _stack(style: Floats, guides: Guides, settings: PropagationSettings) -> Floats:
    """Put style and guides side by side, (height, width, 16), scaled so that plain squares carry the weights."""
    weights = (settings.colour_weight, settings.edge_weight, settings.temporal_weight, settings.position_weight)
    if any(guide.shape != style.shape for guide in guides):
        raise WaveOpsError(f"expected guides of the style's shape {style.shape}, got {[g.shape for g in guides]}")
    stack = np.zeros((*style.shape[:2], pm.CHANNELS), np.float32)
    stack[..., :3] = style
    for index, (guide, weight) in enumerate(zip(guides, weights, strict=True), start=1):
        stack[..., 3 * index : 3 * index + 3] = guide * np.float32(np.sqrt(weight / settings.style_weight))
    return stack


def pyramid_sizes(size: tuple[int, int], coarsest_side: int) -> tuple[tuple[int, int], ...]:
    """Halve the size, rounding up, while the shorter side stays at least `coarsest_side`."""
    sizes = [size]
    while min(half := tuple((side + 1) // 2 for side in sizes[-1])) >= coarsest_side:
        sizes.append((half[0], half[1]))
    return tuple(sizes)


def _pyramid(stack: Floats, sizes: Sequence[tuple[int, int]]) -> list[Floats]:
    """Return the stack at every size, padded and packed; each from the one before, by area."""
    images = [stack]
    for height, width in sizes[1:]:
        # OpenCV takes at most four channels where the ratio is no whole number.
        groups = [
            cv2.resize(np.ascontiguousarray(images[-1][..., c : c + 4]), (width, height), interpolation=cv2.INTER_AREA)
            for c in range(0, pm.CHANNELS, 4)
        ]
        images.append(np.concatenate(groups, axis=-1))
    r = pm.RADIUS
    return [
        np.pad(image, ((r, r), (r, r), (0, 0)), mode="edge").reshape(image.shape[0] + 2 * r, -1) for image in images
    ]


def _level(packed: Floats) -> _Level:
    style = np.zeros((packed.shape[0], packed.shape[1] // pm.CHANNELS, 4), np.float32)
    style[..., :3] = packed.reshape(*style.shape[:2], pm.CHANNELS)[..., :3]
    return _Level(packed, style)


def _matching(level: _Level, target: Floats, nearest: Ints, settings: PropagationSettings) -> pm.Matching:
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
        use_price=settings.uniformity * 3 / settings.style_weight / pm.PATCH**4,
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
