"""Predicted memory of an edit over what a new process takes for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from tasks.evaluation.bench._child import run_probe
from tasks.evaluation.bench._random_models import random_model
from tasks.evaluation.bench.measurements import Measurement, without_target
from tasks.evaluation.comparisons.comparison import Measure
from wave_ops.settings import EditingSettings
from wave_ops.stage_footprints import edit_footprint

__all__ = ["PredictedSize", "measure_predictions"]

PredictedSize = tuple[int, int, int]
"""Height and width of the latents, keyframes, keyframes in one UNet call."""
_PEAK: Final = Measure(name="measured peak of a step of an edit", unit="MB", better="lower")
_ERROR: Final = Measure(name="error of the predicted peak", unit="", better="lower", target=0.2)
_PROBE: Final = "tasks.evaluation.bench._probe_peak"


def measure_predictions(sizes: Sequence[PredictedSize], *, check_target: bool) -> Iterator[Measurement]:
    """Compare predictions with the peaks of new processes, over the loaded model, in megabytes of 2^20 bytes.

    Args:
        sizes: of the edits; see `_probe_peak`.
        check_target: whether the target applies.
    """
    for side, keyframes, batch in sizes:
        found = run_probe(_PROBE, side, keyframes, batch)
        peak = found["peak"] - found["before"]
        model = random_model("tiny" if side <= 16 else "half", device="meta")
        pixels = side * model.vae_factor
        predicted = edit_footprint(model, (pixels, pixels), EditingSettings(), device="cpu").bytes(keyframes, batch)
        subject = f"{keyframes} keyframes of {pixels}x{pixels}, {batch} at a time"
        yield Measurement(measure=_PEAK, subject=subject, value=peak)
        yield Measurement(
            measure=_ERROR if check_target else without_target(_ERROR),
            subject=subject,
            value=abs(predicted / 2**20 / peak - 1),
        )
