"""Memory layout of the images of one size, and where each pixel's candidates come from."""

from __future__ import annotations

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from wave_ops.propagation.patch_match import PATCH, RADIUS, TILE

__all__ = ["Grid"]

_JUMPS = (2, 4, 8)  # distances at which matches are propagated, in addition to direct neighbours
_DIRECTIONS = ((0, -1), (0, 1), (-1, 0), (1, 0))  # rows down, columns across


class Grid:
    """Constants that all frames of one size have in common.

    A place is one number: the flat index of a pixel in a batch of padded images, with the border repeated twice on each
    side. Neighbouring rows are `stride` apart, so an offset in rows and columns is a single number too, and a candidate
    is found by one addition without regard to the border. The sum may be outside the image, on the padding or in
    another row: the former has an infinite penalty, the latter is as good a guess as any.
    """

    def __init__(self, batch: int, size: tuple[int, int], *, seed: int, device: torch.device) -> None:
        height, width = size
        self.batch, self.size, self.device, self.pixels = batch, size, device, height * width
        self.stride = width + 2 * RADIUS
        self.padded = (height + 2 * RADIUS) * self.stride
        number = torch.arange(self.pixels, device=device, dtype=torch.int32)
        self.rows, self.columns = number // width, number % width
        self.exemplar = number.new_tensor(range(batch)).view(batch, 1, 1)
        self.own_place = self.place(self.rows, self.columns)
        """(batch, 1, pixel) int32: the place of each pixel."""
        self.first, self.last = self.own_place[..., :1], self.own_place[..., -1:]
        near = number.new_tensor(range(-RADIUS, RADIUS + 1))
        self.patch_rows = near * self.stride - RADIUS
        """Offsets from a place to the beginning of each row of its patch."""
        self.middle_row, self.other_rows = self.patch_rows[RADIUS : RADIUS + 1], self.patch_rows[near != 0]
        self.patch = (near[:, None] * self.stride + near).flatten()
        """Offsets from a place to each pixel of its patch."""
        border_correction = torch.outer(_border_correction(height, device), _border_correction(width, device))
        self.border_correction = F.pad(border_correction, [RADIUS] * 4).repeat(batch, 1)
        """(batch * padded height, stride): compensates for the overlap that the border cuts off; 0 on the padding."""
        self.padding_penalty = torch.where(self.border_correction > 0, 0.0, torch.inf)
        self.overlap = self._overlaps()
        self._tile = self.rows // TILE * -(-width // TILE) + self.columns // TILE
        self._ones = torch.ones(batch * self.pixels, device=device)
        self._neighbourhoods = [self._neighbours((1, jump)) for jump in _JUMPS]
        self._radii = [max(size) >> i for i in range(max(size).bit_length())]
        self._random_offsets = self._draw_offsets(seed)
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

    def usage(self, nearest: Tensor) -> Tensor:
        """Return by how many pixels the matched patches overlap the patch at each place, flat."""
        # Integers in single precision: their sum does not depend on the order, which differs from run to run on a GPU.
        counts = torch.zeros(self.batch * self.padded, device=self.device)
        counts.index_add_(0, nearest.flatten(), self._ones)
        # The overlap with all matched patches: the matches counted over one patch, and these sums over another.
        overlap = counts.view(self.batch, 1, -1, self.stride)
        for _ in range(2):
            overlap = F.avg_pool2d(overlap, PATCH, stride=1, padding=RADIUS, divisor_override=1)
        return overlap.flatten()

    def overlap_index(self, places: Tensor, others: Tensor) -> Tensor:
        """Return the index into `overlap` for the patches at pairs of places, flat."""
        far = len(self.overlap) // 2
        return (places - (others - far)).clamp_(0, 2 * far).flatten()

    def neighbour_matches(self, nearest: Tensor, number: int) -> Tensor:
        """Return the matches of each pixel's neighbours, shifted by their distance, (batch, candidate, pixel).

        Args:
            nearest: the matches.
            number: of the pass; passes take turns at the distances of neighbours.
        """
        neighbours, offsets = self._neighbourhoods[number % len(self._neighbourhoods)]
        return nearest.flatten().index_select(0, neighbours).view(self.batch, -1, self.pixels) + offsets

    def random_offsets(self, number: int, max_radius: int) -> Tensor:
        """Return random offsets, (1, candidate, pixel), in windows that halve from `max_radius` to 1 pixel each side.

        Args:
            number: of the pass; each reads the table of random numbers from another start.
            max_radius: pixels.
        """
        start = (self._seed * 40503 + number * 0x9E3779B1) % self.pixels
        wider = sum(radius > max_radius for radius in self._radii)
        return self._random_offsets[None, wider:, start : start + self.pixels]

    def random_places(self) -> Tensor:
        """Return a random place for each pixel, (batch, 1, pixel)."""
        noise = _noise((2, self.pixels), seed=self._seed, device=self.device) + 0.5
        return self.place(noise[0] * (self.size[0] - 1), noise[1] * (self.size[1] - 1))

    def tiles_around(self, changed: Tensor) -> Tensor:
        """Return (batch, 1, pixel) True in all tiles with a change and the tiles that touch one."""
        tiles = F.max_pool2d(changed.view(self.batch, 1, *self.size).float(), TILE, ceil_mode=True)
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

    def _neighbours(self, distances: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Return each pixel's neighbours, flat (batch, candidate, pixel), and the offsets back from them.

        A neighbour outside the image is replaced by the pixel on the border.
        """
        own = self.own_place[0, 0]
        steps = own.new_tensor([(far * down, far * across) for far in distances for down, across in _DIRECTIONS])
        rows = (self.rows + steps[:, :1]).clamp_(0, self.size[0] - 1)
        columns = (self.columns + steps[:, 1:]).clamp_(0, self.size[1] - 1)
        neighbours = rows * self.size[1] + columns
        offsets = own - own.index_select(0, neighbours.flatten()).view_as(neighbours)
        return (neighbours + self.exemplar * self.pixels).flatten(), offsets

    def _draw_offsets(self, seed: int) -> Tensor:
        """Return random offsets in windows of halving size, (window, 2 * pixel).

        The second half repeats the first, so that a slice from any start has one offset for each pixel.
        """
        radii = torch.tensor(self._radii, device=self.device)
        noise = _noise((2, len(radii), self.pixels), seed=seed, device=self.device)
        down, across = (noise * (2 * radii[:, None] + 0.999)).round_().int()
        offsets: Tensor = down * self.stride + across
        return offsets.repeat(1, 2)


def _border_correction(count: int, device: torch.device) -> Tensor:
    """Return the factor, at least 1, that compensates for the overlap cut off by the border, along one axis."""
    patch = torch.ones(1, 1, PATCH, device=device)
    possible = F.conv1d(F.conv1d(patch.new_ones(1, 1, count), patch, padding=2 * RADIUS), patch)
    factors: Tensor = PATCH**2 / possible.flatten()
    return factors


def _noise(shape: tuple[int, ...], *, seed: int, device: torch.device) -> Tensor:
    """Return random numbers of -0.5 to 0.5 that depend on seed and place only (murmur's finalizer).

    torch's generators draw other numbers on a GPU than on the CPU.
    """
    bits = torch.arange(prod(shape), device=device) * 0x9E3779B1 + seed
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        bits = bits & 0xFFFFFFFF
        bits = (bits ^ (bits >> shift)) * factor
    bits = bits & 0xFFFFFFFF
    return ((bits ^ (bits >> 16)).double() / 2**32 - 0.5).float().view(shape)
