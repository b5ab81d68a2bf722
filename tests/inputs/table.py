"""Write a clip in every container and codec that this installation encodes, and print what an edit keeps of each.

Run as `make inputs`. Each clip is decoded, written as the output that an edit would have by default (MP4, H.264), and
compared by `wave check`. Pictures do not matter to what is kept, so nothing is edited. Exits with 1 if a check fails
that is not in `KNOWN`.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import av
import numpy as np

from storage.video import FrameReader, Notes, check_video_pair, probe, read_audio, write_video

__all__ = ["CONTAINERS", "KNOWN", "Combination", "Outcome", "main", "table", "try_all", "try_combination"]

CONTAINERS: Final = {
    "mp4": "mp4",
    "mov": "mov",
    "mkv": "matroska",
    "webm": "webm",
    "avi": "avi",
    "ts": "mpegts",
    "mpg": "mpeg",
    "vob": "vob",
    "flv": "flv",
    "ogv": "ogg",
    "3gp": "3gp",
    "asf": "asf",
    "mxf": "mxf",
    "dv": "dv",
    "gif": "gif",
    "apng": "apng",
    "y4m": "yuv4mpegpipe",
}
"""FFmpeg's name of the muxer, by the usual ending."""
_VIDEO: Final = {
    "libx264": "yuv420p",
    "libx265": "yuv420p",
    "libsvtav1": "yuv420p",
    "libvpx": "yuv420p",
    "libvpx-vp9": "yuv420p",
    "mpeg1video": "yuv420p",
    "mpeg2video": "yuv420p",
    "mpeg4": "yuv420p",
    "msmpeg4": "yuv420p",
    "wmv2": "yuv420p",
    "h263": "yuv420p",
    "flv": "yuv420p",
    "theora": "yuv420p",
    "libtheora": "yuv420p",
    "mjpeg": "yuvj420p",
    "prores_ks": "yuv422p10le",
    "dnxhd": "yuv422p",
    "dvvideo": "yuv420p",
    "ffv1": "yuv420p",
    "huffyuv": "yuv422p",
    "utvideo": "yuv420p",
    "qtrle": "rgb24",
    "png": "rgb24",
    "rawvideo": "yuv420p",
    "v210": "yuv422p10le",
    "gif": "rgb8",
    "apng": "rgb24",
}
"""Pixel format that each encoder gets."""
_AUDIO: Final = (
    "aac",
    "libmp3lame",
    "mp2",
    "ac3",
    "eac3",
    "dca",
    "truehd",
    "libopus",
    "libvorbis",
    "flac",
    "alac",
    "wavpack",
    "wmav2",
    "adpcm_ms",
    "adpcm_ima_qt",
    "pcm_s16le",
    "pcm_s16be",
    "pcm_s24le",
    "pcm_f32le",
    "pcm_u8",
    "pcm_mulaw",
    "pcm_alaw",
    "libspeex",
    "amr_nb",
    "libopencore_amrnb",
)
KNOWN: Final = frozenset({("avi", "flac"), ("avi", "amr_nb"), ("avi", "libopencore_amrnb")})
"""Containers with audio that FFmpeg writes with a gap of one packet after the first, which an output does not have."""
_SIZE: Final = (144, 176)  # the only small one that H.263 has
_SIZES: Final = {"dvvideo": (576, 720), "dnxhd": (1080, 1920)}
_RATE: Final = 25
_FRAMES: Final = 12


