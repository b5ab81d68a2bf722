"""Patch errors of candidate matches by one Triton kernel: it reads the patches where they are, and copies none.

The plain form of the same is in `torch_search`; squares are summed in another order, so errors differ by rounding.
"""

from __future__ import annotations

import logging
from functools import cache
from subprocess import SubprocessError
from typing import Any

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int32
from torch import Tensor
from triton.errors import TritonError

__all__ = ["errors_below", "works"]

_LOG = logging.getLogger(__name__)
_PIXELS = 64
"""Pixels of one program: 4 warps read 16 channels of 2 patches of each, 16 bytes per thread and load."""

Packed = Float[Tensor, "batch padded_height padded_width channel"]


def errors_below(
    source: Packed,
    target: Packed,
    candidates: Int32[Tensor, "batch candidate pixel"],
    limit: Float[Tensor, "batch candidate pixel"],
    *,
    own_place: Int32[Tensor, "batch 1 pixel"],
    patch: int,
    row_fraction: float,
) -> Float[Tensor, "batch candidate pixel"]:
    """Return the patch errors of candidate matches; infinity for those that are not compared, as in `torch_search`.

    Args:
        source: packed images; the number of channels is a power of 2.
        target: packed images.
        candidates: places in the source, as in `Grid`; where the limit is above 0, whole patches around them exist.
        limit: only candidates with a limit above 0 are compared.
        own_place: places in the target.
        patch: odd number of pixels along the side of a patch.
        row_fraction: candidates with at least this fraction of the limit in their middle row are not compared further.
    """
    batch, count, pixels = candidates.shape
    errors = torch.empty_like(limit, memory_format=torch.contiguous_format)
    if errors.numel():
        with torch.cuda.device_of(source):  # Triton launches on the current device, wherever the tensors are
            _kernel[count * triton.cdiv(pixels, _PIXELS), batch](
                source.contiguous(),
                target.contiguous(),
                candidates.contiguous(),
                own_place.contiguous(),
                limit.contiguous(),
                errors,
                count,
                pixels,
                source.shape[2],
                row_fraction,
                PATCH=patch,
                CHANNELS=source.shape[3],
                PIXELS=_PIXELS,
            )
    return errors


@cache
def works(device: torch.device) -> bool:
    """Return whether the kernel runs on a device, and log a warning if it does not.

    Triton compiles when a kernel is launched: it needs a C compiler, Python's headers and a folder to write to.
    """
    image = torch.zeros(1, 5, 5, 16, device=device)
    place = torch.full((1, 1, 1), 12, dtype=torch.int32, device=device)
    try:
        errors_below(image, image, place, place.float(), own_place=place, patch=5, row_fraction=0.5)
    except torch.OutOfMemoryError:
        raise
    except (TritonError, SubprocessError, OSError, RuntimeError, ImportError) as error:
        _LOG.warning("Triton failed, so that patches are compared by torch, more slowly: %s", error)
        return False
    return True


def _errors_below(
    source: tl.tensor,
    target: tl.tensor,
    candidates: tl.tensor,
    own_place: tl.tensor,
    limits: tl.tensor,
    errors: tl.tensor,
    count: tl.tensor,
    pixels: tl.tensor,
    stride: tl.tensor,
    row_fraction: tl.tensor,
    PATCH: tl.constexpr,
    CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr,
) -> None:
    """Compute `errors_below` for `PIXELS` pixels of one candidate (first axis of the grid) and image (second axis).

    All candidates of some pixels come one after another, so that their target patches are read from memory once.
    """
    exemplar = tl.program_id(1)
    part = tl.program_id(0) // count
    # Places times channels, and candidates times pixels, may exceed 32 bits.
    pixel = part.to(tl.int64) * PIXELS + tl.arange(0, PIXELS)
    entry = (exemplar * count + tl.program_id(0) % count).to(tl.int64) * pixels + pixel
    inside = pixel < pixels
    limit = tl.load(limits + entry, mask=inside, other=0.0)
    kept = limit > 0
    one = tl.load(candidates + entry, mask=kept, other=0).to(tl.int64) * CHANNELS
    other = tl.load(own_place + exemplar.to(tl.int64) * pixels + pixel, mask=kept, other=0).to(tl.int64) * CHANNELS
    channel = tl.arange(0, CHANNELS)[None, :]
    one_patch = source + one[:, None] + channel
    other_patch = target + other[:, None] + channel
    total = tl.full((PIXELS, CHANNELS), 0.0, tl.float32)
    for step in tl.static_range(PATCH):
        row = (step + PATCH // 2) % PATCH - PATCH // 2  # from the middle row on
        for column in tl.static_range(PATCH):
            offset = (row * stride + column - PATCH // 2) * CHANNELS
            difference = tl.load(one_patch + offset, mask=kept[:, None], other=0.0) - tl.load(
                other_patch + offset, mask=kept[:, None], other=0.0
            )
            total += difference * difference
        if step == 0:
            kept = kept & (tl.sum(total, axis=1) < row_fraction * limit)
    tl.store(errors + entry, tl.where(kept, tl.sum(total, axis=1), float("inf")), mask=inside)


# One compiled kernel serves images of all sizes.
_kernel: Any = triton.jit(_errors_below, do_not_specialize=["count", "pixels", "stride", "row_fraction"])
