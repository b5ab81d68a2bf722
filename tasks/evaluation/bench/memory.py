"""The bench of memory: the peak of each stage of the edit of a long clip, in a process of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from tasks.evaluation.bench._child import run_probe
from tasks.evaluation.bench.measurements import BenchRequest, Measurement, Section
from tasks.evaluation.comparisons.comparison import Measure
from tasks.planning.stages import STAGES

__all__ = ["BENCH", "MemoryBench"]

_PROBE: Final = "tasks.evaluation.bench._probe_clip"
_BATCH: Final = 4
"""Keyframes in one UNet call."""
_QUICK_SECONDS: Final = 1


class MemoryBench:
    """Decoding to assessing of a drawn clip of 1280x720 at 25 frames per second, with the embedded model."""

    name = "memory"
    title = "How much memory does each stage take for a long clip, at a few keyframes in a UNet call?"

    def sections(self, request: BenchRequest) -> tuple[Section, ...]:
        """Return one section, for a clip of so many seconds."""
        seconds = _QUICK_SECONDS if request.quick else request.seconds
        return (Section(title=f"{seconds} s", measure=partial(_measure, seconds)),)


def _measure(seconds: int) -> Iterator[Measurement]:
    with tempfile.TemporaryDirectory(prefix="wave-bench-") as place:
        clip, workspace = Path(place, "clip.mp4"), Path(place, "workspace")
        run_probe(_PROBE, "draw", clip, seconds, 0)
        for spec in STAGES:
            found = run_probe(_PROBE, spec.name, clip, workspace, _BATCH)
            measure = Measure(name=f"peak memory of {spec.name}", unit="MB", better="lower", target=2048.0)
            yield Measurement(measure=measure, subject=f"{seconds} s of 1280x720", value=found["peak"])


BENCH = MemoryBench()
