"""Memory and time of many keyframes on a tiny model, each number of them in a new process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from tasks.evaluation.bench._child import run_probe
from tasks.evaluation.bench.measurements import Measurement, without_target
from tasks.evaluation.comparisons.comparison import Measure

__all__ = ["measure_keyframes"]

_PEAK: Final = Measure(name="peak over the loaded model", unit="MB", better="lower")
_SECONDS: Final = Measure(name="CPU seconds per keyframe", unit="s", better="lower")
_GROWTH: Final = Measure(name="peak memory, most keyframes over fewest", unit="", better="lower", target=1.1)
_LINEAR: Final = Measure(name="seconds per keyframe, most keyframes over fewest", unit="", better="lower", target=1.1)
_PROBE: Final = "tasks.evaluation.bench._probe_keyframes"


def measure_keyframes(
    counts: Sequence[int], *, batch: int, side: int, steps: int, check_target: bool
) -> Iterator[Measurement]:
    """Invert and edit numbers of keyframes in batches of one size.

    Megabytes are 2^20 bytes. The growth compares the peaks of the processes, with interpreter and model.

    Args:
        counts: numbers of keyframes, in ascending order.
        batch: keyframes in one UNet call.
        side: height and width of the latents.
        steps: of the inversion, and of the edit.
        check_target: whether the targets apply.
    """
    peaks, rates = [], []
    for count in counts:
        found = run_probe(_PROBE, count, batch, side, steps)
        subject = f"{count} keyframes in batches of {batch}"
        peaks.append(found["peak"])
        rates.append(found["seconds"] / count)
        yield Measurement(measure=_PEAK, subject=subject, value=found["peak"] - found["before"])
        yield Measurement(measure=_SECONDS, subject=subject, value=rates[-1])
    subject = f"{counts[0]} to {counts[-1]} keyframes"
    for measure, values in ((_GROWTH, peaks), (_LINEAR, rates)):
        yield Measurement(
            measure=measure if check_target else without_target(measure), subject=subject, value=values[-1] / values[0]
        )
