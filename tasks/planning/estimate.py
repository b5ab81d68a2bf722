"""Estimates of time, memory and disk before a run, from what past runs of the workspace took.

The model is a line for each stage: seconds by the pixels that it computes, and bytes stored by those of its arrays
before compression, each with a constant part. Lines are fitted by medians, so that a past run on a busy machine, or the
first one, which compiles, counts no more than any other. Only results of one stage, version, device and kind are
compared.

Convention: seconds of computing, one result after the other; bytes; MiB of 2^20 bytes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from storage.cost_table import CostTable
from storage.workspace import Workspace
from tasks.planning.bulk import BulkPlan, PlannedRow
from tasks.planning.plan import EditPlan
from tasks.planning.stages import STAGES, StageLoad, StageSettings, StageSpec

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Estimate",
    "PastCosts",
    "Seconds",
    "StageEstimate",
    "estimate_dataset",
    "estimate_edit",
    "read_costs",
    "result_sizes",
]

_LATEST = 64  # past results of a kind that are compared: older ones may be those of another machine
_DIFFERENT = 2.0  # factor between two sizes from which a slope is taken
_SHORTEST = 0.01  # seconds: the precision of the records

Floats: TypeAlias = NDArray[np.float64]
Kind: TypeAlias = tuple[str, int, str, str]
"""Stage, version, device, and the kind of the stage's load."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seconds:
    """A time with its spread: the quartiles of past errors."""

    low: float
    middle: float
    high: float

    def __add__(self, other: Seconds) -> Seconds:
        return Seconds(low=self.low + other.low, middle=self.middle + other.middle, high=self.high + other.high)


