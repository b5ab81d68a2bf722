"""Guided patch synthesis on the CPU: paints a frame in the style of an edited keyframe.

Source: EbSynth's algorithm (Jamriska et al. 2019; StyLit, Fiser et al. 2016) as run by WAVE (ECCV 2024): PatchMatch
with a penalty on overused source patches, rounds of search and vote, coarse to fine. Deviates: the search starts from
the flow, if given; the first guess of the image is the temporal guide; source patches may be centred at the border,
which is repeated; a pixel's own usage is left out of the penalty; from round to round the penalty falls to 0 and the
search window shrinks, unless the schedule is "published".

Convention:
    Tensors are on the CPU and have a batch of one: images (1, 3, height, width) in 8-bit units, positions in the
    keyframe (1, 2, height, width), x then y, in pixels. Within this module images are arrays (height, width, 3), which
    the compiled loops and OpenCV read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float32
from numpy.typing import NDArray
from torch import Tensor

from wave_ops.errors import WaveOpsError
from wave_ops.propagation import patch_match as pm
from wave_ops.propagation.guides import Guides
from wave_ops.propagation.pyramid import pyramid_sizes
from wave_ops.propagation.settings import PropagationSettings

__all__ = ["Exemplar", "Synthesis", "annealing", "synthesise"]

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Shorts = NDArray[np.int16]
Tiles = NDArray[np.bool_]


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
    """Style and guides, not packed, (height, width, 3) each."""
    settings: PropagationSettings

    @classmethod
    def build(
        cls, style: Float32[Tensor, "1 3 height width"], guides: Guides, *, settings: PropagationSettings
    ) -> Exemplar:
        """Pack an edited keyframe for `synthesise`.

        Raises:
            WaveOpsError: style and guides differ in shape.
        """
        sizes = pyramid_sizes((style.shape[2], style.shape[3]), settings.coarsest_side)
        if any(guide.shape != style.shape for guide in guides):
            raise WaveOpsError(
                f"expected guides of the style's shape {tuple(style.shape)}, got {[tuple(g.shape) for g in guides]}"
            )
        images = tuple(_to_array(image) for image in (style, *guides))
        levels = tuple(_level(packed) for packed in _pyramid(images, sizes, settings=settings))
        return cls(levels, sizes, images, settings)


@dataclass(frozen=True, slots=True)
class Synthesis:
    """A batch of synthesised frames, how well each pixel is matched, and by which patches.

    image: float32 (batch, 3, height, width), 8-bit units.
    error: float32 (batch, height, width), over the 5 x 5 patch and all channels the sum of weight times squared
        difference.
    matches: float32 (batch, 2, height, width), x then y: the centre of each pixel's patch in the keyframe.
    seen: float32 (batch, 3, height, width), 8-bit units: the same patches, voted from the keyframe's colour guide.
    """

    image: Tensor
    error: Tensor
    matches: Tensor
    seen: Tensor


def synthesise(
    exemplar: Exemplar, guides: Guides, *, starts: Sequence[Float32[Tensor, "1 2 height width"]] = ()
) -> Synthesis:
    """Paint the frame described by `guides` from patches of the exemplar, with the exemplar's settings.

    Args:
        exemplar: the edited keyframe.
        guides: the target's guides, of the exemplar's size; the temporal guide is also the first guess.
        starts: candidates for each pixel's match, in keyframe pixels, x then y; the search starts from the first and
            tries the others. Without any it starts from random matches.

    Raises:
        WaveOpsError: guides or starts of another size.
    """
    settings = exemplar.settings
    size = exemplar.sizes[0]
    shapes = [tuple(value.shape) for value in (*guides, *starts)]
    if any((shape[0], *shape[2:]) != (1, *size) for shape in shapes):
        raise WaveOpsError(f"expected one frame's guides and starts of the keyframe's size {size}, got {shapes}")
    images = tuple(_to_array(guide) for guide in guides)
    # The frame painted before, warped here, is the first guess: the matches that fit it best make the first vote.
    targets = _pyramid((_to_array(guides.temporal), *images), exemplar.sizes, settings=settings)
    nearest: Ints | None = None
    for index in reversed(range(len(targets))):
        fields = [_at_size(start[0].numpy(), exemplar.sizes[index]) for start in starts]
        if nearest is not None:
            fields.append(_enlarge(nearest, exemplar.sizes[index]))
        if not fields:
            fields.append(_random_field(exemplar.sizes[index], settings.seed))
        matching = _matching(exemplar.levels[index], targets[index], fields[0], settings)
        _search_and_vote(matching, fields[1:], settings, seed=settings.seed + 7919 * index)
        nearest = matching.nearest
    return _result(matching, exemplar, images)


def _search_and_vote(m: pm.Matching, candidates: Sequence[Ints], settings: PropagationSettings, *, seed: int) -> None:
    """Run one level: alternate between better matches for the image and a better image for the matches."""
    search_above = settings.search_above / _error_unit(settings)
    active = np.ones([-(-side // pm.TILE) for side in m.error.shape], np.bool_)
    pm.count_usage(m)
    pm.match_errors(m, active)
    for field in candidates:
        pm.try_candidates(m, field)
    _vote(m, active)
    for round_index in range(settings.rounds):
        penalty, max_radius = annealing(round_index, settings, side=max(m.error.shape))
        annealed = m._replace(uniformity_penalty=m.uniformity_penalty * penalty)
        moved = np.zeros_like(active)
        for sweep_index in range(settings.sweeps):
            changed = np.zeros_like(active)
            number = round_index * settings.sweeps + sweep_index
            step = 1 - 2 * (number % 2)
            pm.sweep(annealed, active, changed, step, seed + 101 * number, search_above, max_radius)
            moved |= changed
            active = _with_neighbours(changed)
        # A match that moves changes colours up to 2 pixels away and errors up to 4 pixels away, so in its own tile
        # and at most the adjacent ones.
        active = _with_neighbours(moved)
        _vote(m, active)


def annealing(round_index: int, settings: PropagationSettings, *, side: int) -> tuple[float, int]:
    """Return a round's fraction of the uniformity penalty, and the radius of its widest search window in pixels."""
    if settings.schedule == "published":
        return 1.0, side
    left = 1 - round_index / settings.rounds
    return max(left - 1 / settings.rounds, 0) * settings.rounds / max(settings.rounds - 1, 1), round(side**left)


