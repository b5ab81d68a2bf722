"""Full-video propagation: every frame between two edited keyframes.

Two patch searches share this orchestration: compiled loops on the CPU (`synthesis`), which paint from each keyframe in
its own thread, and torch (`torch_synthesis`), which paints from both as one batch.

Convention:
    `flows_to_prev[i]` is defined on the grid of frame i + 1 and points to frame i; `flows_to_cur[i]` is defined on the
    grid of frame i and points to frame i + 1; pixels, x then y. Frame 0 is the earlier keyframe, the last frame the
    later one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from wave_ops.errors import WaveOpsError
from wave_ops.masks import occlusion_mask
from wave_ops.propagation import synthesis, torch_synthesis
from wave_ops.propagation.compositing import blend_weights, composite, select, selection_weight, warp_selection
from wave_ops.propagation.detail import restore_detail
from wave_ops.propagation.guides import Guides, inpaint, pixel_grid, source_guides, target_guides, warp_matches
from wave_ops.propagation.settings import PropagationSettings
from wave_ops.propagation.synthesis import Synthesis
from wave_ops.warp import backward_warp

__all__ = [
    "Candidate",
    "KeyframeInterval",
    "fuse_candidates",
    "paint_candidates",
    "propagate_interval",
]

Frame = UInt8[np.ndarray, "height width 3"]
Frames = UInt8[np.ndarray, "frame height width 3"]
Flows = Float[np.ndarray, "pair 2 height width"]
Images = Float[Tensor, "batch 3 height width"]
Callback = Callable[[int, int], None]
T = TypeVar("T")

_ONE_THREAD_ABOVE: Final = 3 * 1024 * 640
"""Numbers in a frame: larger ones are not painted from both keyframes at once, which would need too much memory."""


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
        """Time of each frame between the keyframes as a fraction of the interval, (frame - 2, 1, 1, 1)."""
        count = len(self.frames) - 1
        fractions: NDArray[np.float32] = np.arange(1, count, dtype=np.float32) / np.float32(count)
        return fractions[:, None, None, None]


class Candidate(NamedTuple):
    """One frame as painted from one keyframe, and how well each of its pixels is matched."""

    image: Tensor  # float32 (3, height, width), 8-bit units
    error: Tensor  # float32 (height, width), the patch error at this frame


class _Clip(NamedTuple):
    """Source frames and flows in the order of synthesis, away from a keyframe."""

    frames: list[Tensor]  # uint8 (height, width, 3), the keyframe's first
    back: list[Tensor]  # (2, height, width), [i] on the grid of frames[i + 1], pointing to frames[i]
    onward: list[Tensor]  # (2, height, width), [i] on the grid of frames[i], pointing to frames[i + 1]

    @classmethod
    def load(cls, frames: Frames, to_prev: Flows, to_cur: Flows, *, device: torch.device) -> _Clip:
        """Load an interval in the order of time."""
        back, onward = (_to_list(flows, np.float32, device) for flows in (to_prev, to_cur))
        return cls(_to_list(frames, np.uint8, device), back, onward)

    def without_last(self) -> _Clip:
        """Return the clip without its last frame, the other keyframe."""
        return _Clip(self.frames[:-1], self.back[:-1], self.onward[:-1])

    def reversed(self) -> _Clip:
        """Return the clip as seen from its other end."""
        return _Clip(self.frames[::-1], self.onward[::-1], self.back[::-1])


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
    """Propagate the edit of two neighbouring keyframes to every frame between them.

    Each frame gets two candidates, synthesised outward from either keyframe, which are blended by the patch errors.

    Source: WAVE (ECCV 2024), full-video propagation. Deviates by default: selection weights are symmetric, the blend
    is a plain mix that also follows the errors; nothing between the steps is rounded or compressed; where no keyframe
    is edited, the source frames are returned.

    Args:
        frames: source frames of the interval, both keyframes included.
        first: the edited frame 0.
        last: the edited last frame; None where there is none (then every frame has one candidate).
        flows_to_prev: one flow per neighbouring pair.
        flows_to_cur: the opposite direction.
        settings: constants; by default those of `PropagationSettings`.
        device: a torch device, to search there for all pixels at once; by default compiled loops search on the CPU.
            The two search in another order, so their results differ slightly; both are deterministic.
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
    clip = _Clip.load(frames, flows_to_prev, flows_to_cur, device=torch.device(device or "cpu"))
    compiled = device is None
    if last is None:
        report = _Progress(callback, len(frames) - 1)
        painted = _paint_outward([clip], [first], settings=settings, compiled=compiled)
        made = [_rounded(step.image[0]) for step in report(painted)]
    else:
        report = _Progress(callback, 3 * (len(frames) - 2))
        pairs = _paint_pairs(clip, (first, last), settings=settings, compiled=compiled, report=report)
        made = [_rounded(image) for image in report(_composited(pairs, clip.back, clip.onward, settings=settings))]
    output[1 : len(made) + 1] = torch.stack(made).cpu().numpy()
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
    """Paint each frame between two keyframes from either of them: by far the longest part of a propagation.

    With `fuse_candidates` this is `propagate_interval` in two steps, for callers that fuse the same candidates in
    several ways. Arguments and errors are those of `propagate_interval`.

    Returns:
        The earlier and the later keyframe's candidate of each frame between them, in the order of time.
    """
    _check(frames, first, last, flows_to_prev, flows_to_cur)
    clip = _Clip.load(frames, flows_to_prev, flows_to_cur, device=torch.device("cpu"))
    settings = settings or PropagationSettings()
    return _paint_pairs(clip, (first, last), settings=settings, compiled=True, report=_Progress(None, 0))


