"""Metrics of whole edited videos: those of keyframes on every frame, and pulse, drift and middles of intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tasks.evaluation.clips.clip import EvaluationClip
from tasks.evaluation.clips.scene_clips import UNIQUE_KINDS
from tasks.evaluation.comparisons.comparison import Measure, Resources
from tasks.evaluation.comparisons.edit_metrics import EDIT_MEASURES, Checks, EditScorer, Truth
from tasks.evaluation.comparisons.keyframes import KeyframeContext, mean_psnr
from tasks.evaluation.comparisons.motion import finite_scores, mean
from wave_ops.keyframes import keyframe_indices, keyframe_intervals
from wave_ops.metrics import colour_drift, keyframe_pulse

__all__ = ["VIDEO_MEASURES", "VideoScorer"]

Frames = NDArray[np.uint8]
Times = NDArray[np.bool_]

VIDEO_MEASURES: Final = (
    *(measure for measure in EDIT_MEASURES if measure.name != "colour success"),
    Measure(name="pulse", unit="of 255", better="lower"),
    Measure(name="pulse of contrast", unit="of 255", better="lower"),
    Measure(name="drift", unit="Lab", better="lower"),
    Measure(name="passing, middles less keyframes", unit="fraction", better="higher"),
    Measure(name="PSNR, middles less keyframes", unit="dB", better="higher"),
    Measure(name="UNet calls", unit="", better="lower"),
    Measure(name="seconds", unit="s", better="lower"),
)


class VideoScorer:
    """The metrics of the first edit of a clip, on every frame at the model's size."""

    def __init__(self, clip: EvaluationClip, resources: Resources) -> None:
        self.clip = clip
        # Where every frame is a keyframe, metrics of keyframes are those of all frames
        self.context = KeyframeContext(clip, resources, interval=1)
        self.scorer = EditScorer(self.context)

    @property
    def source(self) -> Frames:
        """The source at the model's size."""
        return self.context.frames

    @property
    def reference(self) -> Frames:
        """The true edit if it is known, else the source."""
        return self.scorer.reference(0)

    @property
    def has_truth(self) -> bool:
        """Whether the true edit is known."""
        return self.scorer.truth(0) is not None

    def keyframes(self, interval: int) -> tuple[int, ...]:
        """Return the keyframes of the clip at an interval."""
        return keyframe_indices(len(self.clip.frames), interval, cuts=self.clip.cuts)

    def scores(self, frames: Frames, *, keyframes: Sequence[int]) -> dict[str, float]:
        """Measure every frame of an edited video.

        Args:
            frames: (time, height, width, 3), at the model's size.
            keyframes: the frames that were edited, from which the others were propagated.
        """
        found = self.scorer.scores(0, frames)
        found.pop("colour success", None)
        truth, checks = self.scorer.truth(0), self.scorer.checks(0, frames)
        if truth is not None and checks is not None:
            found |= self._between_keyframes(frames, truth, checks, keyframes=keyframes)
            found["drift"] = mean(
                colour_drift(frames[shot.frames], truth.frames[shot.frames], _regions(shot.masks))
                for shot in truth.shots
            )
        return finite_scores(found)

    def _between_keyframes(
        self, frames: Frames, truth: Truth, checks: Checks, *, keyframes: Sequence[int]
    ) -> dict[str, float]:
        """Compare the middles of the intervals with the keyframes around them."""
        at = np.isin(np.arange(len(frames)), keyframes)
        middles = self._middles(keyframes)
        found = {
            "pulse": self._pulse(frames, truth, keyframes, of="saturation"),
            "pulse of contrast": self._pulse(frames, truth, keyframes, of="contrast"),
            "passing, middles less keyframes": checks.passing(middles) - checks.passing(at),
        }
        if self.clip.edits[0].kind in UNIQUE_KINDS and middles.any():
            middle, edge = (mean_psnr(frames[where], truth.frames[where]) for where in (middles, at))
            found["PSNR, middles less keyframes"] = middle - edge
        return found

    def _middles(self, keyframes: Sequence[int]) -> Times:
        """Return the frames of the middle half of each interval between keyframes."""
        middles = np.zeros(len(self.clip.frames), np.bool_)
        for first, last in keyframe_intervals(keyframes, cuts=self.clip.cuts):
            quarter = (last - first) / 4
            inside = range(int(np.ceil(first + quarter)), int(last - quarter) + 1)
            middles[[frame for frame in inside if first < frame < last]] = True
        return middles

    def _pulse(self, frames: Frames, truth: Truth, keyframes: Sequence[int], *, of: str) -> float:
        """Compute the mean pulse of the edited object over the shots."""
        return mean(
            keyframe_pulse(
                frames[shot.frames],
                truth.frames[shot.frames],
                shot.masks[0],
                [frame - shot.frames.start for frame in keyframes if shot.frames.start <= frame < shot.frames.stop],
                of="saturation" if of == "saturation" else "contrast",
            )
            for shot in truth.shots
        )


def _regions(masks: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """Return the masks of the objects, and that of the background."""
    return [*masks, np.logical_not(masks.any(axis=0))]
