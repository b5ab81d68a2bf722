"""Names and contents of artifacts: files, and frames, flows and latents, read one at a time to bound memory."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt
import torch
from numpy.typing import NDArray
from torch import Tensor

from storage.artifact import Artifact
from storage.workspace import open_artifact
from tasks.cancel import raise_if_stopped
from tasks.planning.batches import SHARD_BYTES, SHARD_ROWS
from tasks.planning.plan import EditPlan
from tasks.planning.stages import ENCODE, FRAME_FLOW, StageSettings, StageSpec
from wave_ops.feature_warping import PairWarps
from wave_ops.finite import check_finite
from wave_ops.resize import resize_frames

__all__ = [
    "AUDIO",
    "CONTACT_SHEET",
    "EDITED",
    "REPORT",
    "SIDE_BY_SIDE",
    "edited_name",
    "finite_latents",
    "frames_at",
    "planned_name",
    "require_latents",
    "require_pictures",
    "shard_rows",
    "stored_warps",
    "stream_flow",
    "stream_frames",
    "stream_shots",
]

AUDIO = "audio.mka"
EDITED = "edited.mp4"
"""The edited video; other formats have the same stem."""
CONTACT_SHEET = "contact_sheet.png"
SIDE_BY_SIDE = "side_by_side.mp4"
REPORT = "report.json"

SHARD_LATENTS = 400
"""Latents of keyframes at one noise level that make a shard: seconds of work for a GPU."""
SHARD_STEPS = 17
"""Steps in one shard at most: a third of the usual ones."""


def stream_frames(
    artifact: Artifact, indices: Sequence[int], *, size: tuple[int, int] | None = None, name: str = "frames"
) -> Iterator[NDArray[np.uint8]]:
    """Read frames (height, width, 3) one by one, resized if a size is given; end where the stage is to end."""
    frames = artifact.row_reader(name)
    for index in indices:
        raise_if_stopped()
        yield frames[index] if size is None else resize_frames(frames[index][None], size)[0]


def stream_shots(
    plan: EditPlan, spec: StageSpec[StageSettings], indices: Iterable[int], *, size: tuple[int, int] | None = None
) -> Iterator[NDArray[np.uint8]]:
    """Read frames (height, width, 3) one by one from the artifacts of the shots, by their indices in the clip."""
    for shot, own in _by_shot(plan, indices):
        rows = [index - shot.frames.start for index in own]
        yield from stream_frames(open_artifact(shot[spec].ref), rows, size=size)


def stream_flow(plan: EditPlan) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]] | None]:
    """Read the flows (2, height, width) to the frame before and from it, for each frame after the first.

    Yields None across a cut.
    """
    for number, shot in enumerate(plan.shots):
        if number > 0:
            yield None
        flow = open_artifact(shot[FRAME_FLOW].ref)
        to_prev, to_cur = (flow.row_reader(name) for name in ("to_prev", "to_cur"))
        for row in range(len(shot.frames) - 1):
            yield to_prev[row].astype(np.float32), to_cur[row].astype(np.float32)


def planned_name(plan: EditPlan) -> str:
    """Return the file name that the edited video of a plan has."""
    return str(PurePosixPath(EDITED).with_suffix(plan[ENCODE].settings.encoding.suffix))


def edited_name(video: Artifact) -> str:
    """Return the file name of the edited video of a complete artifact."""
    stem = PurePosixPath(EDITED).stem
    names: Iterable[str] = video.record()["files"]
    return next(name for name in names if PurePosixPath(name).stem == stem)


def _by_shot(plan: EditPlan, indices: Iterable[int]) -> Iterator[tuple[EditPlan, list[int]]]:
    """Group ascending frame indices by the shot that they belong to."""
    starts = [shot.frames.start for shot in plan.shots]
    for number, own in groupby(indices, key=lambda index: bisect_right(starts, index) - 1):
        yield plan.shots[number], list(own)


def require_pictures(
    artifact: Artifact, shape: tuple[int, int, int, int], *, axis: str, name: str = "frames", rows: int | None = None
) -> None:
    """Create an array of RGB pictures, uint8 (axis, height, width, channel), a chunk for each, or reopen it.

    Args:
        artifact: receives it.
        shape: of the array.
        axis: what its first axis counts.
        name: of the array.
        rows: pictures in one shard; None for `shard_rows`.
    """
    artifact.require_array(
        name,
        shape=shape,
        chunks=(1, *shape[1:]),
        dtype="uint8",
        shard_rows=rows or shard_rows(shape, "uint8"),
        dimension_names=(axis, "height", "width", "channel"),
    )


def shard_rows(shape: Sequence[int], dtype: npt.DTypeLike, *, most: int | None = None) -> int:
    """Return how many rows of an array (row, ...) make one shard."""
    row_bytes = math.prod(shape[1:]) * np.dtype(dtype).itemsize
    return max(1, min(most or SHARD_ROWS, SHARD_BYTES // max(row_bytes, 1), shape[0]))


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


def require_latents(artifact: Artifact, steps: int, latents: Sequence[int]) -> int:
    """Create the array of all steps' latents, one chunk per step, or reopen it; return how many are stored.

    Several steps make a shard where the keyframes are few, so that a clip of many shots has few objects.

    Args:
        artifact: of an inversion or an edit.
        steps: S; the array has one row more.
        latents: (keyframe, channel, height, width), the shape of the latents of one step.
    """
    shape = (steps + 1, *latents)
    artifact.require_array(
        "latents",
        shape=shape,
        chunks=(1, *shape[1:]),
        shard_rows=max(1, min(SHARD_STEPS, -(-SHARD_LATENTS // latents[0]), steps + 1)),
        dtype="float32",
        dimension_names=("step", "keyframe", "channel", "height", "width"),
    )
    return artifact.readable_prefix("latents")


def finite_latents(x: Tensor, step_index: int) -> NDArray[np.float32]:
    """Return latents on the host, where they are stored anyway: the check costs no further wait for the device.

    A prediction that is not finite shows in the latents of its step.

    Raises:
        NonFiniteError: if a value is NaN or infinite.
    """
    values: NDArray[np.float32] = x.cpu().numpy()
    check_finite(values, f"the latents of step {step_index}")
    return values


class _Stored(Mapping[tuple[int, int], Tensor]):
    """An array of pairs under both directions of each pair, read when asked for."""

    def __init__(self, artifact: Artifact, pairs: Sequence[tuple[int, int]], *, forth: str, back: str) -> None:
        self._rows = {name: artifact.row_reader(name, keep_bytes=SHARD_BYTES) for name in (forth, back)}
        self._places = {pair: (forth, i) for i, pair in enumerate(pairs)}
        self._places |= {(second, first): (back, i) for i, (first, second) in enumerate(pairs)}

    def __getitem__(self, pair: tuple[int, int]) -> Tensor:
        name, i = self._places[pair]
        values = torch.from_numpy(self._rows[name][i])
        return values if values.dtype == torch.bool else values.float()

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)
