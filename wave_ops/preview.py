"""Contact sheets and side-by-side clips, for people to look at."""

from __future__ import annotations

import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from math import ceil

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from wave_ops.errors import WaveOpsError
from wave_ops.resize import resize_frames

__all__ = ["contact_sheet", "side_by_side"]

Frames = NDArray[np.uint8]

_GAP = 6
_TEXT_SIZE = 18
_MOST_LETTERS = 2000  # more than any sheet is wide
_TEXT_HEIGHT = 28
_BACKGROUND = 250
_TEXT_COLOUR = (30, 30, 30)
# Frames side by side that are lower than this are enlarged by a whole factor.
_LEGIBLE_HEIGHT = 256


def contact_sheet(
    rows: Mapping[str, Frames],
    *,
    columns: int = 8,
    frame_indices: Sequence[int] | None = None,
    frame_numbers: Sequence[int] | None = None,
    cell_side: int = 192,
) -> Frames:
    """Draw one labelled row per clip, the same frames of all clips in one column, with frame numbers on top.

    Args:
        rows: label to frames, uint8 (time, height, width, 3); all of one length, sizes may differ.
        columns: the most frames to show, spread evenly from the first to the last.
        frame_indices: the frames to show instead.
        frame_numbers: the numbers of the frames in their clip, where `rows` has only the frames to show.
        cell_side: the longer side of a cell, pixels. Smaller frames are enlarged by a whole factor, without
            interpolation, larger ones are shrunk by area.

    Returns:
        One uint8 image (height, width, 3).

    Raises:
        WaveOpsError: there is no row or column, the lengths differ, or a frame index is out of range.
    """
    count = _common_length(rows)
    if frame_numbers is not None:
        frame_indices = range(count)
    chosen = _spread(count, columns) if frame_indices is None else tuple(frame_indices)
    if not chosen or min(chosen) < 0 or max(chosen) >= count:
        raise WaveOpsError(f"expected frame indices between 0 and {count - 1}, at least one, got {chosen}")
    if cell_side < 16:
        raise WaveOpsError(f"expected cells of at least 16 pixels, got {cell_side}")
    strips = [_fit(frames[list(chosen)], cell_side) for frames in rows.values()]
    cell_width = max(strip.shape[2] for strip in strips)
    shown = chosen if frame_numbers is None else tuple(frame_numbers)
    if len(shown) != len(chosen):
        raise WaveOpsError(f"expected {len(chosen)} frame numbers, one for each frame, got {len(shown)}")
    numbers = [f"frame {number}" if cell_width >= 96 else str(number) for number in shown]
    bands = [_text_band(numbers, cell_width)]
    for label, strip in zip(rows, strips, strict=True):
        bands += [_text_band([label], len(chosen) * (cell_width + _GAP) - _GAP), _picture_band(strip, cell_width)]
    return _margin(np.concatenate(bands))


def side_by_side(left: Frames, right: Frames) -> Frames:
    """Draw two clips next to each other, frame by frame; the right one is resized to the left one's height.

    Low frames are enlarged by a whole factor to at least 256 pixels, without interpolation. Frames do not depend on
    each other, so a long clip can be drawn in pieces.

    Args:
        left: uint8 (time, height, width, 3).
        right: the same length, any size.

    Returns:
        uint8 (time, height, width, 3), both sides even.

    Raises:
        WaveOpsError: the lengths differ, or the clips are not uint8 with four axes.
    """
    _common_length({"left": left, "right": right})
    height = left.shape[1]
    right = resize_frames(right, (height, max(1, round(right.shape[2] * height / right.shape[1]))))
    gap = np.full((len(left), height, max(2, height // 32), 3), _BACKGROUND, np.uint8)
    pair = _enlarge(np.concatenate((left, gap, right), axis=2), ceil(_LEGIBLE_HEIGHT / height))
    return np.pad(pair, ((0, 0), (0, pair.shape[1] % 2), (0, pair.shape[2] % 2), (0, 0)), mode="edge")


def _common_length(rows: Mapping[str, Frames]) -> int:
    for label, frames in rows.items():
        if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
            raise WaveOpsError(
                f"expected uint8 frames (time, height, width, 3) as {label!r}, got {frames.shape} of {frames.dtype}"
            )
    lengths = {len(frames) for frames in rows.values()}
    if len(lengths) != 1 or 0 in lengths:
        raise WaveOpsError(f"expected at least one clip, all of one length, got lengths {sorted(lengths)}")
    return lengths.pop()


def _spread(count: int, columns: int) -> tuple[int, ...]:
    """Choose frames at even distances, including the first and the last."""
    if columns < 1:
        raise WaveOpsError(f"expected at least 1 column, got {columns}")
    return tuple(int(index) for index in np.linspace(0, count - 1, min(count, columns)).round())


def _fit(frames: Frames, side: int) -> Frames:
    height, width = frames.shape[1:3]
    longer = max(height, width)
    if longer <= side:
        return _enlarge(frames, side // longer)
    return resize_frames(frames, (max(1, round(height * side / longer)), max(1, round(width * side / longer))))


def _enlarge(frames: Frames, factor: int) -> Frames:
    return frames.repeat(factor, axis=1).repeat(factor, axis=2) if factor > 1 else frames


def _picture_band(strip: Frames, cell_width: int) -> Frames:
    """Put the frames of a strip in a row, each in the middle of its cell."""
    left = (cell_width - strip.shape[2]) // 2
    right = cell_width - strip.shape[2] - left + _GAP
    cells = np.pad(strip, ((0, 0), (0, 0), (left, right), (0, 0)), constant_values=_BACKGROUND)
    return np.concatenate(list(cells), axis=1)[:, :-_GAP]


def _text_band(texts: Sequence[str], cell_width: int) -> Frames:
    """Write one text per cell, from its left edge on, shortened to the cell's width."""
    font = ImageFont.load_default(_TEXT_SIZE)
    width = len(texts) * (cell_width + _GAP) - _GAP
    band = Image.new("RGB", (width, _TEXT_HEIGHT), (_BACKGROUND,) * 3)
    draw = ImageDraw.Draw(band)
    for place, text in enumerate(texts):
        shown = _shortened(_plain(text), lambda shown: draw.textlength(shown, font=font) <= cell_width)
        draw.text((place * (cell_width + _GAP), _TEXT_HEIGHT // 2), shown, fill=_TEXT_COLOUR, font=font, anchor="lm")
    return np.array(band, dtype=np.uint8)


def _shortened(text: str, fits: Callable[[str], bool]) -> str:
    """Return as much of a text as fits, found by bisection, since a prompt may have thousands of letters."""
    if not text or (len(text) <= _MOST_LETTERS and fits(text)):
        return text
    counts = range(1, min(len(text), _MOST_LETTERS) + 1)
    kept = bisect_left(counts, True, key=lambda count: not fits(f"{text[:count]}..."))
    return f"{text[:kept]}..."


def _plain(text: str) -> str:
    """Reduce a text to one line of the letters that Pillow's built-in font has: "Bär" becomes "Bar"."""
    decomposed = unicodedata.normalize("NFKD", " ".join(text.split()))
    letters = (letter for letter in decomposed if not unicodedata.combining(letter))
    return "".join(letters).encode("ascii", "replace").decode()


def _margin(sheet: Frames) -> Frames:
    return np.pad(sheet, ((2, 10), (10, 10), (0, 0)), constant_values=_BACKGROUND)
