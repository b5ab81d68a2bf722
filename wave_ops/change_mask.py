"""Where two prompts disagree about the keyframes: the mask outside of which an edit keeps the source."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from wave_ops.conditioning import encode_prompts
from wave_ops.diffusion import StableDiffusion
from wave_ops.guided_filter import guided_filter
from wave_ops.schedule import DDIMSchedule

__all__ = ["change_mask", "paste_edit", "prompt_difference"]

_LEVELS: Final = (0.3, 0.5, 0.7)
"""Noise levels as fractions of the schedule: below, both prompts predict the same noise; above, neither sees the
frame."""
_DRAWS: Final = 3
"""Draws of noise at each level."""
_BRIGHTEST: Final = 65_535  # of 16 bits
_RIDGE: Final = 6.5
"""Of the guided filter, 8-bit levels squared: an edge of a few levels counts."""
_LEAST_PART: Final = 0.02
"""Fraction of a cell's pixels that makes it one to be edited: the tip of an object is a few pixels."""


@torch.inference_mode()
def prompt_difference(
    model: StableDiffusion,
    latents: Float[Tensor, "keyframe channel height width"],
    *,
    source_prompt: str,
    prompt: str,
    steps: int,
    seed: int,
    keyframe_batch: int | None = None,
) -> Float[Tensor, "keyframe height width"]:
    """Compute how much the noise predictions of two prompts differ at each cell of the latents.

    The latents are noised at three levels, three times each. Source: Couairon et al., "DiffEdit" (ICLR 2023), sec. 3.2.

    Args:
        model: the diffusion model; its ControlNet is not used.
        latents: x_0 of the keyframes.
        source_prompt: describes the source.
        prompt: describes the edited clip.
        steps: S of the schedule.
        seed: of the noise, which differs by keyframe, level and draw.
        keyframe_batch: keyframes in one UNet batch; None for all. Changes memory, not the result.

    Returns:
        The root mean square of the difference over channels, averaged over levels and draws, float32 on the CPU.
    """
    schedule = DDIMSchedule.from_config(model.scheduler_config, steps=steps)
    timesteps = schedule.timestep_tensor(model.device)
    prompts = encode_prompts(model, (source_prompt, prompt))
    clean = latents.float().to(model.device)
    total = torch.zeros(len(clean), *clean.shape[2:], device=model.device)
    count = 0
    for step_index, noise in _noises(clean.shape, steps=steps, seed=seed):
        noised = schedule.add_noise(clean, noise.to(model.device), step_index)
        for frames in torch.arange(len(clean)).split(keyframe_batch or len(clean)):
            batch = noised[frames].repeat(2, 1, 1, 1)
            timestep = timesteps[step_index - 1]
            output = model.unet(batch.to(model.dtype), timestep, **prompts.arguments(batch)).sample
            source, edited = schedule.noise_prediction(output, batch, step_index).chunk(2)
            total[frames] += (edited - source).square().mean(dim=1).sqrt()
        count += 1
    return (total / count).cpu()


def _noises(shape: torch.Size, *, steps: int, seed: int) -> Iterator[tuple[int, Tensor]]:
    """Yield the step index and the noise of each draw, which does not depend on the device."""
    generator = torch.Generator().manual_seed(seed)
    for level in _LEVELS:
        for _ in range(_DRAWS):
            yield max(1, round(level * steps)), torch.randn(shape, generator=generator)


