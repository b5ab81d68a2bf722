"""Tone mapping: HDR and wide-gamut pictures become BT.709.

HLG and PQ are decoded to display light (BT.2100; HLG on a display of 1000 cd/m2, with its system gamma of 1.2),
relative to the reference white of 203 cd/m2 (BT.2408), converted to BT.709 primaries, compressed by Hable's curve on
the largest component, so that hues stay, and encoded with BT.709's transfer function. Wide primaries with an SDR
transfer function are converted in linear light and clipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from storage.video._side_data import side_data

__all__ = ["ToneMap", "ToneMaps"]

Linear = npt.NDArray[np.float32]

_PQ, _HLG = 16, 18  # FFmpeg's numbers of transfer characteristics
_SRGB = 13
_UNDECLARED = 2
_NAMES = {_PQ: "HDR (PQ)", _HLG: "HDR (HLG)"}
_PRIMARIES = {9: "BT.2020", 11: "DCI-P3", 12: "Display P3"}
_TO_BT709 = {
    9: ((1.6605, -0.5876, -0.0728), (-0.1246, 1.1329, -0.0083), (-0.0182, -0.1006, 1.1187)),
    11: ((1.2249, -0.2247, 0.0), (-0.0420, 1.0419, 0.0), (-0.0197, -0.0786, 1.0984)),
    12: ((1.2249, -0.2247, 0.0), (-0.0420, 1.0419, 0.0), (-0.0197, -0.0786, 1.0984)),
}
_BT2020_LUMINANCE = np.array((0.2627, 0.6780, 0.0593), np.float32)
_WHITE = 203.0  # cd/m2
_HLG_PEAK, _HLG_GAMMA = 1000.0, 1.2
_PQ_PEAK = 1000.0  # cd/m2, of a video that does not say its brightest pixel
_ROWS = 64  # converted at a time, to bound the memory of a large picture
_STEPS = 1 << 14  # of the table that encodes linear light: a thousandth of a code value


@dataclass(frozen=True)
class ToneMap:
    """Conversion of RGB code values of 16 bits, full range, to BT.709 of 8 bits."""

    transfer: int
    primaries: int
    peak: float = 0.0
    """The brightest pixel in cd/m2; 0 where the video does not say it."""

    @classmethod
    def of(cls, frame: Any, attached: dict[str, bytes]) -> ToneMap | None:
        """Return the conversion that a decoded frame needs; None for the colours of SDR."""
        transfer, primaries = int(frame.color_trc), int(frame.color_primaries)
        if transfer not in _NAMES and primaries not in _PRIMARIES:
            return None
        level = np.frombuffer(attached.get("CONTENT_LIGHT_LEVEL", b"")[:4], np.uint32)
        return cls(transfer, primaries, float(level[0]) if level.size else 0.0)

    @property
    def is_hdr(self) -> bool:
        """Whether pictures are brighter than SDR shows."""
        return self.transfer in _NAMES

    @property
    def name(self) -> str:
        """The kind of HDR, or the primaries."""
        return _NAMES.get(self.transfer) or _PRIMARIES[self.primaries]

    def __call__(self, image: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint8]:
        """Convert an image (height, width, 3)."""
        result = np.empty(image.shape, np.uint8)
        for top in range(0, len(image), _ROWS):
            rows = slice(top, top + _ROWS)
            result[rows] = self._encode(self._compress(self._to_bt709(self._to_light(image[rows]))))
        return result

    def _to_light(self, image: npt.NDArray[np.uint16]) -> Linear:
        """Return linear light: 1 is white."""
        light = self._light[image]
        if self.transfer == _HLG:  # the system gamma acts on the luminance of a scene
            luminance: Linear = light @ _BT2020_LUMINANCE
            light *= (_HLG_PEAK / _WHITE) * np.maximum(luminance, 1e-6)[..., None] ** np.float32(_HLG_GAMMA - 1)
        return light

    def _to_bt709(self, light: Linear) -> Linear:
        primaries = self.primaries if self.primaries in _TO_BT709 else 9 if self.is_hdr else None
        if primaries is None:
            return light
        converted: Linear = light @ np.array(_TO_BT709[primaries], np.float32).T
        return np.maximum(converted, 0)

    def _compress(self, light: Linear) -> Linear:
        if not self.is_hdr:
            return light
        peak = np.float32((_HLG_PEAK if self.transfer == _HLG else self.peak or _PQ_PEAK) / _WHITE)
        largest = np.clip(light.max(axis=-1, keepdims=True), 1e-6, None)
        scale: Linear = _hable(np.minimum(largest, peak)) / (_hable(peak) * largest)
        return light * scale

    def _encode(self, light: Linear) -> npt.NDArray[np.uint8]:
        places = np.sqrt(np.clip(light, 0, 1)) * (_STEPS - 1) + 0.5  # finer steps where it is dark
        return self._codes[places.astype(np.uint16)]

    @cached_property
    def _light(self) -> Linear:
        """Linear light of each code value; that of HLG is the scene's, from 0 to 1."""
        code = np.linspace(0, 1, 1 << 16)
        if self.transfer == _HLG:
            a, b, c = 0.17883277, 0.28466892, 0.55991073
            return np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12).astype(np.float32)
        if self.transfer == _PQ:
            m1, m2, c1, c2, c3 = 1305 / 8192, 2523 / 32, 107 / 128, 2413 / 128, 2392 / 128
            power = code ** (1 / m2)
            light = 10_000 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)
            return (light / _WHITE).astype(np.float32)
        if self.transfer == _SRGB:
            return np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4).astype(np.float32)
        return np.where(code < 0.081, code / 4.5, ((code + 0.099) / 1.099) ** (1 / 0.45)).astype(np.float32)

    @cached_property
    def _codes(self) -> npt.NDArray[np.uint8]:
        """8-bit code values of the squares of evenly spaced numbers from 0 to 1."""
        light = np.linspace(0, 1, _STEPS) ** 2
        if self.transfer == _SRGB:
            code = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
        else:
            code = np.where(light < 0.018, 4.5 * light, 1.099 * light**0.45 - 0.099)
        return np.round(255 * code).astype(np.uint8)


class ToneMaps:
    """Conversions of the frames of a video, of which the colours may change in mid-stream."""

    def __init__(self, first: ToneMap | None = None) -> None:
        """Begin with the conversion of the first frame, which is also that of frames that declare nothing."""
        self._found: dict[tuple[int, int], ToneMap | None] = {(_UNDECLARED, _UNDECLARED): first}
        if first is not None:
            self._found[first.transfer, first.primaries] = first

    def of(self, frame: Any) -> ToneMap | None:
        """Return the conversion that a decoded frame needs; None for the colours of SDR."""
        key = int(frame.color_trc), int(frame.color_primaries)
        if key not in self._found:
            self._found[key] = ToneMap.of(frame, side_data(frame))
        return self._found[key]


def _hable(light: Any) -> Any:
    """Compute Hable's filmic curve, as FFmpeg's filter tonemap does."""
    a, b, c, d, e, f = 0.15, 0.50, 0.10, 0.20, 0.02, 0.30
    return (light * (light * a + b * c) + d * e) / (light * (light * a + b) + d * f) - e / f
