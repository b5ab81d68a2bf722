"""The settings that a request leaves open: the model's own advice, then the method's defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from tasks.models.checkpoints import Advice
from wave_ops.editing import NEGATIVE_PROMPT, EditingSettings

__all__ = ["ResolvedAdvice", "resolve_advice"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedAdvice:
    """What an edit is run with where the model may have an opinion."""

    guidance_scale: float
    injection_fraction: float
    negative_prompt: str


def resolve_advice(
    advice: Advice,
    *,
    guidance_scale: float | None = None,
    injection: float | None = None,
    negative_prompt: str | None = None,
) -> ResolvedAdvice:
    """Return each value that is given, else the model's advice, else the method's default."""
    default = EditingSettings()
    return ResolvedAdvice(
        guidance_scale=_first(guidance_scale, advice.guidance_scale, default.guidance_scale),
        injection_fraction=_first(injection, advice.injection, default.injection_fraction),
        negative_prompt=_first(negative_prompt, advice.negative_prompt, NEGATIVE_PROMPT),
    )


def _first(*values: T | None) -> T:
    """Return the first value that is given."""
    return next(value for value in values if value is not None)
