"""The UNet of Stable Diffusion XL at reduced width."""

from __future__ import annotations

from diffusers import UNet2DConditionModel

__all__ = ["sdxl_unet"]

_CROSS, _CROSS_UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"


def sdxl_unet(*, width: int, heads: tuple[int, int, int], texts: int, pooled: int) -> UNet2DConditionModel:
    """Return a UNet of three levels, the first without attention, with embedded sizes and pooled prompts.

    Args:
        width: channels of the first level; the others have twice as many.
        heads: of attention, by level.
        texts: channels of both text encoders together.
        pooled: channels of a pooled prompt.
    """
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(width, 2 * width, 2 * width),
        down_block_types=("DownBlock2D", _CROSS, _CROSS),
        up_block_types=(_CROSS_UP, _CROSS_UP, "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=heads,
        use_linear_projection=True,
        cross_attention_dim=texts,
        addition_embed_type="text_time",
        addition_time_embed_dim=width // 2,
        projection_class_embeddings_input_dim=6 * (width // 2) + pooled,
        norm_num_groups=width // 2,
    )
    unet.conv_out.weight.data *= 0.2  # as smooth in its input as a trained UNet
    return unet
