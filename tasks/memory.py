"""How many keyframes pass through the UNet together, and frames through the VAE, within the memory of the device."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Final, Literal

import psutil
import torch

from wave_ops.diffusion import StableDiffusion
from wave_ops.footprint import Footprint
from wave_ops.stage_footprints import generous_bytes, vae_bytes

__all__ = ["StageMemory", "VaeBatch", "free_bytes"]

_MARGIN: Final = 0.9
"""Fraction of the free memory that is used where no limit is set."""
_FRAMES: Final = 4
"""Frames that pass through the VAE together at most: more are not faster."""
_SMALLEST_TILE: Final = 16
"""Side of the smallest tile of the VAE, cells of the latents' grid."""
_FITTED: dict[str, int] = {}
"""By device, bytes that were left of the limit of this process after it had run out of memory."""
_PREDICTED: dict[Hashable, Footprint] = {}
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class VaeBatch:
    """How frames pass through the VAE: the arguments `batch` and `tile` of `encode_frames` and `decode_latents`."""

    frames: int
    tile: int | None


class StageMemory:
    """The memory that a stage may take over its loaded networks, and how it is used.

    The structure of the networks is simulated only where a generous bound does not fit, and once in a process.
    """

    def __init__(
        self,
        model: StableDiffusion,
        *,
        size: tuple[int, int],
        keyframes: int,
        limit: int | None,
        footprint: Callable[[], Footprint],
        key: Hashable,
    ) -> None:
        """Read how much memory is free.

        Args:
            model: the loaded model.
            size: (height, width) of the keyframes, pixels.
            keyframes: of the stage.
            limit: bytes that the process may take on the device; None for most of what is free.
            footprint: predicts the memory of the stage.
            key: whatever else than the size and the device that depends on.
        """
        self._model, self._size, self._keyframes, self._predict = model, size, keyframes, footprint
        self._key = (key, size, str(model.device))
        self._budget = min(free_bytes(model.device, limit), _FITTED.get(str(model.device), 2**62))

    @property
    def _footprint(self) -> Footprint:
        if self._key not in _PREDICTED:
            _PREDICTED[self._key] = self._predict()
        return _PREDICTED[self._key]

    def keyframe_batch(self, chosen: int | None, *, divisible: bool = True) -> int | None:
        """Return the keyframes in one UNet batch; None for all.

        Args:
            chosen: the most, by the settings.
            divisible: whether the keyframes may pass in several batches.
        """
        most = min(chosen or self._keyframes, self._keyframes)
        if not divisible or self._fits_generously(most, "unet"):
            return chosen
        fitting = self._footprint.batch_within(self._budget, self._keyframes)
        if fitting >= most:
            return chosen
        if fitting == 0:
            _LOG.warning(
                "One keyframe takes %s by the prediction, more than the %s that are left: it is tried nevertheless",
                _mebibytes(self._footprint.bytes(self._keyframes, 1)),
                _mebibytes(self._budget),
            )
        batch = max(fitting, 1)
        _LOG.info("%d of %d keyframes pass through the UNet together, to fit in memory", batch, self._keyframes)
        return batch

    def with_graphs(self, batch: int | None) -> StableDiffusion:
        """Return the model; its UNet's calls are recorded as CUDA graphs if these fit in memory as well.

        Args:
            batch: keyframes in one UNet batch; None for all. Only a step of one batch is recorded.
        """
        size = min(batch or self._keyframes, self._keyframes)
        if self._model.device.type != "cuda" or size < self._keyframes:
            return self._model
        fits = self._fits_generously(2 * size, "unet")
        fits = fits or self._footprint.bytes(self._keyframes, size) + self._footprint.batched * size <= self._budget
        return replace(self._model, cuda_graphs=fits)

    def halved(self, batch: int) -> None:
        """Let later stages of this process take no more than a batch that was halved when memory ran out."""
        self._remember(self._footprint.bytes(self._keyframes, batch))

    def vae_batch(self, frames: int, *, decoding: bool) -> VaeBatch:
        """Return how a number of frames passes through the VAE."""
        most = min(frames, _FRAMES)
        if self._fits_generously(most, "vae"):
            return VaeBatch(frames=_FRAMES, tile=None)

        def fits(count: int, tile: int | None = None) -> bool:
            return vae_bytes(self._model, self._size, frames=count, decoding=decoding, tile=tile) <= self._budget

        for count in range(most, 0, -1):
            if fits(count):
                return VaeBatch(frames=count, tile=None)
        sides = self._tiles()
        tile = next((side for side in sides if fits(1, side)), sides[-1] if sides else None)
        if tile is not None:
            _LOG.warning("A whole frame does not fit in memory: the VAE works in tiles of %d pixels", tile)
        return VaeBatch(frames=1, tile=tile)

    def smaller_vae_batch(self, batch: VaeBatch) -> VaeBatch | None:
        """Return half of a batch of the VAE, then tiles, then smaller ones; None after the smallest."""
        if batch.frames > 1:
            return replace(batch, frames=(batch.frames + 1) // 2)
        tile = next((side for side in self._tiles() if batch.tile is None or side < batch.tile), None)
        return None if tile is None else replace(batch, tile=tile)

    def vae_halved(self, batch: VaeBatch, *, decoding: bool) -> None:
        """Log that memory ran out in the VAE, and let what follows in this process take no more than a smaller batch.

        Args:
            batch: from `smaller_vae_batch`, with which the stage goes on.
            decoding: whether latents are decoded.
        """
        size = f"{batch.frames} at a time" if batch.tile is None else f"tiles of {batch.tile} pixels"
        _LOG.warning("The device ran out of memory with the frames in the VAE; going on with %s", size)
        self._remember(vae_bytes(self._model, self._size, frames=batch.frames, decoding=decoding, tile=batch.tile))

    def _tiles(self) -> list[int]:
        """Return the sides of tiles that are smaller than a frame, pixels, the largest first."""
        smallest = _SMALLEST_TILE * self._model.vae_factor
        return [smallest * 2**power for power in range(8, -1, -1) if smallest * 2**power < max(self._size)]

    def _remember(self, fitted: int) -> None:
        device = str(self._model.device)
        _FITTED[device] = min(fitted, _FITTED.get(device, fitted))
        self._budget = min(self._budget, fitted)

    def _fits_generously(self, frames: int, network: Literal["unet", "vae"]) -> bool:
        return generous_bytes(self._model, self._size, frames=frames, network=network) <= self._budget


def free_bytes(device: torch.device, limit: int | None = None) -> int:
    """Return the memory that this process may take in addition to what it has, bytes.

    Args:
        device: a CUDA device, or the CPU for the machine's main memory.
        limit: bytes that the process may have altogether; None for most of what is free.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        taken = torch.cuda.memory_allocated(device)
        free += torch.cuda.memory_reserved(device) - taken  # kept by torch for the next tensors
    else:
        free, taken = psutil.virtual_memory().available, psutil.Process().memory_info().rss
    if limit is None:
        return int(_MARGIN * free)
    return max(0, min(limit - taken, free))


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