_NO_TIME = Seconds(low=0.0, middle=0.0, high=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageEstimate:
    """What the results of one stage will take."""

    stage: str
    results: int
    """Results to compute; shared ones count once."""
    unknown: int
    """Results without a past run to compare with; the time and the memory are those of the others."""
    seconds: Seconds
    gpu_seconds: float
    """Those of the time that pass on a GPU."""
    peak_memory_mib: float
    """Of the process; 0 where it is not known."""
    disk: int
    """Bytes; those of frames and arrays before compression, where `disk_known` is false."""
    disk_known: bool
    """False without a past run."""
    past: int
    """Past results of the same kinds."""
    error_factor: float | None
    """By what factor past results differ from their own estimates from the others, in the median; None below two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What the stages of a run will take."""

    stages: tuple[StageEstimate, ...]

    @property
    def unknown(self) -> int:
        """Results without a past run to compare with."""
        return sum(stage.unknown for stage in self.stages)

    @property
    def seconds(self) -> Seconds:
        """Time of all results with a past run, one after the other."""
        return sum((stage.seconds for stage in self.stages), _NO_TIME)

    @property
    def gpu_hours(self) -> float:
        """Hours of those results that pass on a GPU."""
        return sum(stage.gpu_seconds for stage in self.stages) / 3600

    @property
    def peak_memory_mib(self) -> float:
        """Peak memory of the process; 0 where it is not known."""
        return max((stage.peak_memory_mib for stage in self.stages), default=0.0)

    @property
    def disk(self) -> int:
        """Bytes that the workspace grows by."""
        return sum(stage.disk for stage in self.stages)

    @property
    def disk_known(self) -> bool:
        """Whether all sizes are learnt from past runs."""
        return all(stage.disk_known for stage in self.stages)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """A cost as a function of a size: a constant part, and one that grows with the size; neither is negative."""

    start: float
    slope: float

    @classmethod
    def fit(cls, sizes: Floats, costs: Floats) -> _Line:
        """Fit a line by the median of the slopes between results of different sizes (Theil and Sen).

        Where no two sizes differ by a factor of two, the constant part cannot be separated from the other: it is taken
        for zero, and the slope is the median rate.
        """
        smaller, larger = np.nonzero(sizes[:, None] * _DIFFERENT <= sizes[None, :])
        if len(smaller):
            slopes = (costs[larger] - costs[smaller]) / (sizes[larger] - sizes[smaller])
            slope = max(float(np.median(slopes)), 0.0)
            start = float(np.median(costs - slope * sizes))
            if start >= 0:
                return cls(start=start, slope=slope)
        return cls(start=0.0, slope=float(np.median(costs / sizes)))

    def at(self, sizes: Floats) -> Floats:
        """Return the costs at several sizes."""
        return self.start + self.slope * sizes


class _PastTimes:
    """The times of past results of one kind."""

    def __init__(self, costs: pd.DataFrame) -> None:
        found = costs.tail(_LATEST)
        self._sizes = found["pixels"].to_numpy(np.float64)
        self._times = np.maximum(found["seconds"].to_numpy(np.float64), _SHORTEST)
        self.count = len(costs)

    def predict(self, sizes: Floats) -> Seconds:
        """Return the time of several results together."""
        middle = float(_Line.fit(self._sizes, self._times).at(sizes).sum())
        low, high = map(float, np.percentile(self.errors, (25, 75))) if len(self.errors) else (1.0, 1.0)
        return Seconds(low=middle * min(low, 1.0), middle=middle, high=middle * max(high, 1.0))

    @cached_property
    def errors(self) -> Floats:
        """Time of each past result as a multiple of its estimate from the others; empty below two."""
        if len(self._sizes) < 2:
            return np.empty(0)
        others = (np.arange(len(self._sizes)) != place for place in range(len(self._sizes)))
        lines = [_Line.fit(self._sizes[chosen], self._times[chosen]) for chosen in others]
        predicted = np.array([float(line.at(size)) for line, size in zip(lines, self._sizes, strict=True)])
        errors: Floats = self._times / np.maximum(predicted, _SHORTEST)
        return errors


class _PastMemory:
    """The peak memory of the process in past results of one kind."""

    def __init__(self, costs: pd.DataFrame, *, floor: float) -> None:
        self._at_once = costs["at_once"].to_numpy(np.float64)
        self._peaks = costs["peak_memory_mib"].to_numpy(np.float64)
        self._floor = floor

    def predict(self, at_once: int) -> float:
        """Return the least upper limit, in MiB, that past results set.

        What is above the floor, the memory of the process without frames, grows at most as the pixels do. Other
        stages have added to these peaks, so that the lowest limit is the best one.
        """
        grown = np.maximum(at_once / self._at_once, 1.0)
        return float(np.min(self._floor + (self._peaks - self._floor) * grown))


class PastCosts:
    """What the past results of a workspace took, by stage."""

    def __init__(self, costs: pd.DataFrame) -> None:
        """Take the rows of a `CostTable`."""
        known = costs[(costs["pixels"] > 0) & (costs["array_bytes"] > 0)]
        floor = float(known["peak_memory_mib"].min()) if len(known) else 0.0
        kinds = [(cast("Kind", key), rows) for key, rows in known.groupby(["stage", "version", "device", "kind"])]
        self._times = {key: _PastTimes(rows) for key, rows in kinds}
        self._memory = {key: _PastMemory(rows, floor=floor) for key, rows in kinds}
        self._disk = {cast("tuple[str, int]", key): _disk(rows) for key, rows in known.groupby(["stage", "version"])}
        self.paths: Mapping[str, str] = dict(zip(costs["digest"], costs["path"], strict=True))
        """Path of each result that was ever computed, by digest."""

    def estimate(self, spec: StageSpec[StageSettings], loads: Iterable[StageLoad]) -> StageEstimate:
        """Estimate what results of one stage take together."""
        several = list(loads)
        by_kind: dict[Kind, list[StageLoad]] = defaultdict(list)
        for load in several:
            by_kind[spec.name, spec.version, load.device, load.kind].append(load)
        known = {kind: found for kind, found in by_kind.items() if kind in self._times}
        times = {kind: self._times[kind].predict(_pixels(found)) for kind, found in known.items()}
        peaks = [self._memory[kind].predict(max(load.at_once for load in found)) for kind, found in known.items()]
        errors = np.concatenate([np.empty(0), *(self._times[kind].errors for kind in known)])
        return StageEstimate(
            stage=spec.name,
            results=len(several),
            unknown=len(several) - sum(map(len, known.values())),
            seconds=sum(times.values(), _NO_TIME),
            gpu_seconds=sum(time.middle for (_, _, device, _), time in times.items() if device != "cpu"),
            peak_memory_mib=max(peaks, default=0.0),
            disk=self.disk(spec, several),
            disk_known=not several or (spec.name, spec.version) in self._disk,
            past=sum(self._times[kind].count for kind in known),
            error_factor=float(np.exp(np.median(np.abs(np.log(errors))))) if len(errors) else None,
        )

    def disk(self, spec: StageSpec[StageSettings], loads: Iterable[StageLoad]) -> int:
        """Return the bytes that results take; without a past run, those of their arrays before compression."""
        sizes = np.array([load.array_bytes for load in loads], np.float64)
        line = self._disk.get((spec.name, spec.version))
        return round(float((sizes if line is None else line.at(sizes)).sum()))


def _disk(costs: pd.DataFrame) -> _Line:
    found = costs.tail(_LATEST)
    return _Line.fit(found["array_bytes"].to_numpy(np.float64), found["stored_bytes"].to_numpy(np.float64))


def read_costs(workspace: Workspace) -> PastCosts:
    """Read what past runs in a workspace took; lists the table of costs alone."""
    return PastCosts(CostTable(workspace).read())


def estimate_edit(plan: EditPlan, costs: PastCosts, *, complete: Set[str]) -> Estimate:
    """Estimate an edit.

    Args:
        plan: the edit. Until its clip has been decoded, the number of frames is what the file promises.
        costs: from `read_costs`.
        complete: names of the stages that are complete; one that was begun counts as a whole.
    """
    return Estimate(
        stages=tuple(
            costs.estimate(spec, [] if spec.name in complete else [spec.load(part) for part in plan.parts(spec)])
            for spec in STAGES
        )
    )


def estimate_dataset(bulk: BulkPlan, costs: PastCosts) -> Estimate:
    """Estimate the rows that a data set has to compute.

    A result counts once, however many rows it is shared by, and not at all if a past run has computed it and its
    completion record is still there.
    """
    missing = _missing(bulk.to_run, Workspace.open(bulk.execution.workspace), costs)
    return Estimate(stages=tuple(costs.estimate(spec, missing[place].values()) for place, spec in enumerate(STAGES)))


def result_sizes(bulk: BulkPlan, costs: PastCosts) -> dict[str, int]:
    """Return the bytes that each result which a data set has to compute will take, by digest."""
    missing = _missing(bulk.to_run, Workspace.open(bulk.execution.workspace), costs)
    sized = zip(STAGES, missing, strict=True)
    return {digest: costs.disk(spec, [load]) for spec, found in sized for digest, load in found.items()}


def _missing(rows: Iterable[PlannedRow], workspace: Workspace, costs: PastCosts) -> list[dict[str, StageLoad]]:
    """Return the load of each result that has to be computed, by digest, for each stage."""
    wanted: list[dict[str, StageLoad]] = [{} for _ in STAGES]
    for item in rows:
        for found, digests, loads in zip(wanted, item.stages, item.loads, strict=True):
            found.update(zip(digests, loads, strict=True))
    computed = {costs.paths[digest] for found in wanted for digest in found if digest in costs.paths}
    stored = workspace.recorded(computed)
    return [
        {digest: load for digest, load in found.items() if costs.paths.get(digest) not in stored} for found in wanted
    ]


def _pixels(loads: Iterable[StageLoad]) -> Floats:
    # Nothing has no logarithm: a clip of one frame has no pairs of frames
    return np.array([max(load.pixels, 1) for load in loads], np.float64)
