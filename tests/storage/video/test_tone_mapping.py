from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from av.video.reformatter import Colorspace

from storage.video import FrameReader, Notes, probe
from storage.video._tone_mapping import ToneMap

PQ, HLG, BT709, BT2020_SDR, SRGB = 16, 18, 1, 14, 13
IN_709, IN_2020, IN_P3 = 1, 9, 12


def hable(x: float) -> float:
    return (x * (x * 0.15 + 0.05) + 0.004) / (x * (x * 0.15 + 0.5) + 0.06) - 0.02 / 0.3


def expected_grey(light: float, peak: float = 1000) -> float:
    """Return the 8-bit code of a grey of cd/m2: Hable's curve with white at 203, then BT.709's transfer function."""
    mapped = hable(min(light, peak) / 203) / hable(peak / 203)
    return 255 * (4.5 * mapped if mapped < 0.018 else 1.099 * mapped**0.45 - 0.099)


def pq_code(light: float) -> float:
    power = (light / 10_000) ** 0.1593017578125
    return float(((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375)


def hlg_code(light: float) -> float:
    scene = (light / 1000) ** (1 / 1.2)  # of a grey, on a display of 1000 cd/m2
    return float(np.sqrt(3 * scene) if scene <= 1 / 12 else 0.17883277 * np.log(12 * scene - 0.28466892) + 0.55991073)


def converted(rgb: tuple[float, float, float], *, transfer: int, primaries: int, peak: float = 0) -> list[int]:
    image = np.full((3, 5, 3), np.round(np.array(rgb) * 65535), np.uint16)
    result = ToneMap(transfer, primaries, peak)(image)
    assert result.shape == image.shape
    assert (result == result[0, 0]).all()
    return [int(value) for value in result[0, 0]]


@pytest.mark.parametrize("light", [0.0, 0.5, 5.0, 58.0, 203.0, 600.0, 1000.0])
@pytest.mark.parametrize(("transfer", "code"), [(PQ, pq_code), (HLG, hlg_code)])
def test_greys_of_hdr_follow_the_stated_curve(transfer: int, code: Any, light: float) -> None:
    value = converted(3 * (code(light),), transfer=transfer, primaries=IN_2020)
    assert value == pytest.approx(3 * [expected_grey(light)], abs=1.01)


def test_the_brightest_pixel_that_pq_states_becomes_white() -> None:
    for peak in (400.0, 4000.0):
        assert converted(3 * (pq_code(peak),), transfer=PQ, primaries=IN_2020, peak=peak) == [255, 255, 255]
    assert converted(3 * (pq_code(203),), transfer=PQ, primaries=IN_2020, peak=4000)[0] == pytest.approx(
        expected_grey(203, 4000), abs=1.01
    )


@pytest.mark.parametrize("primaries", [IN_2020, IN_P3])
@pytest.mark.parametrize("transfer", [BT709, BT2020_SDR, SRGB])
@pytest.mark.parametrize("grey", [0.0, 0.02, 0.1, 0.5, 0.9, 1.0])
def test_greys_of_sdr_with_wide_primaries_stay(grey: float, transfer: int, primaries: int) -> None:
    assert converted(3 * (grey,), transfer=transfer, primaries=primaries) == pytest.approx(3 * [255 * grey], abs=1)


def test_wide_primaries_become_more_saturated_in_bt709() -> None:
    encode = lambda light: 1.099 * light**0.45 - 0.099  # noqa: E731
    inside = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
    for colour in ((0.8, 0.1, 0.2), (0.2, 0.5, 0.1), (0.1, 0.3, 0.7)):  # linear BT.709, seen from BT.2020
        stored = tuple(float(encode(value)) for value in inside @ colour)
        wanted = [255 * encode(value) for value in colour]
        assert converted(stored, transfer=BT709, primaries=IN_2020) == pytest.approx(wanted, abs=1.5)  # type: ignore[arg-type]
    assert converted((1.0, 0.0, 0.0), transfer=BT709, primaries=IN_2020) == [255, 0, 0]


# --- videos -----------------------------------------------------------------------------------------------------------


def grey_clip(
    path: Path, code: float, *, transfer: int, primaries: int, matrix: int = 9, encoder: str = "ffv1"
) -> Path:
    """Write a clip of three grey frames of 10 bits with these tags."""
    luma: npt.NDArray[np.uint16] = np.full((48, 64), round(64 + 876 * code), np.uint16)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(encoder, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p10le"
        codec = stream.codec_context
        codec.color_trc, codec.color_primaries, codec.colorspace, codec.color_range = transfer, primaries, matrix, 1
        for index in range(3):
            frame = av.VideoFrame(64, 48, "yuv420p10le")
            frame.planes[0].update(luma.tobytes())
            for plane in frame.planes[1:]:
                plane.update(np.full((24, 32), 512, np.uint16).tobytes())
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("transfer", "primaries", "code", "grey", "hdr", "note"),
    [
        (HLG, IN_2020, hlg_code(203), expected_grey(203), "HDR (HLG)", "HDR (HLG) and were tone-mapped"),
        (PQ, IN_2020, pq_code(203), expected_grey(203), "HDR (PQ)", "HDR (PQ) and were tone-mapped"),
        (PQ, 2, pq_code(203), expected_grey(203), "HDR (PQ)", "HDR (PQ) and were tone-mapped"),
        (BT2020_SDR, IN_2020, 0.6, 153, "", "have BT.2020 primaries and were converted to BT.709"),
        (BT709, IN_P3, 0.6, 153, "", "have Display P3 primaries and were converted to BT.709"),
    ],
)
def test_hdr_and_wide_primaries_are_converted_with_a_note(
    transfer: int, primaries: int, code: float, grey: float, hdr: str, note: str, tmp_path: Path
) -> None:
    path = grey_clip(tmp_path / "clip.mkv", code, transfer=transfer, primaries=primaries)
    notes, info = Notes(), probe(path)
    frames = [frame for _, frame in FrameReader(path, notes=notes)]
    assert len(frames) == 3
    assert frames[0].mean(axis=(0, 1)) == pytest.approx(3 * [grey], abs=1.5)
    assert info.hdr == hdr
    assert len(info.conversions) == 1
    assert note in notes.lines[0]


def test_sdr_of_10_bits_is_not_tone_mapped(tmp_path: Path) -> None:
    path = grey_clip(tmp_path / "clip.mkv", 0.6, transfer=BT709, primaries=IN_709, matrix=int(Colorspace.ITU709))
    assert next(iter(FrameReader(path)))[1].mean() == pytest.approx(153, abs=1)
    assert probe(path).conversions == ()
