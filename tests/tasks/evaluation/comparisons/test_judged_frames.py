"""The checker next to a person: 60 frames of whole edited videos, judged by eye.

`judged_frames.webp` has three frames of each of 20 clips, top to bottom: 0 and 16 are keyframes, 4 is propagated. They
are the default method's at 20 steps, as of the scenes' seed 7, which no default was chosen on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import cv2
import numpy as np
import pytest

from tasks.evaluation.clips.scene_clips import scene_clips
from tasks.evaluation.comparisons.edit_metrics import EditScorer
from tasks.evaluation.comparisons.keyframes import KeyframeContext
from tests._editing_clips import EMBEDDED, SIDE

FRAMES: Final = [0, 4, 16]
JUDGED: Final = (
    # The edit came through, everything else is kept; frame by frame
    ("111", "111"),
    ("101", "000"),
    ("111", "000"),
    ("111", "111"),
    ("000", "000"),
    ("101", "111"),
    ("111", "000"),
    ("101", "101"),
    ("111", "111"),
    ("101", "000"),
    ("111", "111"),
    ("111", "000"),
    ("111", "000"),
    ("101", "111"),
    ("111", "111"),
    ("101", "111"),
    ("111", "100"),
    ("111", "000"),
    ("111", "111"),
    ("111", "000"),
)


@pytest.mark.slow
def test_the_checker_agrees_with_a_person_on_19_of_20_judgements() -> None:
    image = cv2.imread(str(Path(__file__).with_name("judged_frames.webp")))
    assert image is not None
    frames = cv2.cvtColor(image, cv2.COLOR_BGR2RGB).reshape(len(JUDGED), SIDE, len(FRAMES), SIDE, 3).swapaxes(1, 2)
    agreed: list[bool] = []
    for clip, made, (edited, kept) in zip(scene_clips(20, seed=7, frame_count=17), frames, JUDGED, strict=True):
        video = clip.edits[0].truth.frames.copy()
        video[FRAMES] = made
        checks = EditScorer(KeyframeContext(clip, EMBEDDED, interval=1)).checks(0, video)
        for found, readable, judged in (
            (checks.edited, checks.edit_is_readable, edited),
            (checks.kept, checks.rest_is_readable, kept),
        ):
            same = found[FRAMES] == np.array([mark == "1" for mark in judged])
            agreed += same[readable[FRAMES]].tolist()
    assert len(agreed) > 110
    assert np.mean(agreed) > 0.945
