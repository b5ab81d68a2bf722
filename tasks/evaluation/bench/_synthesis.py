"""Seconds and patch errors of patch synthesis on a pair."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tasks.evaluation.bench._pairs import EbSynth, Pair
from tasks.evaluation.bench.measurements import Measurement, least_seconds, without_target
from tasks.evaluation.comparisons.comparison import Measure
from tasks.evaluation.comparisons.propagation_baselines import warm_up
from wave_ops.propagation import PUBLISHED_GUIDES, Exemplar, PropagationSettings, Synthesis, synthesise

__all__ = ["FULL_SCHEDULE", "measure_synthesis", "patch_errors"]

Floats = NDArray[np.float32]

FULL_SCHEDULE = replace(PUBLISHED_GUIDES, rounds=12, sweeps=6, search_above=0, schedule="published")
"""The published search: twelve rounds of six sweeps, and random search for every pixel."""

# Ratios are to EbSynth's results on the same images
_SECONDS = Measure(name="synthesis CPU seconds", unit="s", better="lower")
_SECONDS_RATIO = Measure(name="CPU seconds ratio", unit="", better="lower", target=0.05)
_TIME_TARGET = 0.02  # of EbSynth's seconds
_TIME_FRACTION = Measure(name="fraction of the time target", unit="", better="lower")
_MEAN = Measure(name="error mean", unit="", better="lower")
_MEDIAN = Measure(name="error median", unit="", better="lower")
_MEAN_RATIO = Measure(name="error mean ratio", unit="", better="lower", target=1.0)
_MEDIAN_RATIO = Measure(name="error median ratio", unit="", better="lower", target=1.0)
_NOT_WORSE = Measure(name="fraction not worse than EbSynth", unit="fraction", better="higher")
_REPORTED = Measure(name="reported-error deviation", unit="", better="lower", target=1e-3)


def measure_synthesis(pair: Pair, *, full_schedule: bool = False, repeats: int = 1) -> Iterator[Measurement]:
    """Paint a pair's target, and measure seconds and errors, also relative to EbSynth's if the pair has them.

    The seconds include packing the keyframe and painting the target. The errors are computed here, from the matches
    and the image, not taken from the synthesis. Targets apply to the default schedule only. The guides have the
    published weights, as they had for EbSynth: errors with other weights cannot be compared.

    Args:
        pair: keyframe, style and target.
        full_schedule: use the published search, as a control.
        repeats: how often to paint; the minimum of the seconds counts.
    """
    warm_up()
    settings = FULL_SCHEDULE if full_schedule else PUBLISHED_GUIDES
    seconds, painted = least_seconds(lambda: _paint(pair, settings), repeats=repeats)
    errors = patch_errors(pair, painted, settings)
    subject = f"{pair.name}, full schedule" if full_schedule else pair.name
    values = {
        _SECONDS: seconds,
        _MEAN: float(errors.mean()),
        _MEDIAN: float(np.median(errors)),
        _REPORTED: float(np.abs(painted.error[0].numpy() - errors).max() / max(float(errors.mean()), 1.0)),
        **_relative(pair.ebsynth, seconds, errors),
    }
    for measure, value in values.items():
        shown = without_target(measure) if full_schedule and measure is not _REPORTED else measure
        if value is not None or shown.target is not None:
            yield Measurement(measure=shown, subject=subject, value=value)


def _paint(pair: Pair, settings: PropagationSettings) -> Synthesis:
    return synthesise(Exemplar.build(pair.style, pair.source, settings=settings), pair.target, starts=(pair.start,))


def _relative(ebsynth: EbSynth | None, seconds: float, errors: NDArray[np.float64]) -> dict[Measure, float | None]:
    """Divide by EbSynth's results."""
    if ebsynth is None:
        return dict.fromkeys((_SECONDS_RATIO, _TIME_FRACTION, _MEAN_RATIO, _MEDIAN_RATIO, _NOT_WORSE))
    return {
        _SECONDS_RATIO: seconds / ebsynth.cpu_seconds,
        _TIME_FRACTION: seconds / ebsynth.cpu_seconds / _TIME_TARGET,
        _MEAN_RATIO: float(errors.mean()) / ebsynth.error_mean,
        _MEDIAN_RATIO: float(np.median(errors)) / ebsynth.error_median,
        _NOT_WORSE: None if ebsynth.error is None else float((errors <= ebsynth.error).mean()),
    }


def patch_errors(pair: Pair, painted: Synthesis, settings: PropagationSettings) -> NDArray[np.float64]:
    """Compute the patch error of every target pixel from its match alone, (height, width).

    The sum over 5 x 5 pixels and all channels of weight times squared difference (8-bit units) between the target's
    patch and the matched one: the painted image against the style with a third of the style's weight, each guide
    with a third of its own. Both images repeat their border.
    """
    weights = (settings.colour_weight, settings.edge_weight, settings.temporal_weight, settings.position_weight)
    sources, targets = (pair.style, *pair.source), (painted.image, *pair.target)
    total = np.zeros(painted.error.shape[1:])
    for weight, source, target in zip((settings.style_weight, *weights), sources, targets, strict=True):
        total += weight / 3 * _squares(_to_array(source), _to_array(target), painted.matches[0].numpy())
    return total


def _to_array(image: Tensor) -> Floats:
    array: Floats = image[0].permute(1, 2, 0).numpy()
    return array


def _squares(source: Floats, target: Floats, matches: Floats) -> NDArray[np.float64]:
    """Sum the squared differences of 5 x 5 patches; matches are centres in the source, x then y."""
    height, width = target.shape[:2]
    wide_source, wide_target = (np.pad(image, ((2, 2), (2, 2), (0, 0)), mode="edge") for image in (source, target))
    x, y = np.rint(matches).astype(np.intp)
    total = np.zeros((height, width))
    for down in range(5):
        for across in range(5):
            there = wide_target[down : down + height, across : across + width]
            total += np.square(wide_source[y + down, x + across] - there, dtype=np.float64).sum(axis=-1)
    return total