def fuse_candidates(
    pairs: Sequence[tuple[Candidate, Candidate]],
    *,
    flows_to_prev: Flows,
    flows_to_cur: Flows,
    settings: PropagationSettings | None = None,
) -> Iterator[Frame]:
    """Yield each frame between two keyframes made from its candidates: selected, blended, fused.

    Args:
        pairs: from `paint_candidates`.
        flows_to_prev: as for `propagate_interval`.
        flows_to_cur: the opposite direction.
        settings: only the weights of selection, blend and gradients are used.
    """
    back, onward = (_to_list(flows, np.float32, pairs[0][0].image.device) for flows in (flows_to_prev, flows_to_cur))
    for image in _composited(pairs, back, onward, settings=settings or PropagationSettings()):
        yield _rounded(image).numpy()


def _paint_pairs(
    clip: _Clip, keyframes: tuple[Frame, Frame], *, settings: PropagationSettings, compiled: bool, report: _Progress
) -> list[tuple[Candidate, Candidate]]:
    """Return both candidates of each frame between the keyframes, in the order of time.

    The later keyframe's are painted backwards in time and reversed at the end, so that each is paired with the earlier
    keyframe's candidate of the same frame.
    """
    clips = [clip.without_last(), clip.reversed().without_last()]
    if not compiled:
        both = _paint_outward(clips, keyframes, settings=settings, compiled=False)
        steps = [[_candidate(step, index) for index in (0, 1)] for step in report(both, weight=2)]
        early, late = ([step[index] for step in steps] for index in (0, 1))
        return list(zip(early, reversed(late), strict=True))
    forward, backward = (
        (_candidate(step) for step in _paint_outward([one], [keyframe], settings=settings, compiled=True))
        for one, keyframe in zip(clips, keyframes, strict=True)
    )
    with ThreadPoolExecutor(1) as pool:
        concurrent = None if clip.frames[0].numel() > _ONE_THREAD_ABOVE else pool.submit(list, backward)
        early = list(report(forward))
        late = list(report(concurrent.result() if concurrent else backward))
    return list(zip(early, reversed(late), strict=True))


