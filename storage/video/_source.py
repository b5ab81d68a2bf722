"""Source files: opened safely, the stream that is the video, and the other streams."""

from __future__ import annotations

import contextlib
import stat
import struct
import tempfile
import warnings
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
from PIL import Image

from storage.errors import VideoError
from storage.limits import current_limits
from storage.video._packed import is_animated_webp, pack_webp

__all__ = ["count_pages", "is_cut_gif", "opened", "origin", "other_streams"]

_PILLOW_ERRORS = (
    *(EOFError, LookupError, OSError, OverflowError, SyntaxError, TypeError, ValueError, ZeroDivisionError),
    *(AttributeError, Image.DecompressionBombError, struct.error),
)
"""What Pillow raises on damaged pages: it does not map its own errors there."""
_PADDING = 4096  # bytes
_PAGED_FORMATS = frozenset({"tiff_pipe", "jpeg_pipe", "image2"})
# ffmpeg decodes text as terminal art and opens the files that a playlist names: neither is a video here
_NO_VIDEO_FORMATS = frozenset({"tty", "concat", "hls", "dash", "lavfi"})


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[tuple[Any, Any]]:
    """Open a video file and yield its container and video stream.

    Raises:
        VideoError: if the file does not exist, it has no video stream, or it exceeds `current_limits`.
    """
    file = Path(path)
    is_animation = _check_file(file, str(path))
    current_limits().check_file(file)
    with contextlib.ExitStack() as stack:
        if is_animation:  # which FFmpeg does not read
            _refuse_large_image(file)
            file = _packed_webp(file, stack)
        try:
            # An absolute path, so that a file named "http:x" is not a URL; a whitelist, so that it opens no other
            # files; no pattern, so that "a%d.png" is not another picture; a limit that decoders check before they
            # allocate, also where the size changes in mid-stream
            options = {"protocol_whitelist": "file", "max_pixels": str(current_limits().pixels), "pattern_type": "none"}
            container = stack.enter_context(av.open(str(file.absolute()), options=options, metadata_errors="replace"))
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise VideoError(f"{path} is not a video that can be read ({_reason(error)})") from error
        stream = _video_stream(path, container)
        _check_size(path, stream)
        yield container, stream


def _check_file(file: Path, name: str) -> bool:
    """Check that a file can be read, and return whether it is an animated WebP. Raises VideoError."""
    try:
        mode = file.stat().st_mode
        if stat.S_ISDIR(mode):
            raise VideoError(f"{name} is a folder, not a video file")
        if not stat.S_ISREG(mode):
            raise VideoError(f"{name} is a pipe, a socket or a device, not a video file")
        return is_animated_webp(file)
    except (FileNotFoundError, NotADirectoryError):
        raise VideoError(f"there is no file {name}") from None
    except OSError as error:
        raise VideoError(f"{name} cannot be read ({_reason(error)})") from error


def _packed_webp(path: Path, stack: contextlib.ExitStack) -> Path:
    """Return a video of an animated WebP, which exists as long as the stack."""
    target = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wave-")), "frames.mov")
    try:
        pack_webp(path, target)
    except (EOFError, OSError, SyntaxError, ValueError) as error:
        raise VideoError(f"{path} is an animated WebP that cannot be read ({_reason(error)})") from error
    return target


def origin(container: Any, first: Any, missed: Fraction) -> Fraction:
    """Return the time on the file's clock, in seconds, that becomes zero for video and audio alike.

    It is the earliest start of all video and audio streams if that is positive, else the start of the video or 0; and
    without audio that of the first frame.
    Audio may start before 0: that is its encoder's delay, which players skip, and not an offset of the file.

    Args:
        container: the file.
        first: the first decoded frame; zero is never later, whatever the file says.
        missed: seconds at the start of the video that cannot be decoded, by which zero is later.
    """
    video, audio = (
        [stream.start_time * stream.time_base for stream in streams if stream.start_time is not None]
        for streams in (container.streams.video, container.streams.audio)
    )
    earliest = min([*video, *audio], default=Fraction(0))
    start = (earliest if earliest > 0 else min([Fraction(0), *video])) + missed
    if first.pts is None:
        return start
    shown = Fraction(first.pts * first.time_base)
    return min(start, shown) if audio else shown


def other_streams(container: Any, stream: Any) -> dict[str, int]:
    """Count what an edited video does not have, by kind: streams other than the video and the audio, and chapters."""
    counts = dict.fromkeys(("video", "cover", "audio", "subtitle", "data", "attachment", "chapter"), 0)
    for other in container.streams:
        if other.index == stream.index or (other.type == "audio" and other.codec_context is not None):
            continue
        kind = "cover" if other.type == "video" and _is_cover(other) else other.type
        counts[kind if kind in counts else "data"] += 1
    counts["chapter"] = len(container.chapters())
    return counts


def count_pages(path: str | Path, container: Any) -> int:
    """Count the pictures after the first one in a file of still pictures, as TIFF and the JPEGs of phones may have."""
    if _PAGED_FORMATS.isdisjoint(container.format.name.split(",")):
        return 0
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as picture:
            return int(getattr(picture, "n_frames", 1)) - 1
    except _PILLOW_ERRORS:
        return 0


def is_cut_gif(path: str | Path, container: Any) -> bool:
    """Return whether a GIF lacks the byte that ends it, which may be followed by padding."""
    if container.format.name != "gif":
        return False
    with Path(path).open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - _PADDING))
        return not file.read().rstrip(b"\0\r\n ").endswith(b";")


def _video_stream(path: str | Path, container: Any) -> Any:
    if not _NO_VIDEO_FORMATS.isdisjoint(container.format.name.split(",")):
        raise VideoError(f"{path} is not a video (it looks like {container.format.long_name})")
    streams = [stream for stream in container.streams.video if not _is_cover(stream)]
    if not streams:
        raise VideoError(f"{path} has no video stream")
    best = container.streams.best("video")
    stream = best if best in streams else streams[0]
    if stream.codec_context is None:
        raise VideoError(f"{path} uses a codec that this installation cannot decode")
    return stream


def _check_size(path: str | Path, stream: Any) -> None:
    """Refuse large pictures, before a decoder allocates them; where the size changes later, the decoder refuses."""
    limits, codec = current_limits(), stream.codec_context
    codec.options = {"max_pixels": str(limits.pixels)}
    if codec.width:
        limits.check_picture(str(path), width=codec.width, height=codec.height)
    else:
        _refuse_large_image(path)


def _refuse_large_image(path: str | Path) -> None:
    """Refuse a large still image by its header alone; other files pass."""
    limits = current_limits()
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            width, height = image.size
    except Image.DecompressionBombError:
        raise limits.picture_error(
            str(path), f"more than {2 * (Image.MAX_IMAGE_PIXELS or limits.pixels):,} pixels"
        ) from None
    except (OSError, SyntaxError, ValueError):
        return
    limits.check_picture(str(path), width=width, height=height)


def _is_cover(stream: Any) -> bool:
    return bool(stream.disposition & stream.disposition.__class__.attached_pic)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