@dataclass(frozen=True, slots=True)
class Combination:
    """A container with the encoders of its streams."""

    ending: str
    video: str
    audio: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a clip."""

    combination: Combination
    frames: int
    failed: tuple[str, ...]
    """Names of the checks that failed."""
    notes: tuple[str, ...]

    @property
    def is_expected(self) -> bool:
        """Whether no check failed, or it is known to."""
        return not self.failed or (self.combination.ending, self.combination.audio) in KNOWN


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="wave-inputs-") as folder:
        outcomes = list(try_all(Path(folder)))
    sys.stdout.write(table(outcomes))
    return int(not all(outcome.is_expected for outcome in outcomes))


def try_all(folder: Path) -> Iterator[Outcome]:
    """Yield the outcome of every video codec in every container, and of every audio codec next to the first of them.

    What FFmpeg does not put into a container is left out.
    """
    for ending in CONTAINERS:
        first = None
        for video in _VIDEO:
            outcome = try_combination(folder, Combination(ending, video))
            if outcome is not None:
                first = first or video
                yield outcome
        for audio in _AUDIO if first else ():
            outcome = try_combination(folder, Combination(ending, first or "", audio))
            if outcome is not None:
                yield outcome


def try_combination(folder: Path, combination: Combination) -> Outcome | None:
    """Write, decode, write again and compare a clip; None if FFmpeg cannot write it."""
    source, output = folder / f"source.{combination.ending}", folder / "output.mp4"
    if not _written(source, combination):
        return None
    info, notes = probe(source), Notes()
    reader = FrameReader(source, notes=notes)
    pairs = list(reader)
    write_video(
        output,
        [frame for _, frame in pairs],
        timestamps=[time for time, _ in pairs],
        time_base=info.time_base,
        last_duration=reader.last_duration,
        audio=read_audio(source, extent=reader.extent, notes=notes),
        pixel_aspect=info.pixel_aspect,
        notes=notes,
    )
    checks, _ = check_video_pair(source, output)
    failed = tuple(check.name for check in checks if not check.passed)
    return Outcome(combination, len(pairs), failed, tuple(notes.lines))


def _written(path: Path, combination: Combination) -> bool:
    """Encode a second and a half of a moving pattern and a tone; return whether FFmpeg could."""
    if combination.audio not in (None, *av.codecs_available) or combination.video not in av.codecs_available:
        return False
    height, width = _SIZES.get(combination.video, _SIZE)
    try:
        with av.open(str(path), "w", format=CONTAINERS[combination.ending]) as target:
            video: Any = target.add_stream(combination.video, rate=_RATE)
            video.height, video.width, video.pix_fmt = height, width, _VIDEO[combination.video]
            video.codec_context.time_base = video.time_base = Fraction(1, _RATE)
            video.options = {"x265-params": "log-level=none"} if combination.video == "libx265" else {}
            if combination.video == "dnxhd":
                video.bit_rate = 120_000_000
            audio: Any = None if combination.audio is None else _audio_stream(target, combination.audio)
            for index in range(_FRAMES):
                frame = av.VideoFrame.from_ndarray(_pattern(index, (height, width)), format="rgb24")
                frame = frame.reformat(format=video.pix_fmt)
                frame.pts, frame.time_base = index, Fraction(1, _RATE)
                target.mux(video.encode(frame))
            target.mux(video.encode(None))
            if audio is not None:
                target.mux([*audio.encode(_tone(audio)), *audio.encode(None)])
        with av.open(str(path)) as found:  # FFmpeg writes some that it does not read
            return bool(found.streams.audio) == (combination.audio is not None) and any(found.decode(video=0))
    except (av.FFmpegError, ValueError, TypeError, IndexError):
        return False


def _audio_stream(target: Any, codec: str) -> Any:
    options = {"strict": "experimental"} if codec in {"dca", "truehd"} else {}
    rate = 8000 if codec in {"amr_nb", "libopencore_amrnb", "libspeex"} else 48000
    stream = target.add_stream(codec, rate=rate, layout="mono", options=options)
    stream.codec_context.time_base = Fraction(1, rate)
    return stream


def _tone(stream: Any) -> av.AudioFrame:
    rate = stream.codec_context.sample_rate
    wave = np.sin(np.arange(rate * _FRAMES // _RATE) * 2 * np.pi * 440 / rate) * 0.3
    frame = av.AudioFrame.from_ndarray(wave[None].astype(np.float32), format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    return frame


def _pattern(index: int, size: tuple[int, int]) -> Any:
    y, x = np.mgrid[: size[0], : size[1]]
    channels = [x + 9 * index, 2 * y + 4 * index, 99 + 60 * np.sin((x + 5 * index) / 9)]
    return np.stack([channel % 256 for channel in channels], axis=-1).astype(np.uint8)


def table(outcomes: Sequence[Outcome]) -> str:
    """Return a table in Markdown: a row for all codecs of a container with one outcome."""
    rows = []
    for ending, found in groupby(outcomes, key=lambda outcome: outcome.combination.ending):
        several = list(found)
        for kind, chosen in (
            ("video", [each for each in several if each.combination.audio is None]),
            ("audio", [each for each in several if each.combination.audio is not None]),
        ):
            for failed, notes in dict.fromkeys(map(_result, chosen)):
                same = [each for each in chosen if _result(each) == (failed, notes)]
                names = [each.combination.audio or each.combination.video for each in same]
                codecs = ", ".join(dict.fromkeys(av.Codec(name, "w").canonical_name for name in names))
                kept = "all but " + ", ".join(failed) if failed else "all"
                rows.append(f"| .{ending} | {kind} | {codecs} | {kept} | {notes} |")
    head = ["| file | stream | codecs | kept, by `wave check` | notes |", "|---|---|---|---|---|"]
    return "\n".join([*head, *rows]) + "\n"


def _result(outcome: Outcome) -> tuple[tuple[str, ...], str]:
    """Return the checks that failed, and the notes without the names of codecs."""
    return outcome.failed, " ".join(re.sub(r"^Audio in \S+", "Audio", note) for note in outcome.notes)


if __name__ == "__main__":
    raise SystemExit(main())
