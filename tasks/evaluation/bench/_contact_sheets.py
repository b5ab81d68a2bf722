"""Contact sheets of an interval: the candidates of both keyframes, their errors, and the fused frames."""

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
from tasks.evaluation.bench.measurements import Measurement
from tasks.evaluation.comparisons.comparison import Measure
from wave_ops.metrics import psnr
from wave_ops.preview import contact_sheet
from wave_ops.propagation import Candidate, KeyframeInterval, fuse_candidates, paint_candidates
from wave_ops.resize import to_images

__all__ = ["check_contact_sheets", "draw_contact_sheet"]

Frames = NDArray[np.uint8]

_PSNR = Measure(name="PSNR to true edit", unit="dB", better="higher")
_CELL_SIDE: Final = 320
_ERROR_RANGE: Final = (2.0, 6.0)
"""Decimal logarithms of the patch error shown in black and in the brightest colour."""


def check_contact_sheets(folder: Path | None, names: Sequence[str]) -> None:
    """Check that contact sheets of these names can be written, before anything is measured.

    Raises:
        TaskInputError: if the folder cannot be created, or two sheets would have the same name.
    """
    if len(set(names)) != len(names):
        raise TaskInputError(f"Videos need different file names for their contact sheets, got {', '.join(names)}.")
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TaskInputError(f"The folder {folder} for contact sheets cannot be created: {error.strerror}.") from error


def draw_contact_sheet(
    source: Callable[[], tuple[KeyframeInterval, Frames]], *, name: str, path: Path
) -> Iterator[Measurement]:
    """Draw an interval's contact sheet, write it atomically, and measure the PSNR of the frames between its keyframes.

    Args:
        source: returns the interval, and its frames after the true edit.
        name: the subject of the measurement.
        path: the PNG.

    Raises:
        TaskInputError: if it cannot be written.
    """
    interval, truth = source()
    pairs = paint_candidates(
        interval.frames,
        first=interval.first,
        last=interval.last,
        flows_to_prev=interval.to_prev,
        flows_to_cur=interval.to_cur,
    )
    fused = np.stack(list(fuse_candidates(pairs, flows_to_prev=interval.to_prev, flows_to_cur=interval.to_cur)))
    sheet = contact_sheet(_rows(interval, truth, pairs, fused), columns=len(truth), cell_side=_CELL_SIDE)
    try:
        write_atomic(path, _png(sheet))
    except OSError as error:
        raise TaskInputError(f"The contact sheet {path} cannot be written: {error.strerror}.") from error
    yield Measurement(measure=_PSNR, subject=name, value=float(psnr(to_images(fused), to_images(truth[1:-1])).mean()))


def _rows(
    interval: KeyframeInterval, truth: Frames, pairs: Sequence[tuple[Candidate, Candidate]], fused: Frames
) -> dict[str, Frames]:
    """Return the rows of the sheet: all frames of the interval, with the keyframes themselves at both ends."""
    ends = interval.first[None], interval.last[None]
    early, late = zip(*pairs, strict=True)
    low, high = _ERROR_RANGE
    scale = f"patch error, 1e{low:.0f} black to 1e{high:.0f}"
    return {
        "source": interval.frames,
        "edited frame by frame": truth,
        "from the earlier keyframe": _between(ends, [_painted(candidate) for candidate in early]),
        "from the later keyframe": _between(ends, [_painted(candidate) for candidate in late]),
        "selected, blended, fused": _between(ends, fused),
        f"earlier: {scale}": _between(ends, [_coloured(candidate.error.numpy()) for candidate in early]),
        f"later: {scale}": _between(ends, [_coloured(candidate.error.numpy()) for candidate in late]),
    }


def _between(ends: tuple[Frames, Frames], frames: Sequence[Frames] | Frames) -> Frames:
    return np.concatenate((ends[0], np.stack(list(frames)), ends[1]))


def _painted(candidate: Candidate) -> Frames:
    return _rounded(candidate.image.movedim(0, -1).numpy())


def _rounded(image: NDArray[np.floating]) -> Frames:
    rounded: Frames = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return rounded


def _coloured(error: NDArray[np.float32]) -> Frames:
    """Colour errors on a logarithmic scale."""
    low, high = _ERROR_RANGE
    levels = (np.log10(np.maximum(error, 1)) - low) / (high - low)
    return np.ascontiguousarray(cv2.applyColorMap(_rounded(255 * levels), cv2.COLORMAP_INFERNO)[..., ::-1])


def _png(image: Frames) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()
