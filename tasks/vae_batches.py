"""Frames through the VAE, as many at a time as fit in memory, and fewer where it runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.memory import StageMemory, VaeBatch
from wave_ops.diffusion import StableDiffusion, decode_latents, encode_frames
from wave_ops.unet import is_out_of_memory

__all__ = ["decoded_frames", "encoded_frames"]

F = TypeVar("F")
R = TypeVar("R")


def encoded_frames(
    model: StableDiffusion, frames: Iterable[NDArray[np.uint8]], memory: StageMemory, *, count: int
) -> Tensor:
    """Encode frames (height, width, 3) one batch at a time: those of a long shot take more memory than its latents.

    Args:
        model: its VAE is used.
        frames: uint8 RGB, of the model's size.
        memory: of the stage.
        count: how many frames there are.

    Returns:
        Their latents, see `encode_frames`.

    Raises:
        OutOfMemoryError: torch's, if a frame does not fit in the smallest tiles.
        RuntimeError: the same of main memory.
    """

    def encode(part: list[NDArray[np.uint8]], batch: VaeBatch) -> Tensor:
        return encode_frames(model, np.stack(part), batch=batch.frames, tile=batch.tile)

    return torch.cat(list(_in_batches(frames, encode, memory, count=count, decoding=False)))


def decoded_frames(model: StableDiffusion, latents: Tensor, memory: StageMemory) -> Iterator[NDArray[np.uint8]]:
    """Decode latents one batch at a time, and yield frames (height, width, 3).

    Args:
        model: its VAE is used.
        latents: see `decode_latents`, which has the same errors.
        memory: of the stage.

    Raises:
        OutOfMemoryError: torch's, if a frame does not fit in the smallest tiles.
        RuntimeError: the same of main memory.
    """

    def decode(part: list[Tensor], batch: VaeBatch) -> NDArray[np.uint8]:
        return decode_latents(model, torch.stack(part), batch=batch.frames, tile=batch.tile)

    for frames in _in_batches(latents, decode, memory, count=len(latents), decoding=True):
        yield from frames


def _in_batches(
    frames: Iterable[F],
    compute: Callable[[list[F], VaeBatch], R],
    memory: StageMemory,
    *,
    count: int,
    decoding: bool,
) -> Iterator[R]:
    """Yield the result of each batch; where memory runs out, the batch is halved, or its tiles, and computed again."""
    batch, rest, waiting = memory.vae_batch(count, decoding=decoding), iter(frames), list[F]()
    while True:
        waiting += islice(rest, max(0, batch.frames - len(waiting)))
        part = waiting[: batch.frames]
        if not part:
            return
        try:
            result = compute(part, batch)
        except RuntimeError as error:
            smaller = memory.smaller_vae_batch(replace(batch, frames=len(part)))
            if not is_out_of_memory(error) or smaller is None:
                raise
        else:
            yield result
            del waiting[: len(part)]
            continue
        # After the handler, which would keep the failed tensors by the error's traceback
        torch.cuda.empty_cache()
        memory.vae_halved(smaller, decoding=decoding)
        batch = smaller