def _with_neighbours(tiles: Tiles) -> Tiles:
    """Return the tiles that are set or touch one that is."""
    grown: Tiles = cv2.dilate(tiles.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return grown


def _vote(m: pm.Matching, active: Tiles) -> None:
    """Paint the active tiles and compute the errors of their matches on the new image."""
    pm.vote(m, active)
    _repeat_border(m.target.reshape(m.target.shape[0], -1, pm.CHANNELS)[..., :3])
    pm.match_errors(m, active)


def _repeat_border(padded: Shorts) -> None:
    """Refresh the two repeated rows and columns on each side, in place."""
    r = pm.RADIUS
    padded[:r], padded[-r:] = padded[r], padded[-r - 1]
    padded[:, :r], padded[:, -r:] = padded[:, r : r + 1], padded[:, -r - 1 : -r]


def _result(m: pm.Matching, exemplar: Exemplar, guides: tuple[Floats, ...]) -> Synthesis:
    """Vote and compute the errors once more, without the rounding to packed integers."""
    image, seen = (_painted(m, source) for source in exemplar.images[:2])
    error = np.zeros_like(m.error)
    pairs = zip(_weights(exemplar.settings), exemplar.images, (image, *guides), strict=True)
    for weight, source, target in pairs:
        pm.add_errors(m.nearest, _flat(_padded(source)), _flat(_padded(target)), weight / 3, error)
    matches = torch.from_numpy(m.nearest).permute(2, 0, 1).flip(0)[None].float()
    return Synthesis(_to_tensor(image), torch.from_numpy(error)[None], matches, _to_tensor(seen))


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


def _to_array(image: Float32[Tensor, "1 3 height width"]) -> Floats:
    """Return an image as (height, width, 3)."""
    merged: Floats = cv2.merge(list(image[0].numpy()))  # ten times as fast as torch's copy
    return merged


def _to_tensor(image: Floats) -> Float32[Tensor, "1 3 height width"]:
    return torch.from_numpy(image).permute(2, 0, 1)[None].contiguous()


def _weights(settings: PropagationSettings) -> tuple[float, ...]:
    """Return the weights of the style and of the four guides, in their order."""
    guides = settings.colour_weight, settings.edge_weight, settings.temporal_weight, settings.position_weight
    return tuple(float(weight) for weight in (settings.style_weight, *guides))


def _scales(settings: PropagationSettings) -> tuple[float, ...]:
    """Return the factors by which style and guides are packed.

    They are proportional to the roots of the weights, so that plain squares carry the weights, and map 255 to at most
    `PACKED_MAX`.
    """
    roots = [sqrt(weight) for weight in _weights(settings)]
    return tuple(pm.PACKED_MAX / 255 / max(roots) * root for root in roots)


def _error_unit(settings: PropagationSettings) -> float:
    """Return by how much to multiply an error in packed units for the units of the settings."""
    return settings.style_weight / 3 / _scales(settings)[0] ** 2


def _pyramid(
    images: Sequence[Floats], sizes: Sequence[tuple[int, int]], *, settings: PropagationSettings
) -> list[Shorts]:
    """Return the channels of style and guides packed at every size, each reduced from the one before by area.

    Four channels at a time, the most that OpenCV resizes at once; all sixteen in floats would need the most memory.
    """
    r = pm.RADIUS
    packed = [np.zeros((height + 2 * r, width + 2 * r, pm.CHANNELS), np.int16) for height, width in sizes]
    for first, planes in _scaled_planes(images, settings):
        for level, (height, width) in zip(packed, sizes, strict=True):
            if planes.shape[:2] != (height, width):
                planes = cv2.resize(planes, (width, height), interpolation=cv2.INTER_AREA)
            level[r:-r, r:-r, first : first + 4] = np.rint(planes)
    for level in packed:
        _repeat_border(level)
    return [level.reshape(level.shape[0], -1) for level in packed]


def _scaled_planes(images: Sequence[Floats], settings: PropagationSettings) -> Iterator[tuple[int, Floats]]:
    """Yield the number of the first of every four channels, and these, scaled for packing, (height, width, 4)."""
    scaled = zip(images, _scales(settings), strict=True)
    channels = [(image[..., k], np.float32(scale)) for image, scale in scaled for k in range(3)]
    for first in range(0, pm.CHANNELS, 4):
        planes = np.zeros((*images[0].shape[:2], 4), np.float32)
        for place, (plane, scale) in enumerate(channels[first : first + 4]):
            np.multiply(plane, scale, out=planes[..., place])
        yield first, np.clip(planes, 0, pm.PACKED_MAX, out=planes)


def _level(packed: Shorts) -> _Level:
    return _Level(packed, packed.reshape(packed.shape[0], -1, pm.CHANNELS)[..., :4].copy())


def _matching(level: _Level, target: Shorts, nearest: Ints, settings: PropagationSettings) -> pm.Matching:
    height, width = nearest.shape[:2]
    r = pm.OVERLAP_RADIUS
    return pm.Matching(
        source=level.packed,
        target=target,
        style=level.style,
        nearest=nearest,
        error=np.zeros((height, width), np.float32),
        usage=np.zeros((height + 2 * r, width + 2 * r), np.int32),
        border_correction_rows=_border_correction(height),
        border_correction_columns=_border_correction(width),
        # A patch that every pixel around it uses once has a usage of 25 * 25.
        uniformity_penalty=settings.uniformity / _error_unit(settings) / pm.PATCH**4,
    )


def _border_correction(count: int) -> Floats:
    """Return the factor, at least 1, that compensates for the overlap cut off by the border, along one axis."""
    overlap = pm.PATCH - np.abs(np.arange(-pm.OVERLAP_RADIUS, pm.OVERLAP_RADIUS + 1))
    possible = np.convolve(np.ones(count), overlap)[pm.OVERLAP_RADIUS : pm.OVERLAP_RADIUS + count]
    factors: Floats = (overlap.sum() / possible).astype(np.float32)
    return factors


def _at_size(start: Float32[np.ndarray, "2 height width"], size: tuple[int, int]) -> Ints:
    """Return positions in the keyframe as matches (row, column) on a grid of another size."""
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
