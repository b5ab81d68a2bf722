"""Detection of cuts between shots, by block matching of thumbnails."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from wave_ops.errors import WaveOpsError
from wave_ops.transitions import Transition, TransitionFinder

__all__ = ["detect_cuts"]

# Thumbnails are square for any aspect: 36 blocks of 8 x 8, each searched for within a fifth of the frame.
_SIDE = 48
_BLOCK = 8
_SEARCH_RADIUS = 10
# On [0, 1]. Measured on real clips: the fastest motion at 25 frames per second has a mean of 0.039 and a third of the
# blocks lost, the weakest cut has 0.072 and three quarters.
_LOST_RESIDUAL = 0.05
_CUT_RESIDUAL = 0.06
_CUT_LOST_FRACTION = 0.65
# A flash or a corrupt frame lasts at most this many frames, then the picture returns.
_FLASH_FRAMES = 3

Thumbnail = NDArray[np.float32]


class _Suspect(NamedTuple):
    """A frame that differs from the one before; a cut unless that one's picture returns soon."""

    frame_index: int
    before: Thumbnail


def detect_cuts(frames: Iterable[NDArray[np.uint8]]) -> tuple[int, ...]:
    """Return the first frame index of each shot after the first, ascending.

    There is a cut between two frames if the blocks of the second's thumbnail are not found anywhere near in the
    first's: the mean of the blocks' best residuals is above 0.06 on [0, 1], and more than 65 % of the blocks are above
    0.05. Motion of up to a fifth of the frame between two frames is thus not a cut. Neither is a flash, after which
    the previous picture returns within 3 frames. Of a dissolve or a fade between two shots, see `TransitionFinder`, the
    middle is the cut. Cuts between similar pictures are not detected.

    Source: ours; the thresholds were set on real clips with known cuts.

    Args:
        frames: uint8 (height, width, 3), all frames of a clip in order; read once, only thumbnails are stored.

    Raises:
        WaveOpsError: a frame is not uint8 (height, width, 3).
    """
    cuts: list[int] = []
    suspects: list[_Suspect] = []
    last: Thumbnail | None = None
    gradual = TransitionFinder(_is_new)
    for frame_index, frame in enumerate(frames):
        thumbnail = _thumbnail(frame)
        gradual.add(frame)
        returned = next((i for i, suspect in enumerate(suspects) if not _differs(suspect.before, thumbnail)), None)
        if returned is not None:
            del suspects[returned:]
        elif last is not None and _differs(last, thumbnail):
            suspects.append(_Suspect(frame_index, last))
        while suspects and frame_index - suspects[0].frame_index >= _FLASH_FRAMES:
            cuts.append(suspects.pop(0).frame_index)
        last = thumbnail
    cuts += [suspect.frame_index for suspect in suspects]
    return _merged(cuts, gradual.transitions())


def _merged(cuts: Iterable[int], transitions: Sequence[Transition]) -> tuple[int, ...]:
    """Return all cuts; inside of a transition only its own count."""
    sudden = {cut for cut in cuts if not any(each.contains(cut) for each in transitions)}
    return tuple(sorted(sudden.union(*(each.cuts for each in transitions))))


def _is_new(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> bool:
    """Return whether the second of two small pictures is a new one."""
    return _differs(_thumbnail(before), _thumbnail(after))


def _thumbnail(frame: NDArray[np.uint8]) -> Thumbnail:
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or 0 in frame.shape:
        raise WaveOpsError(f"expected a uint8 frame (height, width, 3), got {frame.shape} of {frame.dtype}")
    small: NDArray[np.uint8] = cv2.resize(frame, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    return np.divide(small, 255, dtype=np.float32)


def _differs(before: Thumbnail, after: Thumbnail) -> bool:
    """Return whether the second picture is a new one, rather than the first one in motion."""
    # The search can only lower the residuals, so it is skipped for the many pairs that are similar without it.
    if not _is_cut(_block_means(np.abs(before - after))):
        return False
    padded = np.pad(before, ((_SEARCH_RADIUS, _SEARCH_RADIUS), (_SEARCH_RADIUS, _SEARCH_RADIUS), (0, 0)), mode="edge")
    best = np.full((_SIDE // _BLOCK, _SIDE // _BLOCK), np.inf, np.float32)
    for y in range(2 * _SEARCH_RADIUS + 1):
        for x in range(2 * _SEARCH_RADIUS + 1):
            residual = np.abs(padded[y : y + _SIDE, x : x + _SIDE] - after)
            np.minimum(best, _block_means(residual), out=best)
    return _is_cut(best)


def _is_cut(residuals: NDArray[np.float32]) -> bool:
    lost = (residuals > _LOST_RESIDUAL).mean()
    return bool(residuals.mean() > _CUT_RESIDUAL and lost > _CUT_LOST_FRACTION)


def _block_means(residual: NDArray[np.float32]) -> NDArray[np.float32]:
    blocks = _SIDE // _BLOCK
    means: NDArray[np.float32] = residual.reshape(blocks, _BLOCK, blocks, _BLOCK * 3).mean(axis=(1, 3))
    return means
