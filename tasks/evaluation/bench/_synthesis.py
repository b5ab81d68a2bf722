"""What patch synthesis costs on a pair, and how well its patches fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tasks.evaluation.bench._pairs import EbSynth, Pair
from tasks.evaluation.bench.figures import Figure, least_seconds, told
from tasks.evaluation.comparison import Measure
from tasks.evaluation.comparisons.propagation_baselines import warm_up
from wave_ops.propagation import PUBLISHED_GUIDES, Exemplar, PropagationSettings, Synthesis, synthesise

__all__ = ["FULL_SCHEDULE", "patch_errors", "synthesis_figures"]

Floats = NDArray[np.float32]

FULL_SCHEDULE = replace(PUBLISHED_GUIDES, rounds=12, sweeps=6, search_above=0, schedule="published")
"""The search that the method's authors ran: twelve rounds of six sweeps, and random search for every pixel."""

# Ratios are to EbSynth's figures on the same images.
_SECONDS = Measure(name="synthesis CPU seconds", unit="s", better="lower")
_SECONDS_RATIO = Measure(name="CPU seconds ratio", unit="", better="lower", bar=0.05)
_AIM = 0.02  # of EbSynth's seconds: 1 "to aim" reaches it
_TO_AIM = Measure(name="CPU seconds to aim", unit="", better="lower")
_MEAN = Measure(name="error mean", unit="", better="lower")
_MEDIAN = Measure(name="error median", unit="", better="lower")
_MEAN_RATIO = Measure(name="error mean ratio", unit="", better="lower", bar=1.0)
_MEDIAN_RATIO = Measure(name="error median ratio", unit="", better="lower", bar=1.0)
_SHARE = Measure(name="pixels no worse", unit="share", better="higher")
_MISTOLD = Measure(name="error mistold", unit="", better="lower", bar=1e-3)


def synthesis_figures(pair: Pair, *, full_schedule: bool = False, repeats: int = 1) -> Iterator[Figure]:
    """Paint a pair's target and tell seconds and errors, beside EbSynth's where they are known.

    The seconds are those of packing the keyframe and painting the target. The errors are computed here, from the
    matches and the image, not taken from the synthesis. Bars are set for the default schedule alone.
    The guides weigh what they did when EbSynth was run: errors compare where weights are the same.

    Args:
        pair: what is painted.
        full_schedule: search as long as the method's authors did, as a control.
        repeats: how often to paint; the least seconds count.
    """
    warm_up()
    settings = FULL_SCHEDULE if full_schedule else PUBLISHED_GUIDES
    seconds, made = least_seconds(lambda: _painted(pair, settings), repeats=repeats)
    errors = patch_errors(pair, made, settings)
    subject = f"{pair.name}, full schedule" if full_schedule else pair.name
    values = {
        _SECONDS: seconds,
        _MEAN: float(errors.mean()),
        _MEDIAN: float(np.median(errors)),
        _MISTOLD: float(np.abs(made.error - errors).max() / max(float(errors.mean()), 1.0)),
        **_beside(pair.ebsynth, seconds, errors),
    }
    for measure, value in values.items():
        shown = told(measure) if full_schedule and measure is not _MISTOLD else measure
        if value is not None or shown.bar is not None:
            yield Figure(measure=shown, subject=subject, value=value)


def _painted(pair: Pair, settings: PropagationSettings) -> Synthesis:
    return synthesise(Exemplar.build(pair.style, pair.source, settings=settings), pair.target, starts=(pair.start,))


def _beside(ebsynth: EbSynth | None, seconds: float, errors: NDArray[np.float64]) -> dict[Measure, float | None]:
    """Divide by EbSynth's figures."""
    if ebsynth is None:
        return dict.fromkeys((_SECONDS_RATIO, _TO_AIM, _MEAN_RATIO, _MEDIAN_RATIO, _SHARE))
    return {
        _SECONDS_RATIO: seconds / ebsynth.cpu_seconds,
        _TO_AIM: seconds / ebsynth.cpu_seconds / _AIM,
        _MEAN_RATIO: float(errors.mean()) / ebsynth.error_mean,
        _MEDIAN_RATIO: float(np.median(errors)) / ebsynth.error_median,
        _SHARE: None if ebsynth.error is None else float((errors <= ebsynth.error).mean()),
    }


def patch_errors(pair: Pair, made: Synthesis, settings: PropagationSettings) -> NDArray[np.float64]:
    """Compute the patch error of every target pixel from its match alone, (height, width).

    The sum over 5 x 5 pixels and all channels of weight times squared difference (8-bit units) between the target's
    patch and the matched one: the painted image against the style with a third of the style's weight, each guide
    with a third of its own. Both images repeat their border.
    """
    weights = (settings.colour_weight, settings.edge_weight, settings.temporal_weight, settings.position_weight)
    sources, targets = (pair.style, *pair.source), (made.image, *pair.target)
    total = np.zeros(made.error.shape)
    for weight, source, target in zip((settings.style_weight, *weights), sources, targets, strict=True):
        total += weight / 3 * _squares(source, target, made.matches)
    return total


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
