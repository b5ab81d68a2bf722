"""Names and contents of artifacts: files, and frames, flows and latents, read one at a time to bound memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from storage.artifact import Artifact
from tasks.cancel import raise_if_stopped
from wave_ops.feature_warping import PairWarps
from wave_ops.resize import resize_frames

__all__ = [
    "AUDIO",
    "CONTACT_SHEET",
    "EDITED",
    "REPORT",
    "SIDE_BY_SIDE",
    "frames_at",
    "require_latents",
    "stored_warps",
    "stream_frames",
]

AUDIO = "audio.mka"
EDITED = "edited.mp4"
CONTACT_SHEET = "contact_sheet.png"
SIDE_BY_SIDE = "side_by_side.mp4"
REPORT = "report.json"


def stream_frames(
    artifact: Artifact, indices: Sequence[int], *, size: tuple[int, int] | None = None, name: str = "frames"
) -> Iterator[NDArray[np.uint8]]:
    """Read frames (height, width, 3) one by one, resized if a size is given; end where the stage is to end."""
    for index in indices:
        raise_if_stopped()
        frame: NDArray[np.uint8] = artifact.read_region(name, index, index + 1)
        yield (frame if size is None else resize_frames(frame, size))[0]


def frames_at(
    artifact: Artifact, indices: Sequence[int], *, size: tuple[int, int], name: str = "frames"
) -> NDArray[np.uint8]:
    """Read frames (frame, height, width, 3) at a size."""
    frames = np.empty((len(indices), *size, 3), np.uint8)
    for target, frame in zip(frames, stream_frames(artifact, indices, size=size, name=name), strict=True):
        target[...] = frame
    return frames


def stored_warps(flow: Artifact, pairs: Sequence[tuple[int, int]]) -> PairWarps | None:
    """Return the stored flows and masks of the keyframe pairs, read when asked for; None without pairs.

    Args:
        flow: the keyframe flow.
        pairs: keyframe indices (first, second), in the order in which they are stored.
    """
    if not pairs:
        return None
    return PairWarps(
        flow_to_prev=_Stored(flow, pairs, forth="to_prev", back="to_cur"),
        mask=_Stored(flow, pairs, forth="mask_cur", back="mask_prev"),
    )


def require_latents(artifact: Artifact, steps: int, latents: Tensor) -> int:
    """Create the array of all steps' latents, one chunk per step, or reopen it; return how many are stored."""
    shape = (steps + 1, *latents.shape)
    artifact.require_array(
        "latents",
        shape=shape,
        chunks=(1, *shape[1:]),
        dtype="float32",
        dimension_names=("step", "keyframe", "channel", "height", "width"),
    )
    return artifact.readable_prefix("latents")


class _Stored(Mapping[tuple[int, int], Tensor]):
    """An array of pairs under both directions of each pair, read when asked for."""

    def __init__(self, artifact: Artifact, pairs: Sequence[tuple[int, int]], *, forth: str, back: str) -> None:
        self._artifact = artifact
        self._places = {pair: (forth, i) for i, pair in enumerate(pairs)}
        self._places |= {(second, first): (back, i) for i, (first, second) in enumerate(pairs)}

    def __getitem__(self, pair: tuple[int, int]) -> Tensor:
        name, i = self._places[pair]
        values = torch.from_numpy(self._artifact.read_region(name, i, i + 1)[0])
        return values if values.dtype == torch.bool else values.float()

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)