def change_mask(
    difference: Float[Tensor, "keyframe height width"],
    frames: Iterable[UInt8[np.ndarray, "frame_height frame_width 3"]],
    *,
    threshold: float = 0.8,
    grow: int = 0,
) -> Float[Tensor, "keyframe 1 height width"]:
    """Return where the keyframes are to be edited, 0 to 1: the cells where the prompts differ most.

    The difference is enlarged to the frames' size, and smoothed so that it changes where the frames do; one threshold
    divides the pixels of all keyframes, and cells that contain some above it are edited. Then the mask is grown,
    and cells next to it are edited in part, by a mean of 3 x 3 cells. Prompts that do not differ at all have an empty
    mask.

    Args:
        difference: from `prompt_difference`, of the keyframes of a shot.
        frames: the keyframes, of a multiple of the difference's size; one at a time is kept.
        threshold: in units of Otsu's (1979), which divides the pixels into the two most even groups.
        grow: cells by which the mask is grown.
    """
    if not difference.any():
        return torch.zeros_like(difference)[:, None]
    cells = torch.from_numpy(_edited_cells(difference, frames, threshold))
    mask = cells.float()[:, None]
    mask = F.max_pool2d(mask, 2 * grow + 1, stride=1, padding=grow)
    # Only outwards: a border that is kept in part keeps a part of the source's colour
    return torch.maximum(mask, F.avg_pool2d(F.pad(mask, [1] * 4, mode="replicate"), 3, stride=1))


def _edited_cells(difference: Tensor, frames: Iterable[NDArray[np.uint8]], threshold: float) -> NDArray[np.bool_]:
    """Return the cells with enough pixels above the threshold.

    The threshold is known after the last frame. By then only one pixel of each cell is kept, which decides about it.
    """
    scale = _BRIGHTEST / float(difference.max())
    deciding, counts = np.empty(difference.shape, np.uint16), np.zeros(_BRIGHTEST + 1, np.int64)
    for target, frame, values in zip(deciding, frames, difference, strict=True):
        levels = (_fitted(values, frame) * scale).round().clip(max=_BRIGHTEST).astype(np.uint16)
        counts += np.bincount(levels.ravel(), minlength=len(counts))
        pixels = rearrange(
            levels, "(row y) (column x) -> row column (y x)", row=target.shape[0], column=target.shape[1]
        )
        rank = int(_LEAST_PART * pixels.shape[-1]) + 1
        target[...] = np.partition(pixels, -rank)[..., -rank]
    return np.asarray(deciding > threshold * _otsu(counts))


def _fitted(difference: Tensor, frame: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Enlarge a difference so that it has the edges of its frame."""
    size = (frame.shape[0], frame.shape[1])
    side = 2 * (size[0] // difference.shape[0]) + 1
    enlarged = F.interpolate(difference[None, None].float(), size=size, mode="bilinear")[0, 0].numpy()
    return guided_filter(frame.astype(np.float32), enlarged, side=side, ridge=_RIDGE).clip(0)


def _otsu(counts: NDArray[np.int64]) -> int:
    """Return the highest level of the lower one of Otsu's two groups, from the number of pixels at each level."""
    fractions = counts / counts.sum()
    lower, sums = fractions.cumsum(), (fractions * np.arange(len(counts))).cumsum()
    upper = 1 - lower
    # A group of next to nothing would divide by rounding errors
    groups = np.minimum(lower, upper) > np.finfo(np.float32).eps
    between = np.zeros(len(counts))
    np.divide((sums[-1] * lower - sums) ** 2, lower * upper, out=between, where=groups)
    return int(between.argmax())


def paste_edit(
    source: UInt8[np.ndarray, "keyframe height width 3"],
    edited: UInt8[np.ndarray, "keyframe height width 3"],
    mask: Float[Tensor, "keyframe 1 rows columns"],
) -> UInt8[np.ndarray, "keyframe height width 3"]:
    """Return the edited frames inside a mask and the source outside, with a soft border.

    Args:
        source: frames before the edit.
        edited: the same frames after it.
        mask: from `change_mask`; it is enlarged to the frames.
    """
    weights = F.interpolate(mask.float(), size=source.shape[1:3], mode="bilinear")[:, 0, ..., None].numpy()
    mixed = source + weights * (edited.astype(np.float32) - source)
    return np.asarray(mixed.round(), np.uint8)
