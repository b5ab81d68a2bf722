"""Requests and measurements of a bench, as JSON records and as a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import process_time
from typing import Protocol, TypeVar

from tasks.errors import TaskInputError
from tasks.evaluation.comparisons.comparison import Measure
from tasks.evaluation.report.jsonl import Record, metric_record
from tasks.evaluation.report.tables import Table, metric_row

__all__ = [
    "Bench",
    "BenchRequest",
    "Measurement",
    "Section",
    "bench_table",
    "chosen_sections",
    "least_seconds",
    "measurement_record",
    "whole_numbers",
    "without_target",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRequest:
    """The request of a bench."""

    ebsynth_pairs: Path | None = None
    """A folder of pairs with EbSynth's results; None: the bench draws its own pairs, without these results."""
    quick: bool = False
    """Small sizes, to check that the bench runs; targets set for another size are left out."""
    videos: tuple[Path, ...] = ()
    """Videos to measure in addition to drawn scenes."""
    contact_sheets: Path | None = None
    """The folder for contact sheets; None: none are drawn."""
    rows: int | None = None
    """Rows or clips of a data set, for a bench that has some; None: as many as the targets are set for."""
    gpus: int = 8
    """GPUs of the bench of the scale."""
    gpu_seconds: float = 30.0
    """Seconds of each clip on a GPU, in the bench of the scale."""
    cpu_seconds: float = 30.0
    """Seconds of each clip on a CPU, in the bench of the scale."""
    s3: bool = False
    """Whether the workspace of the bench of the scale is in an object store (SeaweedFS); else in a folder."""
    seconds: int = 600
    """Seconds of the clip of the bench of memory."""
    device: str = "cpu"
    """Torch device of the bench of the diffusion core: cpu, cuda or auto."""
    keyframes: tuple[int, ...] = ()
    """Numbers of keyframes of which the bench of the core measures the memory; none: those of its table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One measured value of a metric and its subject."""

    measure: Measure
    """The metric, with its target if that applies; `target_method` has no effect here."""
    subject: str
    """The name of the pair, size or interval that was measured."""
    value: float | None
    """None if it cannot be computed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Measurements that are made together."""

    title: str
    """The subject in a few words, shown while it is measured."""
    measure: Callable[[], Iterator[Measurement]]
    """Runs the measurements; nothing is computed before this is called."""


class Bench(Protocol):
    """A bench as `wave bench` runs it."""

    name: str
    title: str
    """One sentence: the question that it answers."""

    def sections(self, request: BenchRequest) -> tuple[Section, ...]:
        """Check the request and return the sections to measure."""
        ...


def chosen_sections(sections: Sequence[Section], names: Sequence[str]) -> list[Section]:
    """Return the sections with a name, or a part of it, among those given; all without names.

    Raises:
        TaskInputError: if a name fits no section.
    """
    for name in names:
        if not any(name in section.title for section in sections):
            known = ", ".join(section.title for section in sections)
            raise TaskInputError(f"Unknown section {name!r} of the bench; choose from {known}.")
    return [section for section in sections if not names or any(name in section.title for name in names)]


def whole_numbers(text: str) -> tuple[int, ...]:
    """Read numbers with commas between them; none from an empty text.

    Raises:
        TaskInputError: if it is something else.
    """
    try:
        return tuple(int(each) for each in text.split(",") if text)
    except ValueError:
        raise TaskInputError(f"Expected numbers with commas between them, such as 8,64,512, got {text!r}.") from None


def without_target(measure: Measure) -> Measure:
    """Return a metric without its target."""
    return replace(measure, target=None)


def measurement_record(bench: str, measurement: Measurement) -> Record:
    """Build the JSON record of a measurement."""
    measure = measurement.measure
    return metric_record(bench, measure, measurement.subject, value=measurement.value, target=measure.target)


def bench_table(title: str, measurements: Sequence[Measurement]) -> Table:
    """Tabulate measurements with their targets."""
    rows = tuple(
        metric_row(item.measure, item.subject, value=item.value, target=item.measure.target) for item in measurements
    )
    return Table(title=title, headings=("metric", "subject", "target", "value", "met"), rows=rows, labels=2)


def least_seconds(
    work: Callable[[], T], *, repeats: int = 1, clock: Callable[[], float] = process_time
) -> tuple[float, T]:
    """Return the minimum seconds over several runs of a function, and its last result.

    The minimum, since other load on the machine can only add time.

    Args:
        work: called `repeats` times.
        repeats: at least 1.
        clock: seconds; by default CPU seconds of all threads.
    """
    spent = []
    for _ in range(repeats):
        started = clock()
        result = work()
        spent.append(clock() - started)
    return min(spent), result
