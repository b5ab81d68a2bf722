"""Where the pixels of images of one size lie in memory, and whom each asks for better matches."""

from __future__ import annotations

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["CHANNELS", "PATCH", "RADIUS", "Grid"]

PATCH = 5
RADIUS = 2
CHANNELS = 16
_TILE = 16  # pixels are searched, or known to have settled, in tiles of this side
_JUMPS = (2, 4, 8)  # how far matches are passed on, besides from neighbour to neighbour
_DIRECTIONS = ((0, -1), (0, 1), (-1, 0), (1, 0))


class Grid:
    """What stays the same for all frames of one size.

    A place is a number: that of a pixel in a batch of images with their borders repeated twice on each side, counted
    row by row. Neighbouring rows are `stride` apart, so what lies beside a place is found by one addition. A sum may
    end beside the image, on repeated pixels or in another row: the former are priced out of reach, the latter is as
    good a guess as any.
    """

    def __init__(self, batch: int, size: tuple[int, int], *, seed: int, device: torch.device) -> None:
        height, width = size
        self.batch, self.size, self.device, self.pixels = batch, size, device, height * width
        self.stride = width + 2 * RADIUS
        self.padded = (height + 2 * RADIUS) * self.stride
        number = torch.arange(self.pixels, device=device, dtype=torch.int32)
        self.rows, self.columns = number // width, number % width
        self.exemplar = number.new_tensor(range(batch)).view(batch, 1, 1)
        self.here = self.place(self.rows, self.columns)
        """(batch, 1, pixel) int32: each pixel's own place."""
        self.first, self.last = self.here[..., :1], self.here[..., -1:]
        near = number.new_tensor(range(-RADIUS, RADIUS + 1))
        self.patch_rows = near * self.stride - RADIUS
        """From a place to the beginning of each row of its patch."""
        self.middle_row, self.other_rows = self.patch_rows[RADIUS : RADIUS + 1], self.patch_rows[near != 0]
        self.patch = (near[:, None] * self.stride + near).flatten()
        """From a place to each pixel of its patch."""
        self.fair = F.pad(torch.outer(_fair(height, device), _fair(width, device)), [RADIUS] * 4).repeat(batch, 1)
        """(batch * padded height, stride): makes up for the overlap that the border cuts off."""
        self.beside_image = torch.where(self.fair > 0, 0.0, torch.inf)
        self.overlap = self._overlaps()
        self._tile = self.rows // _TILE * -(-width // _TILE) + self.columns // _TILE
        self._ones = torch.ones(batch * self.pixels, device=device)
        self._around = [self._neighbours((1, jump)) for jump in _JUMPS]
        self._radii = [max(size) >> i for i in range(max(size).bit_length())]
        self._ways = self._random_ways(seed)
        self._seed = seed

    def place(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the place, (batch, 1, pixel), of the pixel nearest to each row and column."""
        row = rows.round().clamp(0, self.size[0] - 1).int() + RADIUS
        column = columns.round().clamp(0, self.size[1] - 1).int() + RADIUS
        return row * self.stride + column + self.exemplar * self.padded

    def coordinates(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Return row and column of places."""
        inside = places - self.exemplar * self.padded
        return inside // self.stride - RADIUS, inside % self.stride - RADIUS

    def uses(self, nearest: Tensor) -> Tensor:
        """Count how much the matched patches overlap the patch at each place, the border made up for; flat."""
        # Whole numbers of single precision: their sum does not depend on the order.
        counts = torch.zeros(self.batch * self.padded, device=self.device)
        counts.index_add_(0, nearest.flatten(), self._ones)
        # Two patches overlap in the sum over one patch of the sum over another.
        overlap = counts.view(self.batch, 1, -1, self.stride)
        for _ in range(2):
            overlap = F.avg_pool2d(overlap, PATCH, stride=1, padding=RADIUS, divisor_override=1)
        return overlap.flatten()

    def overlap_index(self, places: Tensor, others: Tensor) -> Tensor:
        """Return where `overlap` tells in how many pixels the patches at two places overlap, flat."""
        far = len(self.overlap) // 2
        return (places - (others - far)).clamp_(0, 2 * far).flatten()

    def passed_on(self, nearest: Tensor, number: int) -> Tensor:
        """Return the matches of each pixel's neighbours, moved along with it, (batch, candidate, pixel)."""
        neighbours, way = self._around[number % len(self._around)]
        return nearest.flatten().index_select(0, neighbours).view(self.batch, -1, self.pixels) + way

    def random_ways(self, number: int, reach: int) -> Tensor:
        """Return steps to random places, (1, candidate, pixel), from at most `reach` pixels away to next door."""
        # Every pass reads the random numbers from another place on.
        start = (self._seed * 40503 + number * 0x9E3779B1) % self.pixels
        wider = sum(radius > reach for radius in self._radii)
        return self._ways[None, wider:, start : start + self.pixels]

    def random_places(self) -> Tensor:
        """Return a random place for each pixel, (batch, 1, pixel)."""
        noise = _noise((2, self.pixels), seed=self._seed, device=self.device) + 0.5
        return self.place(noise[0] * (self.size[0] - 1), noise[1] * (self.size[1] - 1))

    def tiles_beside(self, changed: Tensor) -> Tensor:
        """Return (batch, 1, pixel) True in all tiles that hold a change or touch one that does."""
        tiles = F.max_pool2d(changed.view(self.batch, 1, *self.size).float(), _TILE, ceil_mode=True)
        grown = F.max_pool2d(tiles, 3, stride=1, padding=1) > 0
        return grown.view(self.batch, 1, -1).index_select(2, self._tile)

    def _overlaps(self) -> Tensor:
        """Tabulate the overlap of two patches by the difference of their places; 0 at both ends."""
        far = 4 * self.stride + 5
        difference = torch.arange(-far, far + 1, device=self.device)
        rows = (difference + self.stride // 2).div(self.stride, rounding_mode="floor")
        columns = difference - rows * self.stride
        overlap: Tensor = (PATCH - rows.abs()).clamp_(min=0) * (PATCH - columns.abs()).clamp_(min=0)
        return overlap.float()

    def _neighbours(self, steps: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Return which pixels each pixel asks, flat (batch, candidate, pixel), and the way back from them.

        What would lie beside the image is its border.
        """
        own = self.here[0, 0]
        pixels = []
        for down, across in ((step * down, step * across) for step in steps for down, across in _DIRECTIONS):
            row = (self.rows + down).clamp(0, self.size[0] - 1)
            pixels.append(row * self.size[1] + (self.columns + across).clamp(0, self.size[1] - 1))
        asked = torch.stack(pixels)
        way = own - own.index_select(0, asked.flatten()).view_as(asked)
        return (asked + self.exemplar * self.pixels).flatten(), way

    def _random_ways(self, seed: int) -> Tensor:
        """Return random steps in windows of halving size, (window, 2 * pixel); the second half repeats the first."""
        radii = torch.tensor(self._radii, device=self.device)
        noise = _noise((2, len(radii), self.pixels), seed=seed, device=self.device)
        down, across = (noise * (2 * radii[:, None] + 0.999)).round_().int()
        ways: Tensor = down * self.stride + across
        return ways.repeat(1, 2)


def _fair(count: int, device: torch.device) -> Tensor:
    """Return by how much the border cuts the overlap of a patch at each place, as a factor of at least 1."""
    patch = torch.ones(1, 1, PATCH, device=device)
    cut = F.conv1d(F.conv1d(patch.new_ones(1, 1, count), patch, padding=2 * RADIUS), patch)
    fair: Tensor = PATCH**2 / cut.flatten()
    return fair


def _noise(shape: tuple[int, ...], *, seed: int, device: torch.device) -> Tensor:
    """Return random numbers of -0.5 to 0.5 that depend on seed and place only (murmur's finalizer)."""
    bits = torch.arange(prod(shape), device=device) * 0x9E3779B1 + seed
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        bits = bits & 0xFFFFFFFF
        bits = (bits ^ (bits >> shift)) * factor
    bits = bits & 0xFFFFFFFF
    return ((bits ^ (bits >> 16)).double() / 2**32 - 0.5).float().view(shape)
