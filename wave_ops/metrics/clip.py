"""What CLIP says of a video: whether its frames agree with each other and with a prompt.

Convention:
    Embeddings are float32 rows of unit length, (frame, embedding) of frames and (embedding) of a prompt, on the device
    of the model. The figures need only their directions. Any CLIP in the layout of the library transformers will do:
    a `CLIPModel` and its `CLIPProcessor`; figures of different models cannot be compared.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from wave_ops.errors import WaveOpsError

__all__ = ["embed_frames", "embed_text", "frame_accuracy", "temporal_consistency", "text_alignment"]


def temporal_consistency(image_embeddings: Float[Tensor, "frame embedding"]) -> float:
    """Return the mean cosine between the embeddings of neighbouring frames; higher is steadier.

    Source: the frame consistency of Esser et al., "Structure and Content-Guided Video Synthesis with Diffusion
    Models" (ICCV 2023), and "Tem-Con" of FateZero (Qi et al., ICCV 2023). Range [-1, 1], 1 for a still; not a number
    for fewer than two frames. Cuts are not known here: give one shot at a time.
    """
    return float(F.cosine_similarity(image_embeddings[:-1], image_embeddings[1:], dim=1).mean())


def frame_accuracy(
    image_embeddings: Float[Tensor, "frame embedding"],
    target_text: Float[Tensor, "embedding"],
    source_text: Float[Tensor, "embedding"],
) -> float:
    """Return the share of frames that are nearer to the target prompt than to the source prompt, by cosine.

    Source: "Frame-Acc" of FateZero (Qi et al., ICCV 2023). Range [0, 1]; a tie counts as no success; not a number
    without frames.
    """
    nearer = _cosines(image_embeddings, target_text) > _cosines(image_embeddings, source_text)
    return float(nearer.double().mean())


def text_alignment(image_embeddings: Float[Tensor, "frame embedding"], text: Float[Tensor, "embedding"]) -> float:
    """Return the mean cosine between the frames and a prompt; higher is nearer to what was asked for.

    Source: CLIPScore (Hessel et al., EMNLP 2021) without its factor of 2.5, averaged over frames as in Pix2Video
    (Ceylan et al., ICCV 2023). Range [-1, 1], of which pictures and captions use about 0.15 to 0.35; not a number
    without frames.
    """
    return float(_cosines(image_embeddings, text).mean())


def embed_frames(
    model: Any, processor: Any, frames: NDArray[np.uint8], *, batch_size: int = 16
) -> Float[Tensor, "frame embedding"]:
    """Embed frames (time, height, width, 3) as CLIP's processor wants them: usually the middle square is seen.

    Raises:
        WaveOpsError: the frames are not uint8 RGB.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not len(frames):
        raise WaveOpsError(f"expected uint8 frames (time, height, width, 3), got {frames.dtype} {frames.shape}")
    batches = [list(frames[start : start + batch_size]) for start in range(0, len(frames), batch_size)]
    return torch.cat([_embed_batch(model, processor, batch) for batch in batches])


@torch.no_grad()
def embed_text(model: Any, processor: Any, text: str) -> Float[Tensor, "embedding"]:
    """Embed a prompt, cut to the length that the model reads."""
    tokens = processor.tokenizer(
        [text], truncation=True, max_length=model.config.text_config.max_position_embeddings, return_tensors="pt"
    )
    return _directions(
        model.get_text_features(
            input_ids=tokens["input_ids"].to(model.device), attention_mask=tokens["attention_mask"].to(model.device)
        )
    )[0]


@torch.no_grad()
def _embed_batch(model: Any, processor: Any, batch: list[NDArray[np.uint8]]) -> Tensor:
    # Told where the channels are, the processor does not guess it wrong for frames of three rows
    pixels = processor.image_processor(batch, input_data_format="channels_last", return_tensors="pt")["pixel_values"]
    return _directions(model.get_image_features(pixel_values=pixels.to(model.device, model.dtype)))


def _directions(features: Any) -> Tensor:
    """Unit rows of what CLIP gives: a tensor before transformers 5, since then an object that holds it."""
    embeddings: Tensor = features if isinstance(features, Tensor) else features.pooler_output
    return F.normalize(embeddings.float(), dim=1)


def _cosines(image_embeddings: Tensor, text: Tensor) -> Tensor:
    return F.cosine_similarity(image_embeddings, text[None], dim=1)
