"""Pairs of frames for patch synthesis: drawn, or read from a folder with EbSynth's results."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from tasks.errors import TaskInputError
from tasks.evaluation.bench._scenes import Recoloured, recoloured_scenes
from wave_ops.masks import occlusion_mask
from wave_ops.propagation import Guides, source_guides, target_guides
from wave_ops.propagation.guides import inpaint, pixel_grid
from wave_ops.scenes.rendering import match_frames
from wave_ops.warp import backward_warp

__all__ = ["EbSynth", "Pair", "drawn_pairs", "read_pairs"]

Floats = NDArray[np.float32]

_GUIDES: Final = ("edge", "temporal", "position")
_IMAGES: Final = ("key", "target", "style", *(f"{name}_{side}" for name in _GUIDES for side in ("source", "target")))
_METRICS: Final = ("cpu_seconds", "error_mean", "error_median")


@dataclass(frozen=True, slots=True, kw_only=True)
class EbSynth:
    """EbSynth's results on the same inputs."""

    cpu_seconds: float
    error_mean: float
    error_median: float
    error: Floats | None = None
    """(height, width): the patch error of each target pixel, if it was stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A keyframe with its edit, a target frame to paint, and the guides; 8-bit units."""

    name: str
    style: Tensor
    """(1, 3, height, width): the edited keyframe."""
    source: Guides
    target: Guides
    start: Tensor
    """(1, 2, height, width), x then y: the position in the keyframe of each target pixel, by the flow."""
    ebsynth: EbSynth | None = None


def read_pairs(folder: Path) -> tuple[Pair, ...]:
    """Read every sub-folder of a folder as a pair.

    A pair is PNG images of one size: key and target (source frames), style (the edited keyframe), and for each of
    edge, temporal and position a guide of either frame, as in edge_source.png; flow.npz with flow_to_prev (height,
    width, 2), x then y, in pixels, from target to key; optionally EbSynth's results on exactly these images:
    ebsynth.json with cpu_seconds, error_mean and error_median, and its errors as ebsynth_error.npy (height, width).

    Raises:
        TaskInputError: one sentence about the first file that is missing or invalid.
    """
    if not folder.is_dir():
        raise TaskInputError(f"There is no folder {folder} of EbSynth pairs.")
    found = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not found:
        raise TaskInputError(f"The folder {folder} contains no pairs; each pair is a folder of its own.")
    return tuple(_read_pair(path) for path in found)


def drawn_pairs(size: tuple[int, int]) -> tuple[Pair, ...]:
    """Draw a calm and a hard pair, four frames apart, with known flow and recolouring."""
    return tuple(_drawn_pair(name, drawn) for name, drawn in recoloured_scenes(5, size).items())


def _drawn_pair(name: str, drawn: Recoloured) -> Pair:
    key, target, painted = map(_to_tensor, (drawn.scene.frames[0], drawn.scene.frames[4], drawn.edited[0]))
    to_key, from_key = (torch.from_numpy(match_frames(drawn.scene, *pair)[0])[None] for pair in ((4, 0), (0, 4)))
    grid = pixel_grid((key.shape[2], key.shape[3]))
    warped = inpaint(backward_warp(torch.cat((grid, painted), dim=1), to_key), occlusion_mask(to_key, from_key))
    positions, temporal = warped.split([2, 3], dim=1)
    return Pair(
        name=name,
        style=painted,
        source=source_guides(key, painted),
        target=target_guides(target, temporal, positions),
        start=positions,
    )


def _read_pair(folder: Path) -> Pair:
    images = {name: _read_image(folder / f"{name}.png") for name in _IMAGES}
    size = images["key"].shape[:2]
    for name, image in images.items():
        if image.shape[:2] != size:
            raise TaskInputError(
                f"{folder / name}.png is {image.shape[:2]} pixels, key.png {size}; all images of a pair need one size."
            )
    source, target = (
        Guides(*(_to_tensor(images[name]) for name in (frame, *(f"{name}_{side}" for name in _GUIDES))))
        for frame, side in (("key", "source"), ("target", "target"))
    )
    return Pair(
        name=folder.name,
        style=_to_tensor(images["style"]),
        source=source,
        target=target,
        start=pixel_grid((size[0], size[1])) + torch.from_numpy(_read_flow(folder / "flow.npz", size)),
        ebsynth=_read_ebsynth(folder, size),
    )


def _to_tensor(image: NDArray[np.uint8] | Floats) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None].float()


def _read_image(path: Path) -> Floats:
    _check_exists(path)
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"), np.float32)
    except (OSError, UnidentifiedImageError) as error:
        raise TaskInputError(f"{path} cannot be read as an image.") from error


def _read_flow(path: Path, size: tuple[int, ...]) -> Floats:
    _check_exists(path)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            flow = arrays["flow_to_prev"].astype(np.float32)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise TaskInputError(f"{path} cannot be read as a flow: it needs an array flow_to_prev.") from error
    if flow.shape != (*size, 2) or not np.isfinite(flow).all():
        raise TaskInputError(f"{path} needs a finite flow_to_prev of shape {(*size, 2)}, got {flow.shape}.")
    return np.ascontiguousarray(np.moveaxis(flow, -1, 0))


def _read_ebsynth(folder: Path, size: tuple[int, ...]) -> EbSynth | None:
    path = folder / "ebsynth.json"
    if not path.is_file():
        return None
    try:
        stored = json.loads(path.read_text())
        metrics = {name: float(stored[name]) for name in _METRICS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TaskInputError(f"{path} needs the numbers {', '.join(_METRICS)}.") from error
    return _checked(path, metrics, error=_read_error(folder / "ebsynth_error.npy", size))


def _checked(path: Path, metrics: Mapping[str, float], *, error: Floats | None) -> EbSynth:
    """Check that all metrics can be divided by."""
    if not all(0 < value < np.inf for value in metrics.values()):
        raise TaskInputError(
            f"{path} needs {', '.join(_METRICS)} above 0, got {', '.join(map(str, metrics.values()))}."
        )
    return EbSynth(**metrics, error=error)


def _read_error(path: Path, size: tuple[int, ...]) -> Floats | None:
    if not path.is_file():
        return None
    try:
        error: Floats = np.load(path, allow_pickle=False).astype(np.float32)
    except (OSError, ValueError) as problem:
        raise TaskInputError(f"{path} cannot be read as an array of errors.") from problem
    if error.shape != size:
        raise TaskInputError(f"{path} needs the pair's size {size}, got {error.shape}.")
    return error


def _check_exists(path: Path) -> None:
    if not path.is_file():
        raise TaskInputError(f"The pair {path.parent} has no file {path.name}.")
