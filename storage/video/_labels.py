"""Labels: what a video file says of itself, in the container's own tags and in XMP.

XMP is what IPTC defines the digital source type for, and what tools for pictures and videos read: a box at the end of
MP4 and QuickTime files, an extension of a GIF, and a text chunk of a PNG picture.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from storage.video._source import opened

__all__ = ["DIGITAL_SOURCE_TYPE", "Labels", "SourceTags", "append_xmp", "source_tags"]

DIGITAL_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
"""IPTC's term for media that were edited with a generative model."""

_XMP_BOX = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")  # the UUID that Adobe defines for XMP
_GIF_XMP = b"\x21\xff\x0bXMP DataXMP"
_GIF_TRAILER = bytes([1, *range(255, -1, -1), 0])  # leads a reader of blocks out of the text from any byte of it
_TECHNICAL = frozenset(
    {"major_brand", "minor_version", "compatible_brands", "encoder", "software", "duration", "title", "creation_time"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """What an edited video says of itself."""

    title: str = ""
    """The source's."""
    creation_time: str = ""
    """The source's, ISO 8601."""
    software: str = ""
    """Name and version."""
    model: str = ""
    """Digest."""
    prompt: str = ""
    """SHA-256 of the prompt's UTF-8, in hex."""

    @property
    def comment(self) -> str:
        """One sentence for people and for containers without XMP."""
        return (
            f"Composite with trained algorithmic media ({DIGITAL_SOURCE_TYPE}): edited by {self.software}, "
            f"model {self.model}, prompt sha256:{self.prompt}."
        )

    @property
    def tags(self) -> dict[str, str]:
        """The container's tags."""
        found = {"title": self.title, "creation_time": self.creation_time, "comment": self.comment}
        return {name: value for name, value in found.items() if value}

    @property
    def xmp(self) -> bytes:
        """An XMP packet."""
        title = f"<dc:title><rdf:Alt><rdf:li xml:lang='x-default'>{_text(self.title)}</rdf:li></rdf:Alt></dc:title>"
        created = f" xmp:CreateDate={quoteattr(self.creation_time)}" if self.creation_time else ""
        return (
            '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
            '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
            '<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"'
            ' xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
            f" Iptc4xmpExt:DigitalSourceType={quoteattr(DIGITAL_SOURCE_TYPE)}"
            f" xmp:CreatorTool={quoteattr(self.software)}{created}>"
            f"{title if self.title else ''}"
            f"<dc:description><rdf:Alt><rdf:li xml:lang='x-default'>{_text(self.comment)}</rdf:li></rdf:Alt>"
            "</dc:description></rdf:Description></rdf:RDF></x:xmpmeta>"
            '<?xpacket end="r"?>'
        ).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceTags:
    """What a source says of itself."""

    title: str = ""
    creation_time: str = ""
    """ISO 8601; empty where the file has none that can be read."""
    others: Sequence[str] = ()
    """Names of other tags, which an edited video does not have."""


def source_tags(path: str | Path) -> SourceTags:
    """Return the tags of a file.

    Raises:
        VideoError: if it is not a video.
    """
    with opened(path) as (container, stream):
        found = {key.lower(): value for key, value in container.metadata.items()}
        return SourceTags(
            title=found.get("title", ""),
            creation_time=_time(found.get("creation_time", "") or stream.metadata.get("creation_time", "")),
            others=tuple(sorted(set(found) - _TECHNICAL)),
        )


def append_xmp(path: Path, kind: str, xmp: bytes) -> None:
    """Add XMP to a finished file of a container; one that has no place for it stays as it is."""
    with path.open("r+b") as file:
        file.seek(0, 2)
        if kind in ("mp4", "mov"):
            file.write(struct.pack(">I4s", 8 + len(_XMP_BOX) + len(xmp), b"uuid") + _XMP_BOX + xmp)
        elif kind == "gif":
            file.seek(-1, 2)  # before the byte that ends the file
            file.write(_GIF_XMP + xmp + _GIF_TRAILER + b"\x3b")


def _text(text: str) -> str:
    """Escape a text, without the characters that XML does not have."""
    return escape("".join(character for character in text if character.isprintable()))


def _time(text: str) -> str:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return ""
    return text
