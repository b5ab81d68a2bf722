"""What a bench finds: one figure after the other, for machines and for people."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import process_time
from typing import Protocol, TypeVar

from tasks.evaluation.comparison import Measure
from tasks.evaluation.report.jsonl import Line, figure_line
from tasks.evaluation.report.tables import Table, figure_row

__all__ = ["Bench", "BenchRequest", "Figure", "Section", "bench_line", "bench_table", "least_seconds", "told"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRequest:
    """What is asked of a bench."""

    reference: Path | None = None
    """A folder of pairs that another tool was run on; None: the bench draws its own, without that tool's figures."""
    quick: bool = False
    """Small sizes, to see that it runs: bars that are set for another size are left out."""
    clips: tuple[Path, ...] = ()
    """Videos to measure besides drawn scenes."""
    sheets: Path | None = None
    """Where to leave contact sheets; None: none are made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure with what it was measured on."""

    measure: Measure
    """Name, unit, and the bar it is held to; `bar_method` does not count here."""
    subject: str
    value: float | None
    """None where it cannot be known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Figures that are found together."""

    title: str
    """What is being measured, in a few words, for whoever waits."""
    figures: Callable[[], Iterator[Figure]]
    """Measure: nothing is done before this is called."""


class Bench(Protocol):
    """A bench as `wave bench` runs it."""

    name: str
    title: str
    """One sentence: what it measures."""

    def sections(self, request: BenchRequest) -> tuple[Section, ...]:
        """Check the request and lay out what will be measured."""
        ...


def told(measure: Measure) -> Measure:
    """The same measure where it is only told, held to no bar."""
    return replace(measure, bar=None)


def bench_line(bench: str, figure: Figure) -> Line:
    """Tell a figure to machines."""
    return figure_line(bench, figure.measure, figure.subject, value=figure.value, bar=figure.measure.bar)


def bench_table(title: str, figures: Sequence[Figure]) -> Table:
    """Tabulate figures for people."""
    rows = tuple(figure_row(item.measure, item.subject, value=item.value, bar=item.measure.bar) for item in figures)
    return Table(title=title, headings=("measure", "of", "asked", "found", "holds"), rows=rows, labels=2)


def least_seconds(
    work: Callable[[], T], *, repeats: int = 1, clock: Callable[[], float] = process_time
) -> tuple[float, T]:
    """Return the least seconds that some work took, and what it gave.

    The least, since whatever else runs on the machine only ever adds to it.

    Args:
        work: is done `repeats` times.
        repeats: at least 1.
        clock: seconds; by default those of the processor, in all threads.
    """
    spent = []
    for _ in range(repeats):
        started = clock()
        made = work()
        spent.append(clock() - started)
    return min(spent), made
