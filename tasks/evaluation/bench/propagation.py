"""The bench of full-video propagation: seconds, memory, patch errors and gradient fusion."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from tasks.evaluation.bench._contact_sheets import check_contact_sheets, draw_contact_sheet
from tasks.evaluation.bench._fusion import measure_fusion
from tasks.evaluation.bench._interval import measure_interval, measure_memory
from tasks.evaluation.bench._pairs import Pair, drawn_pairs, read_pairs
from tasks.evaluation.bench._scenes import drawn_interval
from tasks.evaluation.bench._synthesis import measure_synthesis
from tasks.evaluation.bench._videos import check_videos, video_interval
from tasks.evaluation.bench.measurements import BenchRequest, Section
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
    title = "How fast and accurate is full-video propagation, and how much memory does it need?"

    def sections(self, request: BenchRequest) -> tuple[Section, ...]:
        """Check the request and return the sections to measure.

        Raises:
            TaskInputError: if a file of a pair is missing or invalid, or contact sheets cannot be written.
            VideoError: if a file is not a video.
        """
        check_videos(request.videos)
        check_contact_sheets(request.contact_sheets, ["drawn", *(path.stem for path in request.videos)])
        size, large = (_QUICK_SIZE, _QUICK_LARGE) if request.quick else (_SIZE, _LARGE)
        sheets, check_target = request.contact_sheets, not request.quick
        pairs = drawn_pairs(size) if request.ebsynth_pairs is None else read_pairs(request.ebsynth_pairs)
        drawn = _Subject("drawn", partial(drawn_interval, _LENGTH, size))
        videos = tuple(_Subject(path.stem, partial(video_interval, path, _LENGTH, size)) for path in request.videos)
        return (
            *(_synthesis(pair, quick=request.quick) for pair in pairs),
            *(_synthesis(pair, quick=request.quick, full_schedule=True) for pair in pairs),
            Section(title="gradient fusion", measure=partial(measure_fusion, size, check_target=check_target)),
            *(_interval(subject, check_target=check_target) for subject in (drawn, *videos)),
            Section(title="memory", measure=partial(measure_memory, large, check_target=check_target)),
            *(() if sheets is None else (_contact_sheet(each, sheets) for each in videos or (drawn,))),
        )


class _Subject(NamedTuple):
    """The subject of a measurement: its name, and a function that draws or reads the interval when it is needed."""

    name: str
    source: Callable[[], tuple[KeyframeInterval, NDArray[np.uint8]]]


def _synthesis(pair: Pair, *, quick: bool, full_schedule: bool = False) -> Section:
    repeats = 1 if quick or full_schedule else _REPEATS
    suffix = ", full schedule" if full_schedule else ""
    return Section(
        title=f"patch synthesis of {pair.name}{suffix}",
        measure=partial(measure_synthesis, pair, full_schedule=full_schedule, repeats=repeats),
    )


def _interval(subject: _Subject, *, check_target: bool) -> Section:
    devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    return Section(
        title=f"an interval of {subject.name}",
        measure=lambda: measure_interval(
            subject.source()[0], devices=devices, name=subject.name, check_target=check_target
        ),
    )


def _contact_sheet(subject: _Subject, folder: Path) -> Section:
    return Section(
        title=f"a contact sheet of {subject.name}",
        measure=partial(draw_contact_sheet, subject.source, name=subject.name, path=folder / f"{subject.name}.png"),
    )


BENCH = PropagationBench()
