"""Contact sheets of an interval: what either keyframe paints, how well it fits, and what becomes of both."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from storage.files import write_atomic
from tasks.errors import TaskInputError
from tasks.evaluation.bench.figures import Figure
from tasks.evaluation.comparison import Measure
from wave_ops.metrics import psnr
from wave_ops.preview import contact_sheet
from wave_ops.propagation import Candidate, KeyframeInterval, fuse_candidates, paint_candidates
from wave_ops.resize import to_images

__all__ = ["check_sheets", "sheet_figures"]

Frames = NDArray[np.uint8]

_PSNR = Measure(name="PSNR to true edit", unit="dB", better="higher")
_CELL_SIDE: Final = 320
_COLOURED: Final = (2.0, 6.0)
"""Powers of ten of the patch error that are shown as black and as the brightest colour."""


def check_sheets(folder: Path | None, names: Sequence[str]) -> None:
    """Check, before anything is measured, that sheets of these names can be written.

    Raises:
        TaskInputError: the folder cannot be made, or two sheets would have one name.
    """
    if len(set(names)) != len(names):
        raise TaskInputError(f"Clips need different names, got {', '.join(names)}.")
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TaskInputError(f"The folder {folder} for sheets cannot be made: {error.strerror}.") from error


def sheet_figures(source: Callable[[], tuple[KeyframeInterval, Frames]], *, name: str, path: Path) -> Iterator[Figure]:
    """Draw an interval's contact sheet, written as a whole, and tell how near the frames between come to a true edit.

    Args:
        source: gives the interval, and its frames as they should become.
        name: of what is shown.
        path: the PNG.

    Raises:
        TaskInputError: it cannot be written.
    """
    interval, wanted = source()
    pairs = paint_candidates(
        interval.frames,
        first=interval.first,
        last=interval.last,
        flows_to_prev=interval.to_prev,
        flows_to_cur=interval.to_cur,
    )
    fused = np.stack(list(fuse_candidates(pairs, flows_to_prev=interval.to_prev, flows_to_cur=interval.to_cur)))
    sheet = contact_sheet(_rows(interval, wanted, pairs, fused), columns=len(wanted), cell_side=_CELL_SIDE)
    try:
        write_atomic(path, _png(sheet))
    except OSError as error:
        raise TaskInputError(f"The sheet {path} cannot be written: {error.strerror}.") from error
    yield Figure(measure=_PSNR, subject=name, value=float(psnr(to_images(fused), to_images(wanted[1:-1])).mean()))


def _rows(
    interval: KeyframeInterval, wanted: Frames, pairs: Sequence[tuple[Candidate, Candidate]], fused: Frames
) -> dict[str, Frames]:
    """Lay out all frames of the interval; both keyframes stand for themselves in every row."""
    ends = interval.first[None], interval.last[None]
    early, late = zip(*pairs, strict=True)
    low, high = _COLOURED
    scale = f"patch error, 1e{low:.0f} black to 1e{high:.0f}"
    return {
        "source": interval.frames,
        "edited frame by frame": wanted,
        "from the earlier keyframe": _between(ends, [_rounded(candidate.image) for candidate in early]),
        "from the later keyframe": _between(ends, [_rounded(candidate.image) for candidate in late]),
        "selected, blended, fused": _between(ends, fused),
        f"earlier: {scale}": _between(ends, [_coloured(candidate.error) for candidate in early]),
        f"later: {scale}": _between(ends, [_coloured(candidate.error) for candidate in late]),
    }


def _between(ends: tuple[Frames, Frames], frames: Sequence[Frames] | Frames) -> Frames:
    return np.concatenate((ends[0], np.stack(list(frames)), ends[1]))


def _rounded(image: NDArray[np.floating]) -> Frames:
    rounded: Frames = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return rounded


def _coloured(error: NDArray[np.float32]) -> Frames:
    """Show errors on a logarithmic scale."""
    low, high = _COLOURED
    levels = (np.log10(np.maximum(error, 1)) - low) / (high - low)
    return np.ascontiguousarray(cv2.applyColorMap(_rounded(255 * levels), cv2.COLORMAP_INFERNO)[..., ::-1])


def _png(image: Frames) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()
