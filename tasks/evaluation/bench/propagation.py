"""The bench of full-video propagation: seconds, memory, and how well patches fit and gradients fuse."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.evaluation.bench._clips import check_clips, clip_interval
from tasks.evaluation.bench._contact_sheets import check_sheets, sheet_figures
from tasks.evaluation.bench._fusion import fusion_figures
from tasks.evaluation.bench._interval import interval_figures, memory_figures
from tasks.evaluation.bench._pairs import Pair, drawn_pairs, read_pairs
from tasks.evaluation.bench._scenes import drawn_interval
from tasks.evaluation.bench._synthesis import synthesis_figures
from tasks.evaluation.bench.figures import BenchRequest, Section
from wave_ops.propagation import KeyframeInterval

__all__ = ["BENCH", "PropagationBench"]

_SIZE: Final = (512, 512)
_LARGE: Final = (720, 1280)
_LENGTH: Final = 8
_QUICK_SIZE: Final = (64, 64)
_QUICK_LARGE: Final = (72, 128)
_REPEATS: Final = 3


class PropagationBench:
    """Patch synthesis on pairs, gradient fusion, and whole intervals."""

    name = "propagation"
    title = "How fast, how lean and how exact is full-video propagation?"

    def sections(self, request: BenchRequest) -> tuple[Section, ...]:
        """Check the request and lay out what will be measured.

        Raises:
            TaskInputError: a pair lacks a file or holds a wrong one, or the sheets cannot be written.
            VideoError: a clip is no video.
        """
        check_clips(request.clips)
        check_sheets(request.sheets, ["drawn", *(path.stem for path in request.clips)])
        size, large = (_QUICK_SIZE, _QUICK_LARGE) if request.quick else (_SIZE, _LARGE)
        held = not request.quick
        pairs = drawn_pairs(size) if request.reference is None else read_pairs(request.reference)
        drawn = _Subject("drawn", partial(drawn_interval, _LENGTH, size))
        clips = tuple(_Subject(path.stem, partial(clip_interval, path, _LENGTH, size)) for path in request.clips)
        return (
            *(_synthesis(pair, quick=request.quick) for pair in pairs),
            *(_synthesis(pair, quick=request.quick, full_schedule=True) for pair in pairs),
            Section(title="gradient fusion", figures=partial(fusion_figures, size, held=held)),
            *(_interval(subject, held=held) for subject in (drawn, *clips)),
            Section(title="memory", figures=partial(memory_figures, large, held=held)),
            *(() if request.sheets is None else (_sheet(each, request.sheets) for each in clips or (drawn,))),
        )


class _Subject(NamedTuple):
    """What an interval is measured on: its name, and what draws or reads it when it is needed."""

    name: str
    source: Callable[[], tuple[KeyframeInterval, NDArray[np.uint8]]]


def _synthesis(pair: Pair, *, quick: bool, full_schedule: bool = False) -> Section:
    repeats = 1 if quick or full_schedule else _REPEATS
    how = ", full schedule" if full_schedule else ""
    return Section(
        title=f"patch synthesis of {pair.name}{how}",
        figures=partial(synthesis_figures, pair, full_schedule=full_schedule, repeats=repeats),
    )


def _interval(subject: _Subject, *, held: bool) -> Section:
    return Section(
        title=f"an interval of {subject.name}",
        figures=lambda: interval_figures(subject.source()[0], name=subject.name, held=held),
    )


def _sheet(subject: _Subject, folder: Path) -> Section:
    return Section(
        title=f"a contact sheet of {subject.name}",
        figures=partial(sheet_figures, subject.source, name=subject.name, path=folder / f"{subject.name}.png"),
    )


BENCH = PropagationBench()
