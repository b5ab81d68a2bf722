"""Memory of an inversion, of an edit and of the VAE, predicted from the structure of the networks."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from wave_ops.controls import networks_of
from wave_ops.diffusion import StableDiffusion
from wave_ops.editing import edit
from wave_ops.feature_warping import PairWarps
from wave_ops.footprint import Footprint, footprint, peak_bytes, without_values
from wave_ops.inversion import invert
from wave_ops.settings import EditingSettings, InversionSettings, WarpSchedule
from wave_ops.shuffle import reachable_pairs

__all__ = ["edit_footprint", "generous_bytes", "inversion_footprint", "vae_bytes"]

_GENEROUS_UNET, _GENEROUS_VAE = 128, 24
"""Copies of the first level's features: twice as much as networks take that were measured."""
_CELL_BYTES = 160
"""For each cell and keyframe: eight times the latents, of which on a CPU two are stored behind and read ahead; on all
grids the source cells, as int16, and the masks of five pairs; and the composed map twice."""
_TILED = 4
"""Copies of a frame, where it is cut into tiles: with their overlaps, blended, joined in rows, and whole."""
_STEP = WarpSchedule(steps=1, warp_fraction=1.0)


def inversion_footprint(model: StableDiffusion, size: tuple[int, int]) -> Footprint:
    """Predict the memory of an inversion.

    Args:
        model: in its data types, on the device where the inversion will run.
        size: (height, width) of the keyframes, pixels.
    """
    structure = without_values(model)

    def step(keyframes: int, batch: int) -> None:
        invert(
            structure,
            _latents(structure, keyframes, size),
            source_prompt="",
            warps=_warps(keyframes, size),
            settings=InversionSettings(schedule=_STEP),
            keyframe_batch=batch,
            callback=lambda _, x: None,
        )

    return footprint(step, keyframe=_keyframe_bytes(model, size), device=model.device)


def edit_footprint(
    model: StableDiffusion, size: tuple[int, int], settings: EditingSettings, *, device: str | None = None
) -> Footprint:
    """Predict the memory of an edit, in a step that exchanges all that the settings say.

    Args:
        model: in its data types.
        size: (height, width) of the keyframes, pixels.
        settings: those of the edit.
        device: where the edit will run; None for the device of the model.
    """
    structure = without_values(model)
    injected = [float(part > 0) for part in (settings.injection_fraction, settings.features_fraction)]
    once = replace(
        settings,
        schedule=_STEP,
        injection_fraction=injected[0],
        feature_injection_fraction=injected[1],
        anchor="order",  # that of the time needs one batch
    )

    def step(keyframes: int, batch: int) -> None:
        latents = _latents(structure, keyframes, size)
        edit(
            structure,
            lambda _: latents,
            prompt="",
            source_prompt="",
            orders=[range(keyframes)],
            warps=_warps(keyframes, size),
            settings=once,
            edges=None if model.controlnet is None else torch.empty(keyframes, 3, *size, device="meta"),
            keyframe_batch=batch,
        )

    found = footprint(step, keyframe=_keyframe_bytes(model, size), device=torch.device(device or model.device))
    return replace(found, batched=found.batched + _kept_bytes(model, size))


def vae_bytes(
    model: StableDiffusion, size: tuple[int, int], *, frames: int, decoding: bool, tile: int | None = None
) -> int:
    """Predict the memory of encoding or decoding frames together, bytes over the loaded networks.

    Args:
        model: its VAE is used, on the device where it will run.
        size: (height, width) of the frames, pixels.
        frames: that pass together.
        decoding: decode latents instead of encoding frames.
        tile: side of the tiles, pixels; None for whole frames.
    """
    vae = without_values(model).vae
    height, width = size if tile is None else (min(tile, side) for side in size)

    def encode() -> None:
        vae.encode(torch.empty(frames, 3, height, width, dtype=vae.dtype, device="meta"))

    def decode() -> None:
        latents = torch.empty(frames, *model.latent_shape((height, width)), device="meta")
        vae.decode(latents.to(vae.dtype))

    with torch.inference_mode():
        peak = peak_bytes(decode if decoding else encode, device=model.device)
    if tile is None:
        return peak
    itemsize: int = vae.dtype.itemsize
    return peak + _TILED * frames * 3 * size[0] * size[1] * itemsize


def generous_bytes(
    model: StableDiffusion, size: tuple[int, int], *, frames: int, network: Literal["unet", "vae"]
) -> int:
    """Return more bytes than frames take together in a network, without a simulation.

    Args:
        model: in its data types.
        size: (height, width) of the frames, pixels.
        frames: that pass together, in three branches of the UNet.
        network: the UNet or the VAE.
    """
    area = size[0] * size[1]
    if network == "unet":
        channels, itemsize = 3 * model.unet.config.block_out_channels[0], model.unet.dtype.itemsize
        return int(_GENEROUS_UNET * channels * itemsize * frames * area // model.vae_factor**2)
    return int(_GENEROUS_VAE * model.vae.config.block_out_channels[0] * model.vae.dtype.itemsize * frames * area)


def _keyframe_bytes(model: StableDiffusion, size: tuple[int, int]) -> int:
    """Return what each keyframe takes in whatever batches: latents and maps of pairs."""
    return _CELL_BYTES * (size[0] * size[1] // model.vae_factor**2)


def _kept_bytes(model: StableDiffusion, size: tuple[int, int]) -> int:
    """Return what the inputs of ControlNets take for each keyframe of a batch of all, where they stay on the device."""
    return len(networks_of(model.controlnet)) * 3 * int(model.dtype.itemsize) * size[0] * size[1]


def _latents(model: StableDiffusion, keyframes: int, size: tuple[int, int]) -> Tensor:
    return torch.empty(keyframes, *model.latent_shape(size), device="meta")


def _warps(keyframes: int, size: tuple[int, int]) -> PairWarps:
    """Return the flow and the mask of all pairs, as one tensor: stored ones are read one by one."""
    flow, mask = torch.empty(2, *size, device="meta"), torch.empty(size, dtype=torch.bool, device="meta")
    pairs = [(a, b) for pair in reachable_pairs(keyframes) for a, b in (pair, pair[::-1])]
    return PairWarps(flow_to_prev=dict.fromkeys(pairs, flow), mask=dict.fromkeys(pairs, mask))
