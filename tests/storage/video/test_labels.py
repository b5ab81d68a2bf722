from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import av
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from storage.video import (
    DIGITAL_SOURCE_TYPE,
    Labels,
    choose_encoding,
    probe,
    read_frames,
    source_tags,
    write_video,
)

FlatFrames = Callable[..., list[npt.NDArray[np.uint8]]]
LABELS = Labels(
    title="Rain & <sun> \x07",
    creation_time="2019-05-04T03:02:01+00:00",
    software="wave 1.2.3",
    model="m" * 24,
    prompt="f" * 64,
)


@pytest.fixture
def frames(flat_frames: FlatFrames) -> list[npt.NDArray[np.uint8]]:
    return flat_frames((20, 40, 60), (90, 90, 90), (200, 180, 160))


def written(path: Path, frames: list[npt.NDArray[np.uint8]], container: str, labels: Labels | None) -> Path:
    encoding = choose_encoding(container)
    write_video(path, frames, timestamps=range(3), time_base=Fraction(1, 25), encoding=encoding, labels=labels)
    return path


def boxes(data: bytes) -> dict[bytes, bytes]:
    """Return the contents of the boxes of an MP4 file."""
    found, place = {}, 0
    while place < len(data):
        size, name = struct.unpack(">I4s", data[place : place + 8])
        found[name] = data[place + 8 : place + size]
        place += size
    assert place == len(data)
    return found


def packet_of(path: Path, container: str) -> bytes:
    """Return the XMP of a file, as the rules of its format say where it is."""
    if container == "png":
        with zipfile.ZipFile(path) as pictures, Image.open(io.BytesIO(pictures.read("000002.png"))) as picture:
            return str(picture.info["XML:com.adobe.xmp"]).encode()
    if container == "gif":
        data = path.read_bytes()
        start = data.index(b"\x21\xff\x0bXMP DataXMP") + 14
        place = start  # as blocks, each with its length before it, until one of no length
        while data[place]:
            place += data[place] + 1
        assert data[place + 1 :] == b"\x3b"
        return data[start : data.index(b"\x01\xff\xfe", start)]
    content = boxes(path.read_bytes())[b"uuid"]
    assert content[:16].hex() == "be7acfcb97a942e89c71999491e3afac"
    return content[16:]


@pytest.mark.parametrize("container", ["mp4", "mov", "gif", "png"])
def test_xmp_states_the_digital_source_type_where_tools_look_for_it(
    container: str, frames: list[npt.NDArray[np.uint8]], tmp_path: Path
) -> None:
    path = written(tmp_path / "out", frames, container, LABELS)
    root = ElementTree.fromstring(packet_of(path, container))  # noqa: S314  (our own)
    (description,) = root.iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description")
    kind = description.attrib["{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"]
    assert (
        kind
        == DIGITAL_SOURCE_TYPE
        == "http://cv.iptc.org/newscodes/digitalsourcetype/" + ("compositeWithTrainedAlgorithmicMedia")
    )
    assert "".join(root.itertext()).startswith("Rain & <sun> Composite with trained algorithmic media")
    if container != "png":
        assert len(list(read_frames(path))) == 3
        assert probe(path).frame_count == 3


@pytest.mark.parametrize("container", ["mp4", "mov", "mkv", "webm"])
def test_the_containers_tags_have_title_time_model_and_prompt(
    container: str, frames: list[npt.NDArray[np.uint8]], tmp_path: Path
) -> None:
    path = written(tmp_path / "out", frames, container, LABELS)
    tags = source_tags(path)
    assert tags.title == LABELS.title
    assert tags.creation_time.startswith("2019-05-04T03:02:01")
    with av.open(str(path)) as source:
        comment = {key.lower(): value for key, value in source.metadata.items()}["comment"]
    for words in (DIGITAL_SOURCE_TYPE, "wave 1.2.3", LABELS.model, f"sha256:{LABELS.prompt}"):
        assert words in comment


@pytest.mark.parametrize("container", ["mp4", "mkv", "gif", "png"])
def test_labels_change_no_picture_and_the_same_labels_give_the_same_bytes(
    container: str, frames: list[npt.NDArray[np.uint8]], tmp_path: Path
) -> None:
    files = [
        written(tmp_path / f"{index}", frames, container, labels) for index, labels in enumerate((LABELS, LABELS, None))
    ]
    first, second, plain = (path.read_bytes() for path in files)
    assert first == second != plain
    if container != "png":
        shown = [np.stack([frame for _, frame in read_frames(path)]) for path in files]
        assert np.array_equal(shown[0], shown[2])


@pytest.mark.parametrize(
    ("metadata", "title", "time", "others"),
    [
        ({}, "", "", ()),
        ({"title": "A", "creation_time": "2019-05-04T03:02:01.000000Z"}, "A", "2019-05-04T03:02:01.000000Z", ()),
        ({"artist": "B", "comment": "C"}, "", "", ("artist", "comment")),
    ],
)
def test_the_tags_of_a_source_are_read(
    metadata: dict[str, str], title: str, time: str, others: tuple[str, ...], tmp_path: Path
) -> None:
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        container.metadata.update(metadata)
        stream: Any = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    found = source_tags(path)
    assert (found.title, found.creation_time, tuple(found.others)) == (title, time, others)
