"""The bench of full-video propagation: seconds, memory, and how well patches fit and gradients fuse."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final

from tasks.bench._clips import check_clips, clip_interval
from tasks.bench._fusion import fusion_figures
from tasks.bench._interval import interval_figures, memory_figures
from tasks.bench._pairs import Pair, drawn_pairs, read_pairs
from tasks.bench._scenes import drawn_interval
from tasks.bench._synthesis import synthesis_figures
from tasks.bench.figures import BenchRequest, Figure, Section

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
        size, large = (_QUICK_SIZE, _QUICK_LARGE) if request.quick else (_SIZE, _LARGE)
        held = not request.quick
        pairs = drawn_pairs(size) if request.reference is None else read_pairs(request.reference)
        clips = tuple(
            Section(title=f"an interval of {path.name}", figures=partial(_clip_figures, request, index, size))
            for index, path in enumerate(request.clips)
        )
        return (
            *(_synthesis(pair, quick=request.quick) for pair in pairs),
            *(_synthesis(pair, quick=request.quick, full_schedule=True) for pair in pairs),
            Section(title="gradient fusion", figures=partial(fusion_figures, size, held=held)),
            Section(title="a drawn interval", figures=partial(_drawn_figures, size, held=held)),
            *clips,
            Section(title="memory", figures=partial(memory_figures, large, held=held)),
        )


def _synthesis(pair: Pair, *, quick: bool, full_schedule: bool = False) -> Section:
    repeats = 1 if quick or full_schedule else _REPEATS
    how = ", full schedule" if full_schedule else ""
    return Section(
        title=f"patch synthesis of {pair.name}{how}",
        figures=partial(synthesis_figures, pair, full_schedule=full_schedule, repeats=repeats),
    )


def _drawn_figures(size: tuple[int, int], *, held: bool) -> Iterator[Figure]:
    interval, _ = drawn_interval(_LENGTH, size)
    return interval_figures(interval, name="drawn", held=held)


def _clip_figures(request: BenchRequest, index: int, size: tuple[int, int]) -> Iterator[Figure]:
    path = request.clips[index]
    interval, _ = clip_interval(path, _LENGTH, size)
    return interval_figures(interval, name=path.stem, held=not request.quick)


BENCH = PropagationBench()
