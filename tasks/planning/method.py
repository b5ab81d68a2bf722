"""The settings of the method: a preset, the model's own advice, what a request says, and single settings by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from functools import cache
from typing import Any, Final, Literal, TypeVar, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from tasks.errors import TaskInputError
from tasks.models.checkpoints import Advice
from wave_ops.errors import WaveOpsError
from wave_ops.propagation.settings import PUBLISHED_PROPAGATION, PropagationSettings
from wave_ops.settings import NEGATIVE_PROMPT, EditingSettings, InversionSettings, WarpMaskSettings, WarpSchedule

__all__ = [
    "KeyframeFlow",
    "KeyframeFlowSettings",
    "Method",
    "MethodChoices",
    "Preset",
    "resolve_method",
    "setting_names",
    "split_settings",
]

T = TypeVar("T")

Preset = Literal["default", "paper"]
KeyframeFlow = Literal["composed", "direct"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyframeFlowSettings:
    """How the flow between keyframes is estimated."""

    keyframes: KeyframeFlow = "composed"
    """"composed": from frame to frame, then refined between the keyframes with DIS; "direct": at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """Every setting that a result depends on, apart from prompts, networks, size and interval."""

    flow: KeyframeFlowSettings
    mask: WarpMaskSettings
    inversion: InversionSettings
    editing: EditingSettings
    propagation: PropagationSettings
    negative_prompt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodChoices:
    """What a request says about the method; None leaves a value to the model's advice, then to the preset."""

    preset: Preset = "default"
    steps: int = 50
    seed: int = 0
    guidance_scale: float | None = None
    injection: float | None = None
    negative_prompt: str | None = None
    settings: Sequence[str] = ()
    """Single settings, NAME=VALUE, which have the last word."""
    source_prompt: str = ""
    controlled: bool = False
    """Whether there is a ControlNet."""
    advice: Advice = field(default_factory=Advice)


# What a checkpoint that recommends nothing is run with, without and with a ControlNet: plug-and-play's guidance and
# fractions where only injection holds the structure, the authors' guidance where edges hold it as well.
_GUIDANCE: Final[Mapping[bool, float]] = {False: 7.5, True: 12.5}
_INJECTION, _FEATURE_INJECTION = 0.5, 0.8

_OWN_OPTIONS: Final = {"inversion.steps": "--steps", "inversion.seed": "--seed", "propagation.seed": "--seed"}
"""Settings that a request has fields for."""


def resolve_method(choices: MethodChoices) -> Method:
    """Return every setting of the method.

    Raises:
        TaskInputError: one sentence about the first setting that is unknown or wrong.
    """
    method = _paper(choices) if choices.preset == "paper" else _default(choices)
    return _with_settings(method, split_settings(choices.settings))


def _paper(choices: MethodChoices) -> Method:
    """Return what WAVE's authors ran; the model's advice does not count."""
    schedule = WarpSchedule(steps=choices.steps, window="published")
    return Method(
        flow=KeyframeFlowSettings(keyframes="direct"),
        mask=WarpMaskSettings(tolerance_at="pixel"),
        inversion=InversionSettings(schedule=schedule, seed=choices.seed, noise_point="previous"),
        editing=EditingSettings(
            schedule=schedule,
            guidance_scale=_first(choices.guidance_scale, 12.5),
            injection_fraction=_first(choices.injection, 0.5),
        ),
        propagation=replace(PUBLISHED_PROPAGATION, seed=choices.seed),
        negative_prompt=_first(choices.negative_prompt, NEGATIVE_PROMPT),
    )


def _default(choices: MethodChoices) -> Method:
    advice, schedule = choices.advice, WarpSchedule(steps=choices.steps)
    attention = _first(choices.injection, advice.injection, _INJECTION)
    features = _first(choices.injection, advice.feature_injection, advice.injection, _FEATURE_INJECTION)
    # Without a source prompt there is nothing that the edit's prompt could disagree with
    keep = _first(advice.keep, False) and choices.source_prompt != ""
    return Method(
        flow=KeyframeFlowSettings(),
        mask=WarpMaskSettings(),
        inversion=InversionSettings(schedule=schedule, seed=choices.seed),
        editing=EditingSettings(
            schedule=schedule,
            guidance_scale=_first(choices.guidance_scale, advice.guidance_scale, _GUIDANCE[choices.controlled]),
            injection_fraction=attention,
            feature_injection_fraction=None if features == attention else features,
            keep=keep,
            paste=keep,
        ),
        propagation=PropagationSettings(seed=choices.seed),
        negative_prompt=_first(choices.negative_prompt, advice.negative_prompt, NEGATIVE_PROMPT),
    )


