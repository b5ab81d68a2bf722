"""ControlNets of an edit: what each was trained on, its weight, its part of the steps, and where its input is from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from storage.digest import digest_of
from tasks.errors import TaskInputError
from tasks.models.checkpoints import ControlKind, ModelIdentity, NetworkIdentity, resolve_controlnet, split_kind

__all__ = [
    "ControlIdentity",
    "ControlInput",
    "ControlNetSpec",
    "ControlSet",
    "parse_control",
    "parse_controlnet",
    "resolve_controlnets",
]

_TAIL: Final = re.compile(r"(?P<spec>.+?)(?::(?P<weight>[^:/]+))?(?::(?P<start>[\d.]+)-(?P<stop>[\d.]+))?")
_EXAMPLE: Final = "KIND=SPEC:WEIGHT:FROM-TO, for example depth=owner/name:0.5:0-0.6"


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlNetSpec:
    """One ControlNet as a request names it."""

    network: str
    """With its kind, if that is given: what `resolve_controlnet` reads."""
    kind: ControlKind
    weight: float | None = None
    """None for that of the settings."""
    start: float = 0.0
    """Part of the steps in which it acts, 0 to 1 from the noisiest one."""
    stop: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlInput:
    """A control video: a frame for each one of the clip."""

    location: str
    """Path or URL."""
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlIdentity:
    """A ControlNet, found and identified, with its input."""

    network: NetworkIdentity
    spec: ControlNetSpec
    video: ControlInput | None = None
    """None where the input is computed from the clip: canny edges."""

    def described(self) -> dict[str, object]:
        """Return what it is and how it acts, as JSON values without names of files."""
        spec = self.spec
        return {
            "kind": spec.kind,
            "digest": self.network.digest,
            "weight": spec.weight,
            "steps": [spec.start, spec.stop],
            "control": None if self.video is None else self.video.digest,
        }


@dataclass(frozen=True, slots=True)
class ControlSet:
    """The ControlNets of an edit, at least one."""

    items: tuple[ControlIdentity, ...]

    @property
    def networks(self) -> tuple[NetworkIdentity, ...]:
        """The ControlNets themselves, as they are loaded."""
        return tuple(item.network for item in self.items)

    @property
    def digest(self) -> str:
        """That of all that they change; of canny edges alone, in all steps and with the usual weight, the network's."""
        first, *others = self.items
        plain = first.video is None and (first.spec.weight, first.spec.start, first.spec.stop) == (None, 0.0, 1.0)
        if plain and not others:
            return first.network.digest
        return digest_of("controlnets", [item.described() for item in self.items])


def parse_controlnet(text: str) -> ControlNetSpec:
    """Read [KIND=]SPEC[:WEIGHT[:FROM-TO]].

    Raises:
        TaskInputError: if the kind is unknown, the weight not a number, or FROM-TO no part of 0 to 1.
    """
    match = _TAIL.fullmatch(text)
    if match is None or (match["start"] and not match["weight"]):
        raise TaskInputError(f"The ControlNet {text!r} is not of the form {_EXAMPLE}.")
    kind, _ = split_kind(match["spec"])
    if match["weight"] is None:
        return ControlNetSpec(network=match["spec"], kind=kind or "canny")
    try:
        weight, start, stop = (float(value) for value in (match["weight"], match["start"] or 0, match["stop"] or 1))
    except ValueError:
        raise TaskInputError(f"The ControlNet {text!r} is not of the form {_EXAMPLE}.") from None
    if not abs(weight) <= 10 or not 0 <= start < stop <= 1:
        raise TaskInputError(
            f"The ControlNet {text!r} needs a weight from -10 to 10, and a part of the steps FROM-TO from 0 to 1."
        )
    return ControlNetSpec(network=match["spec"], kind=kind or "canny", weight=weight, start=start, stop=stop)


def parse_control(text: str) -> tuple[ControlKind, str]:
    """Read KIND=VIDEO.

    Raises:
        TaskInputError: if the kind is missing or unknown.
    """
    kind, video = split_kind(text)
    if kind is None or not video:
        raise TaskInputError(f"The control {text!r} is not of the form KIND=VIDEO, for example depth=depth.mp4.")
    return kind, video


def resolve_controlnets(
    specs: Sequence[str],
    inputs: Sequence[tuple[ControlKind, ControlInput]],
    *,
    model: ModelIdentity,
    dtype: str = "float32",
) -> ControlSet | None:
    """Find the ControlNets of an edit, without loading them.

    Args:
        specs: [KIND=]SPEC[:WEIGHT[:FROM-TO]] each, or "none".
        inputs: the control videos with their kinds.
        model: the model that they control.
        dtype: name of a torch dtype; float16 prefers weights of the fp16 variant.

    Returns:
        The ControlNets, or None where there are none.

    Raises:
        TaskInputError: if one does not exist, is not of its kind, or has no input, or an input has no ControlNet.
    """
    given, items = dict(inputs), []
    for spec in map(parse_controlnet, specs):
        network = resolve_controlnet(spec.network, model=model, dtype=dtype)
        if network is None:
            continue
        if spec.kind != "canny" and spec.kind not in given:
            raise TaskInputError(
                f"The ControlNet {spec.network!r} needs an input that wave does not compute: pass a video of it, of as "
                f"many frames as the clip, as --control {spec.kind}=VIDEO."
            )
        items.append(ControlIdentity(network=network, spec=spec, video=given.get(spec.kind)))
    used = {item.spec.kind for item in items}
    if unused := next((kind for kind in given if kind not in used), None):
        raise TaskInputError(
            f"There is a control video for {unused}, and no ControlNet: add --controlnet {unused}=SPEC."
        )
    return ControlSet(tuple(items)) if items else None
