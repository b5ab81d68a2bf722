"""Metrics from CLIP embeddings: agreement of a video's frames with each other and with a prompt.

Convention:
    Embeddings are float32 vectors of unit length, (frame, embedding) of frames and (embedding) of a prompt, on the
    device of the model. The metrics use only their directions. The model is a `CLIPModel` of transformers with its
    `CLIPProcessor`; values from different models cannot be compared.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from wave_ops.errors import WaveOpsError

__all__ = ["embed_frames", "embed_text", "frame_accuracy", "temporal_consistency", "text_alignment"]


def temporal_consistency(image_embeddings: Float[Tensor, "frame embedding"]) -> float:
    """Return the mean cosine between the embeddings of neighbouring frames; higher is steadier.

    Source: the frame consistency of Esser et al., "Structure and Content-Guided Video Synthesis with Diffusion
    Models" (ICCV 2023), and "Tem-Con" of FateZero (Qi et al., ICCV 2023). Range [-1, 1], 1 for a still; not a number
    for fewer than two frames. Cuts are not detected: pass one shot at a time.
    """
    return float(F.cosine_similarity(image_embeddings[:-1], image_embeddings[1:], dim=1).mean())


def frame_accuracy(
    image_embeddings: Float[Tensor, "frame embedding"],
    target_text: Float[Tensor, "embedding"],
    source_text: Float[Tensor, "embedding"],
) -> float:
    """Return the fraction of frames that are nearer to the target prompt than to the source prompt, by cosine.

    Source: "Frame-Acc" of FateZero (Qi et al., ICCV 2023). Range [0, 1]; a tie is not a success; not a number
    without frames.
    """
    nearer = _cosines(image_embeddings, target_text) > _cosines(image_embeddings, source_text)
    return float(nearer.double().mean())


def text_alignment(image_embeddings: Float[Tensor, "frame embedding"], text: Float[Tensor, "embedding"]) -> float:
    """Return the mean cosine between the frames and a prompt; higher is nearer to the prompt.

    Source: CLIPScore (Hessel et al., EMNLP 2021) without its factor of 2.5, averaged over frames as in Pix2Video
    (Ceylan et al., ICCV 2023). Range [-1, 1], for images and captions about 0.15 to 0.35; not a number
    without frames.
    """
    return float(_cosines(image_embeddings, text).mean())


def embed_frames(
    model: Any, processor: Any, frames: UInt8[np.ndarray, "frame height width 3"], *, batch_size: int = 16
) -> Float[Tensor, "frame embedding"]:
    """Embed frames, prepared by CLIP's processor, which usually crops the central square.

    Raises:
        WaveOpsError: the frames are not uint8 RGB, or there are none.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not len(frames):
        raise WaveOpsError(f"expected uint8 frames (time, height, width, 3), got {frames.dtype} {frames.shape}")
    batches = [list(frames[start : start + batch_size]) for start in range(0, len(frames), batch_size)]
    return torch.cat([_embed_batch(model, processor, batch) for batch in batches])


@torch.no_grad()
def embed_text(model: Any, processor: Any, text: str) -> Float[Tensor, "embedding"]:
    """Embed a prompt, truncated to the model's maximum length."""
    tokens = processor.tokenizer(
        [text], truncation=True, max_length=model.config.text_config.max_position_embeddings, return_tensors="pt"
    )
    return _directions(
        model.get_text_features(
            input_ids=tokens["input_ids"].to(model.device), attention_mask=tokens["attention_mask"].to(model.device)
        )
    )[0]


@torch.no_grad()
def _embed_batch(model: Any, processor: Any, batch: list[NDArray[np.uint8]]) -> Float[Tensor, "frame embedding"]:
    # Without the position of the channels the processor guesses it, wrongly for frames of three rows
    pixels = processor.image_processor(batch, input_data_format="channels_last", return_tensors="pt")["pixel_values"]
    return _directions(model.get_image_features(pixel_values=pixels.to(model.device, model.dtype)))


def _directions(features: Any) -> Float[Tensor, "batch embedding"]:
    """Normalise what CLIP returns: a tensor before transformers 5, since then an object with the tensor."""
    embeddings: Tensor = features if isinstance(features, Tensor) else features.pooler_output
    return F.normalize(embeddings.float(), dim=1)


def _cosines(image_embeddings: Tensor, text: Tensor) -> Tensor:
    return F.cosine_similarity(image_embeddings, text[None], dim=1)