def _paint_outward(
    clips: Sequence[_Clip], keyframes: Sequence[Frame], *, settings: PropagationSettings, compiled: bool
) -> Iterator[Synthesis]:
    """Yield frame 1, 2, ... of each clip, painted from its edited frame 0 and guided by the frame painted before.

    Args:
        clips: one per keyframe, of one size and length; they form a batch.
        keyframes: the edited first frame of each clip.
        settings: constants.
        compiled: search by compiled loops, for a batch of one on the CPU.
    """
    image = _images(_to_list(np.stack(keyframes), np.uint8, clips[0].frames[0].device))
    guides = source_guides(_images([clip.frames[0] for clip in clips]), image)
    paint = _painter(image, guides, settings=settings, compiled=compiled)
    positions = matches = pixel_grid((image.shape[2], image.shape[3]), batch=len(image), device=image.device)
    for index in range(1, len(clips[0].frames)):
        frames = _images([clip.frames[index] for clip in clips])
        back = torch.stack([clip.back[index - 1] for clip in clips])
        onward = torch.stack([clip.onward[index - 1] for clip in clips])
        disoccluded = occlusion_mask(back, onward)
        # Positions are warped from frame to frame: chained, the flow leads back to the keyframe.
        positions, temporal = (inpaint(backward_warp(values, back), disoccluded) for values in (positions, image))
        guides = target_guides(frames, temporal, positions)
        result = paint(guides, starts=(positions, warp_matches(matches, back)))
        image, matches = result.image, result.matches
        if settings.restore_detail:
            image = restore_detail(image, seen=result.seen, frames=frames)
        yield replace(result, image=image)


def _painter(
    style: Images, guides: Guides, *, settings: PropagationSettings, compiled: bool
) -> Callable[..., Synthesis]:
    """Pack edited keyframes for one of the two searches, and return its `synthesise` for them."""
    if compiled:
        return partial(synthesis.synthesise, synthesis.Exemplar.build(style, guides, settings=settings))
    return partial(torch_synthesis.synthesise, torch_synthesis.Exemplars.build(style, guides, settings=settings))


def _composited(
    pairs: Sequence[tuple[Candidate, Candidate]],
    back: Sequence[Tensor],
    onward: Sequence[Tensor],
    *,
    settings: PropagationSettings,
) -> Iterator[Float[Tensor, "3 height width"]]:
    """Yield each frame between the keyframes: selected, blended, fused."""
    chosen: Bool[Tensor, "height width"] | None = None
    for index, (early, late) in enumerate(pairs, start=1):
        if chosen is not None:
            flow = back[index - 1][None]
            holes = None if settings.keep_switched else occlusion_mask(flow, onward[index - 1][None])
            chosen = warp_selection(chosen[None], flow, holes)[0]
        weight = selection_weight(index, len(pairs) + 1, kind=settings.selection_weight)
        chosen = select(early.error, late.error, weight=weight, switched=chosen)
        by_error = settings.blend_weight == "error"
        yield composite(
            early.image,
            late.image,
            chosen,
            weight=blend_weights(early.error, late.error, weight=weight) if by_error else weight,
            kind=settings.blend,
            gradient_weights=settings.gradient_weights if settings.fuse_gradients else None,
        )


def _candidate(step: Synthesis, index: int = 0) -> Candidate:
    return Candidate(step.image[index], step.error[index])


def _images(frames: Sequence[UInt8[Tensor, "height width 3"]]) -> Images:
    return torch.stack(list(frames)).movedim(-1, 1).float().contiguous()


def _rounded(image: Float[Tensor, "3 height width"]) -> UInt8[Tensor, "height width 3"]:
    return image.round().clamp_(0, 255).to(torch.uint8).movedim(0, -1)


class _Progress:
    """Counts the items that pass through, and calls the callback."""

    def __init__(self, callback: Callback | None, total: int) -> None:
        self._callback, self._total, self._done = callback, total, 0

    def __call__(self, items: Iterable[T], *, weight: int = 1) -> Iterator[T]:
        """Yield the items, and count `weight` steps for each."""
        for item in items:
            for _ in range(weight):
                self._done += 1
                if self._callback is not None:
                    self._callback(self._done, self._total)
            yield item


def _to_list(array: np.ndarray, dtype: type, device: torch.device | str) -> list[Tensor]:
    """Return the first axis of an array as a list of tensors, which share its memory on the CPU if it is writable."""
    return list(torch.from_numpy(np.require(array, dtype, ["C", "W"])).to(device))


def _check(frames: Frames, first: Frame, last: Frame | None, flows_to_prev: Flows, flows_to_cur: Flows) -> None:
    """Raise WaveOpsError unless sizes and lengths match and the flows are finite."""
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
            raise WaveOpsError(f"{name} contains numbers that are not finite")
