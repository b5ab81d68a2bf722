"""Small videos of many containers, and damaged copies of them, all determined by a seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

from wave_ops.scenes.rendering import render
from wave_ops.scenes.specs import random_scene

__all__ = ["CONTAINERS", "mutated", "save_videos"]

CONTAINERS: Final[Mapping[str, tuple[str, str, str]]] = {
    "mp4": ("libx264", "yuv420p", "aac"),
    "mov": ("prores_ks", "yuv422p10le", "pcm_s16le"),
    "mkv": ("libx265", "yuv420p", "flac"),
    "webm": ("libvpx-vp9", "yuv420p", "libopus"),
    "avi": ("mpeg4", "yuv420p", "libmp3lame"),
    "ts": ("mpeg2video", "yuv420p", "mp2"),
    "flv": ("flv", "yuv420p", "libmp3lame"),
    "wmv": ("wmv2", "yuv420p", "libmp3lame"),
    "3gp": ("mpeg4", "yuv420p", "aac"),
    "mxf": ("mpeg2video", "yuv422p", "pcm_s16le"),
    "nut": ("ffv1", "yuv420p", "pcm_s16le"),
    "mpg": ("mpeg1video", "yuv420p", "mp2"),
    "gif": ("gif", "rgb8", ""),
    "apng": ("apng", "rgb24", ""),
}
"""Codecs of the video and of the audio, and the pixel format, of a file with each ending."""
_PICTURES = ("webp", "png", "jpg", "tiff")
_FRAMES, _SIZE, _RATE = 9, (48, 64), 25


def save_videos(folder: Path) -> list[Path]:
    """Write a video of each container, an animated WebP and still pictures, and return their paths."""
    frames = render(random_scene(5, size=_SIZE, frame_count=_FRAMES)).frames
    paths = [folder / f"clip.{suffix}" for suffix in (*CONTAINERS, *_PICTURES)]
    for path in paths:
        suffix = path.suffix[1:]
        if suffix in CONTAINERS:
            _write(path, frames, *CONTAINERS[suffix])
        else:
            first, *others = map(Image.fromarray, frames)
            first.save(path, **({"save_all": True, "append_images": others} if suffix == "webp" else {}))
    return paths


def _write(path: Path, frames: npt.NDArray[np.uint8], codec: str, pixel_format: str, audio: str) -> None:
    with av.open(str(path), "w") as target:
        stream: Any = target.add_stream(codec, rate=_RATE)
        stream.height, stream.width, stream.pix_fmt = *_SIZE, pixel_format
        sound: Any = target.add_stream(audio, rate=48_000, layout="stereo") if audio else None
        for image in frames:
            target.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        target.mux(stream.encode(None))
        if sound is not None:
            samples = np.sin(np.arange(2 * 48_000 * _FRAMES // _RATE) / 20) * 9_000
            tone = av.AudioFrame.from_ndarray(samples.astype(np.int16)[None], format="s16", layout="stereo")
            tone.sample_rate, tone.pts, tone.time_base = 48_000, 0, Fraction(1, 48_000)
            target.mux([*sound.encode(tone), *sound.encode(None)])


def mutated(data: bytes, *, seed: int) -> Iterator[bytes]:
    """Yield damaged copies of a file without an end: bytes that are flipped, cut out, cut off, doubled and zeroed."""
    random = np.random.default_rng([seed, len(data)])
    while True:
        for kind in ("flip", "cut", "end", "double", "zero", "swap"):
            # Half of them in the header, where a byte means the most
            reach = len(data) if random.random() < 0.5 else min(len(data), 1_500)
            start, length = int(random.integers(reach)), int(random.integers(1, max(2, len(data) // 8)))
            stretch = data[start : start + length]
            match kind:
                case "flip":
                    changed = bytearray(data)
                    for place in random.integers(reach, size=int(random.integers(1, 30))):
                        changed[place] ^= int(random.integers(1, 256))
                    yield bytes(changed)
                case "cut":
                    yield data[:start] + data[start + length :]
                case "end":
                    yield data[:start]
                case "double":
                    yield data[:start] + stretch + data[start:]
                case "zero":
                    yield data[:start] + bytes(len(stretch)) + data[start + length :]
                case "swap":
                    yield data[:start] + stretch[::-1] + data[start + length :]
