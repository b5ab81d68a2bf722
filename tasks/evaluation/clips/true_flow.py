"""Folders of true optical flow in the layouts of Middlebury and Flying Chairs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from storage.digest import digest_file, digest_of
from storage.errors import StorageError
from storage.flo import read_flo
from tasks.errors import TaskInputError
from tasks.evaluation.clips.clip import EvaluationClip

__all__ = ["FlowClip", "flo_clips"]

_SUFFIXES: Final = (".png", ".ppm", ".jpg", ".jpeg", ".bmp")


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowClip(EvaluationClip):
    """Two frames and the true flow between them; occlusions are not known."""

    truth: NDArray[np.float32]
    """(2, height, width) on the grid of the first frame, pointing to the second; NaN where it is unknown."""


def flo_clips(folder: Path, *, count: int | None = None) -> tuple[FlowClip, ...]:
    """Read every .flo file below a folder with the two frames next to it.

    Frames are found by the flow's name: flow10.flo belongs to frame10 and frame11 (Middlebury), a_0001.flo to
    a_0001 and a_0002, x_flow.flo to x_img1 and x_img2, or x_img0 and x_img1 (Flying Chairs).

    Args:
        folder: searched recursively, in the order of names.
        count: how many to read, from the first; None for all.

    Raises:
        TaskInputError: if there is no such folder, no flow in it, or if the frames of a flow are missing or of another
            size.
    """
    if not folder.is_dir():
        raise TaskInputError(f"There is no folder {folder} of true flow.")
    found = sorted(folder.rglob("*.flo"))
    if not found:
        raise TaskInputError(f"The folder {folder} contains no .flo file.")
    return tuple(_read(path, folder) for path in islice(found, count))


def _read(path: Path, folder: Path) -> FlowClip:
    files = _frame_files(path)
    try:
        truth = read_flo(path)
        digest = digest_of("true flow", [digest_file(file) for file in (path, *files)])
        frames = [_read_image(file) for file in files]
    except (OSError, StorageError) as error:
        raise TaskInputError(f"The true flow {path} cannot be used: {error}.") from error
    shapes = {frame.shape[:2] for frame in frames} | {truth.shape[1:]}
    if len(shapes) > 1:
        raise TaskInputError(f"The flow {path} and its frames {files[0].name} and {files[1].name} differ in size.")
    name = path.relative_to(folder).with_suffix("").as_posix()
    return FlowClip(
        name=name, group="true flow", frames=np.stack(frames), caption="", edits=(), digest=digest, truth=truth
    )


def _read_image(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), np.uint8)


def _frame_files(flow: Path) -> tuple[Path, Path]:
    for names in _names(flow.stem):
        files = [next(iter(_image_files(flow.parent, name)), None) for name in names]
        if files[0] is not None and files[1] is not None:
            return files[0], files[1]
    tried = " or ".join(" and ".join(names) for names in _names(flow.stem)) or "a name with a number"
    raise TaskInputError(f"The frames of {flow} are missing: expected {tried} next to it.")


def _names(stem: str) -> Iterator[tuple[str, str]]:
    """Yield the pairs of frame names that may belong to a flow's name."""
    if numbered := re.fullmatch(r"(.*?)(\d+)", stem):
        prefix, digits = numbered.groups()
        following = str(int(digits) + 1).zfill(len(digits))
        for start in dict.fromkeys((prefix, prefix.replace("flow", "frame"))):
            yield start + digits, start + following
    elif stem.endswith("flow"):
        start = stem.removesuffix("flow")
        yield f"{start}img0", f"{start}img1"
        yield f"{start}img1", f"{start}img2"


def _image_files(folder: Path, name: str) -> Iterator[Path]:
    return (path for suffix in _SUFFIXES if (path := folder / f"{name}{suffix}").is_file())
