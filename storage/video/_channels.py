"""Channels of audio: which ones a stream has, and what becomes of them in the layouts of an encoder.

PyAV 18.1 frees a layout of which the channels are not in FFmpeg's own order, as QuickTime's 6.1, once for each object
that it makes of it, which ends the process. So such a stream is decoded without names of its channels, and they are put
in order afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Mix", "is_in_order", "take_channels"]

_ORDER = (
    *("FL", "FR", "FC", "LFE", "BL", "BR", "FLC", "FRC", "BC", "SL", "SR", "TC", "TFL", "TFC", "TFR", "TBL", "TBC"),
    *("TBR", "DL", "DR", "WL", "WR", "SDL", "SDR", "LFE2", "TSL", "TSR", "BFC", "BFL", "BFR"),
)
_LAYOUTS = {
    "mono": "FC",
    "stereo": "FL FR",
    "2.1": "FL FR LFE",
    "3.0": "FL FR FC",
    "4.0": "FL FR FC BC",
    "quad": "FL FR BL BR",
    "5.0": "FL FR FC BL BR",
    "5.1": "FL FR FC LFE BL BR",
    "6.1": "FL FR FC LFE BC SL SR",
    "7.1": "FL FR FC LFE BL BR SL SR",
}
_UNNAMED = ("", "mono", "stereo", "3.0", "4.0", "5.0", "5.1", "6.1", "7.1")
"""What so many channels without names are taken for: as in FFmpeg but for three, of which it takes one for an LFE."""
_MISTAKEN = 3
_BACK = {"SL": "BL", "SR": "BR"}
_NEAREST = {
    **{"FLC": "FL", "FRC": "FR", "BC": "BL BR", "TC": "FC", "TFL": "FL", "TFC": "FC", "TFR": "FR", "TBL": "BL"},
    **{"TBC": "BL BR", "TBR": "BR", "DL": "FL", "DR": "FR", "WL": "FL", "WR": "FR", "SDL": "SL", "SDR": "SR"},
    **{"LFE2": "LFE", "TSL": "SL", "TSR": "SR", "BFC": "FC", "BFL": "FL", "BFR": "FR"},
}
"""Where a channel is heard that a layout of 5.1 or 7.1 does not have."""


def take_channels(codec: Any) -> tuple[str, ...]:
    """Return FFmpeg's names of the channels of a stream that has not been decoded yet, in the order of its samples.

    None where the file does not name them. Afterwards the stream can be decoded without harm, but a second call returns
    none where the channels are not in FFmpeg's order.
    """
    layout = codec.layout
    names = tuple(channel.name for channel in layout.channels)
    known = names if set(names) <= set(_ORDER) else ()
    if names:  # in any case, since what PyAV has read is freed with `layout`
        codec.layout = "+".join(known) if known and is_in_order(known) else f"{len(names)} channels"
    return known


def is_in_order(channels: Sequence[str]) -> bool:
    """Return whether channels are in FFmpeg's order."""
    places = [_ORDER.index(name) for name in channels]
    return places == sorted(places)


@dataclass(frozen=True, slots=True)
class Mix:
    """What becomes of the channels of a stream in a layout of an encoder."""

    layout: str
    """FFmpeg's name."""
    pan: str = ""
    """Settings of FFmpeg's filter pan; empty where its conversion of layouts does the same."""
    has_all: bool = True
    """Whether each channel stays by itself."""

    @classmethod
    def of(cls, channels: Sequence[str], count: int, layouts: Sequence[str]) -> Mix:
        """Return the mix into the smallest layout that has all channels, else into one that has as many, or the last.

        Args:
            channels: see `take_channels`.
            count: their number, also where they have no names.
            layouts: names of the encoder's layouts, the smallest first.
        """
        if not count:  # as it is where a stream begins late
            return cls("stereo")
        if not channels and count >= len(_UNNAMED):
            sides = ("+".join(f"c{place}" for place in range(side, count, 2)) for side in (0, 1))
            return cls("stereo", "stereo|FL<{}|FR<{}".format(*sides), has_all=False)
        own = list(channels) or _LAYOUTS.get(_UNNAMED[count], "").split()
        names = own if set(own) & set(_BACK.values()) else [_BACK.get(name, name) for name in own]
        sets = {layout: set(_LAYOUTS[layout].split()) for layout in layouts}
        for layout in layouts:
            if any(set(each) <= sets[layout] for each in (own, names)):
                is_same = is_in_order(own) and (channels or count != _MISTAKEN)
                return cls(layout) if is_same else cls(layout, _pan(layout, own, names))
        large = (each for each in layouts if len(sets[each]) >= count and {"LFE"} & set(own) <= sets[each])
        layout = next(large, layouts[-1])
        return cls(layout, _pan(layout, own, names), has_all=False)


def _pan(layout: str, own: Sequence[str], names: Sequence[str]) -> str:
    """Return the settings of a filter that takes each channel to itself, or to the nearest ones."""
    targets = _LAYOUTS[layout].split()
    heard: dict[str, list[str]] = {target: [] for target in targets}
    for place, each in enumerate(zip(own, names, strict=True)):
        same = [name for name in each if name in targets][:1]
        for target in same or [_near(name, targets) for name in _NEAREST.get(each[0], "FC").split()]:
            heard[target].append(f"c{place}")
    return "|".join([layout, *(f"{target}<{'+'.join(parts)}" for target, parts in heard.items() if parts)])


def _near(name: str, targets: Sequence[str]) -> str:
    """Return the channel for another one in a layout without a back or without sides."""
    return name if name in targets else {"SL": "BL", "SR": "BR", "BL": "FL", "BR": "FR"}.get(name, "FL")