def split_settings(settings: Sequence[str]) -> dict[str, str]:
    """Split settings NAME=VALUE into names and values; a name that comes twice has the later value.

    Raises:
        TaskInputError: one of them has another form, or names an unknown setting.
    """
    values: dict[str, str] = {}
    for setting in settings:
        name, equals, value = (part.strip() for part in setting.partition("="))
        if not (name and equals and value):
            raise TaskInputError(
                f"The setting {setting!r} is not of the form NAME=VALUE, for example inversion.window=published."
            )
        if name in _OWN_OPTIONS:
            raise TaskInputError(f"The setting {name} has an option of its own: {_OWN_OPTIONS[name]}.")
        if name not in _hints():
            near = get_close_matches(name, _hints(), n=1)
            known = f"did you mean {near[0]}?" if near else f"known are {', '.join(setting_names())}."
            raise TaskInputError(f"Unknown setting {name}: {known}")
        values[name] = value
    return values


def setting_names() -> tuple[str, ...]:
    """Return the names of all settings, such as inversion.window."""
    return tuple(_hints())


def _with_settings(method: Method, values: Mapping[str, str]) -> Method:
    changed: dict[str, dict[str, Any]] = {}
    for name, text in values.items():
        group, _, key = name.partition(".")
        changed.setdefault(group, {})[key] = _parsed(name, text)
    try:
        return _changed(method, changed)
    except WaveOpsError as error:
        raise TaskInputError(f"The settings {' '.join(f'{k}={v}' for k, v in values.items())}: {error}.") from None


def _changed(method: Method, changed: Mapping[str, Mapping[str, Any]]) -> Method:
    groups = {group: dict(values) for group, values in changed.items()}
    schedule_keys = {entry.name for entry in fields(WarpSchedule)}
    inversion = groups.get("inversion", {})
    shared = {key: inversion.pop(key) for key in schedule_keys & set(inversion)}
    schedule = replace(method.inversion.schedule, **shared)  # one value for the inversion and its edits
    groups["inversion"] = {**inversion, "schedule": schedule}
    groups["editing"] = {**groups.get("editing", {}), "schedule": schedule}
    return replace(method, **{group: replace(getattr(method, group), **values) for group, values in groups.items()})


def _parsed(name: str, text: str) -> Any:
    hint = _hints()[name]
    value: Any = text.split(",") if "tuple" in str(hint) else text
    try:
        return TypeAdapter(hint, config=ConfigDict(allow_inf_nan=False)).validate_python(value)
    except ValidationError as error:
        reason = error.errors(include_url=False)[0]["msg"]
        raise TaskInputError(f"The setting {name} cannot be {text!r}: {reason[0].lower()}{reason[1:]}.") from None


@cache
def _hints() -> dict[str, Any]:
    """Return the type of each setting, by name."""
    return dict(_each_setting())


def _each_setting() -> Iterator[tuple[str, Any]]:
    groups: dict[str, tuple[type, ...]] = {
        "flow": (KeyframeFlowSettings,),
        "mask": (WarpMaskSettings,),
        "inversion": (WarpSchedule, InversionSettings),
        "editing": (EditingSettings,),
        "propagation": (PropagationSettings,),
    }
    for group, kinds in groups.items():
        for kind in kinds:
            hints = get_type_hints(kind)
            names = (entry.name for entry in fields(kind) if hints[entry.name] is not WarpSchedule)
            yield from ((f"{group}.{name}", hints[name]) for name in names if f"{group}.{name}" not in _OWN_OPTIONS)


def _first(*values: T | None) -> T:
    """Return the first value that is given."""
    return next(value for value in values if value is not None)
