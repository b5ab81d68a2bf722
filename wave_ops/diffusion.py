"""Components of a Stable Diffusion checkpoint, and encoding and decoding with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from wave_ops.errors import NonFiniteError, WaveOpsError

__all__ = [
    "StableDiffusion",
    "batch_slices",
    "decode_latents",
    "encode_frames",
    "encode_prompt",
    "tiled",
    "tokenize",
    "unread_words",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class StableDiffusion:
    """The components of a Stable Diffusion 1.x, 2.x or XL checkpoint, in the diffusers layout."""

    tokenizer: Any
    """CLIPTokenizer; prompts are padded or cut to its `model_max_length`."""
    text_encoder: Any
    """CLIPTextModel."""
    tokenizer_2: Any = None
    """The tokenizer of the second text encoder (SDXL), or None."""
    text_encoder_2: Any = None
    """CLIPTextModelWithProjection (SDXL), or None."""
    zero_empty_prompt: bool = False
    """Whether an empty prompt is encoded as zeros, with two text encoders."""
    vae: Any
    """AutoencoderKL; may be float32 while the rest is float16."""
    unet: Any
    """UNet2DConditionModel."""
    scheduler_config: Mapping[str, Any]
    """The config of any diffusers scheduler; read as a DDIM config."""
    controlnet: Any = None
    """ControlNetModel, MultiControlNetModel for several, or None."""
    sites: Mapping[str, Sequence[str]] | None = None
    """Warp and injection sites that the checkpoint names; None for those of `wave_ops.sites.resolve_sites`' rule."""
    cuda_graphs: bool = False
    """Whether the UNet's calls are recorded as CUDA graphs, with twice the memory; only for a model on CUDA."""

    @property
    def device(self) -> torch.device:
        """Device of the UNet."""
        return torch.device(self.unet.device)

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the UNet."""
        dtype: torch.dtype = self.unet.dtype
        return dtype

    @property
    def vae_factor(self) -> int:
        """Pixels per latent cell along each side."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def size_multiple(self) -> int:
        """Divisor of a frame's sides, pixels: every level of the UNet then halves the latents without a remainder."""
        return int(self.vae_factor * 2 ** (len(self.unet.config.block_out_channels) - 1))

    def latent_shape(self, size: tuple[int, int]) -> tuple[int, int, int]:
        """Return (channel, height, width) of the latents of a frame.

        Args:
            size: (height, width) of the frame, multiples of `size_multiple`, pixels.
        """
        height, width = (side // self.vae_factor for side in size)
        return int(self.vae.config.latent_channels), height, width

    @property
    def native_area(self) -> int:
        """Area of the square frames that the model was trained on, pixels."""
        return int((self.unet.config.sample_size * self.vae_factor) ** 2)


@torch.inference_mode()
def encode_prompt(model: StableDiffusion, prompt: str) -> Float[Tensor, "1 token channel"]:
    """Encode a prompt by a model's only text encoder, padded or cut to the tokenizer's length."""
    encoder, tokens = model.text_encoder, tokenize(model.tokenizer, prompt, device=model.device)
    # As in diffusers: the padding is attended to, as in training, unless the checkpoint's config says otherwise
    mask = tokens.attention_mask if getattr(encoder.config, "use_attention_mask", False) else None
    hidden: Tensor = encoder(tokens.input_ids, attention_mask=mask).last_hidden_state
    return hidden.to(model.dtype)


def tokenize(tokenizer: Any, prompt: str, *, device: torch.device) -> Any:
    """Return the token ids of a prompt, (1, token), padded or cut to the tokenizer's length, and their mask."""
    return tokenizer(
        prompt,
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).to(device)


def unread_words(tokenizer: Any, prompt: str) -> str:
    """Return the end of a prompt that `encode_prompt` cuts off, as the tokenizer spells it; empty for most prompts."""
    tokens: list[int] = tokenizer(prompt, truncation=False, verbose=False).input_ids
    if len(tokens) <= tokenizer.model_max_length:
        return ""
    # The last token that is read is the one that ends a prompt
    return str(tokenizer.decode(tokens[tokenizer.model_max_length - 1 :], skip_special_tokens=True)).strip()


@torch.inference_mode()
def encode_frames(
    model: StableDiffusion,
    frames: UInt8[np.ndarray, "frame height width 3"],
    *,
    batch: int = 4,
    tile: int | None = None,
) -> Float[Tensor, "frame channel latent_height latent_width"]:
    """Encode frames to float32 latents: the mean of the VAE's posterior times its scaling factor.

    Source: WAVE sec. 5.

    Args:
        model: its VAE is used.
        frames: uint8 RGB; both sides are multiples of the model's `size_multiple`.
        batch: frames that are encoded at a time; changes memory, not the result.
        tile: see `tiled`.

    Raises:
        WaveOpsError: a side is not a multiple of the model's `size_multiple`.
    """
    height, width = frames.shape[1:3]
    if height % model.size_multiple or width % model.size_multiple:
        raise WaveOpsError(
            f"frames of {width}x{height} do not fit the model: both sides must be multiples of {model.size_multiple}"
        )
    vae = model.vae
    latents = []
    with tiled(vae, tile):
        for start in range(0, len(frames), batch):
            pixels = torch.from_numpy(frames[start : start + batch]).to(model.device).permute(0, 3, 1, 2)
            images = (pixels.to(vae.dtype) / 127.5) - 1
            # The mean instead of a sample: the same frames must have the same latents in every run
            latents.append(vae.encode(images).latent_dist.mean.float() * vae.config.scaling_factor)
    # Convolutions may return channels-last memory, which rounds differently from a stored copy read back
    return torch.cat(latents).contiguous()


@torch.inference_mode()
def decode_latents(
    model: StableDiffusion,
    latents: Float[Tensor, "frame channel latent_height latent_width"],
    *,
    batch: int = 4,
    tile: int | None = None,
) -> UInt8[np.ndarray, "frame height width 3"]:
    """Decode latents to frames, rounded to uint8.

    Args:
        model: its VAE is used.
        latents: float32, multiplied by the VAE's scaling factor.
        batch: frames that are decoded at a time; changes memory, not the result.
        tile: see `tiled`.

    Raises:
        NonFiniteError: a decoded value is NaN or infinite.
    """
    vae, frames, finite = model.vae, [], []
    with tiled(vae, tile):
        for part in latents.split(batch):
            images = vae.decode((part.to(model.device) / vae.config.scaling_factor).to(vae.dtype)).sample
            pixels = ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
            finite.append(images.isfinite().all())
            frames.append(pixels.permute(0, 2, 3, 1).cpu().numpy())
    # Read at the end, when the device has nothing left to do; as pixels NaN would be black
    if not torch.stack(finite).all():
        raise NonFiniteError("decoded frames are not finite: the VAE returns NaN or infinity")
    return np.concatenate(frames)


@contextmanager
def tiled(vae: Any, side: int | None) -> Iterator[None]:
    """Let a VAE encode and decode in square tiles that overlap and are blended; its settings return afterwards.

    A tile is normalised by itself, so that values differ slightly from those of whole frames.

    Args:
        vae: an AutoencoderKL.
        side: of the tiles, pixels; None for whole frames.
    """
    if side is None:
        yield
        return
    before = {name: getattr(vae, name) for name in ("use_tiling", "tile_sample_min_size", "tile_latent_min_size")}
    wanted = (True, side, side // 2 ** (len(vae.config.block_out_channels) - 1))
    try:
        for name, value in zip(before, wanted, strict=True):
            setattr(vae, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(vae, name, value)


def batch_slices(count: int, size: int | None) -> Iterator[slice]:
    """Cut a sequence of `count` frames into batches of at most `size`; None for one batch.

    Raises:
        WaveOpsError: the size is below 1.
    """
    if size is not None and size < 1:
        raise WaveOpsError(f"expected a batch of at least 1 frame, got {size}")
    step = size or max(count, 1)
    return (slice(start, min(start + step, count)) for start in range(0, count, step))
