"""Full-video propagation: every frame between two edited keyframes.

Convention:
    `flows_to_prev[i]` lies on the grid of frame i + 1 and points to frame i; `flows_to_cur[i]` lies on the grid of
    frame i and points to frame i + 1; pixels, x then y. Frame 0 is the earlier keyframe, the last frame the later one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from numpy.typing import NDArray

from wave_ops.errors import WaveOpsError
from wave_ops.propagation.blending import blend, lab_to_rgb, rgb_to_lab
from wave_ops.propagation.detail import restore_detail
from wave_ops.propagation.fusion import fuse_gradients, selected_gradients
from wave_ops.propagation.guides import (
    carry,
    carry_matches,
    fill_holes,
    flow_holes,
    own_positions,
    source_guides,
    target_guides,
)
from wave_ops.propagation.on_device import propagate_on_device
from wave_ops.propagation.selection import blend_weights, carry_selection, select, selection_weight
from wave_ops.propagation.settings import PropagationSettings
from wave_ops.propagation.synthesis import Exemplar, synthesise

__all__ = [
    "Candidate",
    "KeyframeInterval",
    "fuse_candidates",
    "paint_candidates",
    "propagate_interval",
    "synthesise_outward",
]

Frame = UInt8[np.ndarray, "height width 3"]
Frames = UInt8[np.ndarray, "frame height width 3"]
Flows = Float[np.ndarray, "pair 2 height width"]
Callback = Callable[[int, int], None]
T = TypeVar("T")
_LARGE = 3 * 1024 * 640  # numbers in a frame from which on two of them are not painted at once


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyframeInterval:
    """Source frames from one keyframe to the next, both edited keyframes, and the flow between neighbours."""

    frames: NDArray[np.uint8]
    """(frame, height, width, 3), both keyframes included."""
    first: NDArray[np.uint8]
    last: NDArray[np.uint8]
    to_prev: NDArray[np.float32]
    """(frame - 1, 2, height, width), pixels, x then y, on the grid of frame i + 1."""
    to_cur: NDArray[np.float32]

    @property
    def time_fractions(self) -> NDArray[np.float32]:
        """How far each frame between the keyframes is on its way to the later one, (frame - 2, 1, 1, 1)."""
        count = len(self.frames) - 1
        fractions: NDArray[np.float32] = np.arange(1, count, dtype=np.float32) / np.float32(count)
        return fractions[:, None, None, None]


class Candidate(NamedTuple):
    """One frame as one keyframe paints it, and how well each of its pixels is matched."""

    image: NDArray[np.float32]  # (height, width, 3), 8-bit units
    error: NDArray[np.float32]  # (height, width), the patch error at this very frame


def propagate_interval(
    frames: Frames,
    *,
    first: Frame,
    last: Frame | None,
    flows_to_prev: Flows,
    flows_to_cur: Flows,
    settings: PropagationSettings | None = None,
    device: torch.device | str | None = None,
    callback: Callback | None = None,
) -> Frames:
    """Carry the edit of two neighbouring keyframes to every frame between them.

    Each frame gets two candidates, synthesised outward from either keyframe; pixels are selected by patch error,
    mixed without loss of contrast, and fused in the gradient domain.

    Source: WAVE (ECCV 2024), full-video propagation. Deviates: selection weights are symmetric and the blend also
    follows the errors, by default; nothing between the steps is rounded or compressed; where no keyframe is edited,
    the source frames are the answer.

    Args:
        frames: source frames of the interval, both keyframes included.
        first: the edited frame 0.
        last: the edited last frame; None where there is none (then every frame has one candidate).
        flows_to_prev: one flow per neighbouring pair.
        flows_to_cur: the opposite direction.
        settings: constants; by default the published ones.
        device: a torch device, to compute there, all pixels at once; by default compiled loops run on the processor.
            The two search in another order, so their results differ slightly; either is the same every time.
        callback: called after each step with (steps done, steps in all).

    Returns:
        As many frames as came in; the keyframes are bit-identical to `first` and `last`.

    Raises:
        WaveOpsError: sizes or lengths that do not belong together, or a flow that is not finite.
    """
    settings = settings or PropagationSettings()
    _check(frames, first, last, flows_to_prev, flows_to_cur)
    keyframes = {0: first} if last is None or len(frames) == 1 else {0: first, len(frames) - 1: last}
    output = frames.copy()
    if all(np.array_equal(frames[index], keyframe) for index, keyframe in keyframes.items()):
        return output
    for index, keyframe in keyframes.items():
        output[index] = keyframe
    if len(frames) == len(keyframes):
        return output
    to_prev, to_cur = (np.ascontiguousarray(flows, np.float32) for flows in (flows_to_prev, flows_to_cur))
    report = _Progress(callback, len(frames) - 1 if last is None else 3 * (len(frames) - 2))
    if device is not None:
        made: Iterable[Frame] = propagate_on_device(
            frames,
            list(keyframes.values()),
            (to_prev, to_cur),
            settings=settings,
            device=torch.device(device),
            advance=report.advance,
        )
    elif last is None:
        forward = synthesise_outward(frames, first, flows_back=to_prev, flows_on=to_cur, settings=settings)
        made = (_rounded(candidate.image) for candidate in report(forward))
    else:
        pairs = _candidate_pairs(frames, (first, last), to_prev, to_cur, settings=settings, report=report)
        made = report(_fused_frames(pairs, to_prev, to_cur, settings=settings))
    for index, frame in enumerate(made, start=1):
        output[index] = frame
    return output


def paint_candidates(
    frames: Frames,
    *,
    first: Frame,
    last: Frame,
    flows_to_prev: Flows,
    flows_to_cur: Flows,
    settings: PropagationSettings | None = None,
) -> list[tuple[Candidate, Candidate]]:
    """Paint each frame between two keyframes as either of them would: by far the longest part of a propagation.

    With `fuse_candidates` this is `propagate_interval` in two steps, for whoever fuses the same candidates in
    several ways. Arguments and errors are those of `propagate_interval`.

    Returns:
        The earlier and the later keyframe's candidate of each frame between them, in the order of time.
    """
    _check(frames, first, last, flows_to_prev, flows_to_cur)
    to_prev, to_cur = (np.ascontiguousarray(flows, np.float32) for flows in (flows_to_prev, flows_to_cur))
    settings = settings or PropagationSettings()
    return _candidate_pairs(frames, (first, last), to_prev, to_cur, settings=settings, report=_Progress(None, 0))


def fuse_candidates(
    pairs: list[tuple[Candidate, Candidate]],
    *,
    flows_to_prev: Flows,
    flows_to_cur: Flows,
    settings: PropagationSettings | None = None,
) -> Iterator[Frame]:
    """Yield each frame between two keyframes out of its candidates: selected, blended, fused.

    Args:
        pairs: from `paint_candidates`.
        flows_to_prev: as for `propagate_interval`.
        flows_to_cur: the opposite direction.
        settings: of these only the weights of selection, blend and gradients count here.
    """
    to_prev, to_cur = (np.ascontiguousarray(flows, np.float32) for flows in (flows_to_prev, flows_to_cur))
    return _fused_frames(pairs, to_prev, to_cur, settings=settings or PropagationSettings())


def synthesise_outward(
    frames: Frames, keyframe: Frame, *, flows_back: Flows, flows_on: Flows, settings: PropagationSettings
) -> Iterator[Candidate]:
    """Yield frame 1, 2, ... as patches of the edited frame 0 paint them, each led by the one before.

    For the later keyframe of an interval the caller turns everything round: frames, and what "back" means.

    Args:
        frames: source frames in the order of synthesis, the keyframe's first.
        keyframe: the edited frames[0].
        flows_back: float32, [i] on the grid of frames[i + 1], pointing to frames[i].
        flows_on: float32, [i] on the grid of frames[i], pointing to frames[i + 1].
        settings: constants.
    """
    image = keyframe.astype(np.float32)
    exemplar = Exemplar.build(image, source_guides(frames[0], image), settings=settings)
    positions = matches = own_positions(frames.shape[1], frames.shape[2])
    for frame, back, on in zip(frames[1:], flows_back, flows_on, strict=True):
        holes = flow_holes(back, on)
        positions = fill_holes(carry(positions, back), holes)
        temporal = fill_holes(carry(np.moveaxis(image, -1, 0), back), holes)
        guides = target_guides(frame, np.moveaxis(temporal, 0, -1), positions)
        starts = (positions, carry_matches(matches, back))
        result = synthesise(exemplar, guides, starts=starts)
        image, matches = result.image, result.matches
        if settings.restore_detail:
            image = restore_detail(image, seen=result.seen, frame=guides.colour)
        yield Candidate(image, result.error)


def _candidate_pairs(
    frames: Frames,
    keyframes: tuple[Frame, Frame],
    to_prev: Flows,
    to_cur: Flows,
    *,
    settings: PropagationSettings,
    report: _Progress,
) -> list[tuple[Candidate, Candidate]]:
    """Return both candidates of each frame between the keyframes, in the order of time.

    The later keyframe's come in backward order and are turned round, so that each error stays with its own frame. Both
    directions are painted side by side, the later keyframe's in a thread of its own; neither depends on the other. With
    large frames they follow one another, for memory's sake.
    """
    first, last = keyframes
    forward = synthesise_outward(frames[:-1], first, flows_back=to_prev[:-1], flows_on=to_cur[:-1], settings=settings)
    backward = synthesise_outward(
        frames[:0:-1], last, flows_back=to_cur[:0:-1], flows_on=to_prev[:0:-1], settings=settings
    )
    with ThreadPoolExecutor(1) as beside:
        turned = None if frames[0].size > _LARGE else beside.submit(list, backward)
        early = list(report(forward))
        late = list(report(turned.result() if turned else backward))
    return list(zip(early, reversed(late), strict=True))


def _fused_frames(
    pairs: list[tuple[Candidate, Candidate]], to_prev: Flows, to_cur: Flows, *, settings: PropagationSettings
) -> Iterator[Frame]:
    """Yield each frame between the keyframes: selected, blended, fused."""
    chosen: Bool[np.ndarray, "height width"] | None = None
    for index, (early, late) in enumerate(pairs, start=1):
        if chosen is not None:
            back, on = to_prev[index - 1], to_cur[index - 1]
            chosen = carry_selection(chosen, back, flow_holes(back, on))
        weight = selection_weight(index, len(pairs) + 1, kind=settings.selection_weight)
        chosen = select(early.error, late.error, weight=weight, switched=chosen)
        share = (
            weight if settings.blend_weight == "published" else blend_weights(early.error, late.error, weight=weight)
        )
        yield _fuse(early.image, late.image, chosen, share=share, settings=settings)


def _fuse(
    early: Float32[np.ndarray, "height width 3"],
    late: Float32[np.ndarray, "height width 3"],
    chosen: Bool[np.ndarray, "height width"],
    *,
    share: float | Float[np.ndarray, "height width"],
    settings: PropagationSettings,
) -> Frame:
    """Blend two candidates in Lab and give the blend the gradients of the selected one."""
    lab_early, lab_late = rgb_to_lab(early), rgb_to_lab(late)
    least_error = np.where(chosen[..., None], lab_late, lab_early)
    mix = blend(lab_early, lab_late, least_error, weight=share)
    gradient_x, gradient_y = selected_gradients(lab_early, lab_late, chosen)
    fused = fuse_gradients(mix, gradient_x, gradient_y, weights=settings.gradient_weights)
    return _rounded(lab_to_rgb(fused))


def _rounded(image: Float[np.ndarray, "height width 3"]) -> Frame:
    frame: Frame = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return frame


class _Progress:
    """Counts what passes through and tells the callback."""

    def __init__(self, callback: Callback | None, total: int) -> None:
        self._callback, self._total, self._done = callback, total, 0

    def __call__(self, items: Iterable[T]) -> Iterator[T]:
        for item in items:
            self.advance()
            yield item

    def advance(self) -> None:
        """Count one more step."""
        self._done += 1
        if self._callback is not None:
            self._callback(self._done, self._total)


def _check(frames: Frames, first: Frame, last: Frame | None, flows_to_prev: Flows, flows_to_cur: Flows) -> None:
    """Raise WaveOpsError unless everything belongs together."""
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or len(frames) == 0:
        raise WaveOpsError(f"expected uint8 frames (time, height, width, 3), got {frames.shape} of {frames.dtype}")
    for keyframe in (first, last):
        if keyframe is not None and (keyframe.shape != frames.shape[1:] or keyframe.dtype != np.uint8):
            raise WaveOpsError(
                f"expected edited keyframes of the frames' size {frames.shape[1:]} as uint8, got {keyframe.shape} of "
                f"{keyframe.dtype}"
            )
    if len(frames) == 1 and last is not None and not np.array_equal(first, last):
        raise WaveOpsError("an interval of one frame has one keyframe, got two that differ")
    wanted = (len(frames) - 1, 2, *frames.shape[1:3])
    for name, flows in (("flows_to_prev", flows_to_prev), ("flows_to_cur", flows_to_cur)):
        if flows.shape != wanted:
            raise WaveOpsError(f"expected {name} of shape {wanted} for {len(frames)} frames, got {flows.shape}")
        if not np.isfinite(flows).all():
            raise WaveOpsError(f"{name} holds numbers that are not finite")
