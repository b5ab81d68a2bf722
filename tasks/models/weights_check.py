"""Whether weights fit their config: by the shapes in the headers of safetensors files, before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from safetensors import SafetensorError, safe_open

from tasks.errors import TaskInputError

__all__ = ["check_cross_attention", "check_weights", "expected_of_vae", "read_shapes"]

Expected: TypeAlias = tuple[str, tuple[int | None, ...]]
"""Name of a tensor, and its first dimensions: None is any number."""


def check_weights(files: Sequence[Path], config: Mapping[str, Any], *, network: str) -> None:
    """Check that files can be read and that their main tensors have the shapes that the config implies.

    Dimensions that the config leaves to a default are not checked.

    Args:
        files: from `weight_files`; only the headers are read.
        config: of the network.
        network: unet, controlnet, vae, text_encoder or text_encoder_2.

    Raises:
        TaskInputError: if a file is damaged, or a tensor is missing or has another shape.
    """
    file = files[0]
    shapes: dict[str, list[int]] = {}
    for part in files:
        shapes |= read_shapes(part) if part.suffix == ".safetensors" else {}
    for name, wanted in _EXPECTED[network](config):
        found = shapes.get(name) or shapes.get(f"text_model.{name}")
        if found is None:
            raise TaskInputError(f"The weights {file} do not fit the config next to them: they have no {name}.")
        if len(found) < len(wanted) or any(w not in (None, f) for w, f in zip(wanted, found, strict=False)):
            shown = "x".join("any" if side is None else str(side) for side in wanted)
            raise TaskInputError(
                f"The weights {file} do not fit the config next to them: {name} is {'x'.join(map(str, found))}, and "
                f"the config says {shown}."
            )
    levels = len(config.get("block_out_channels") or ())
    if levels and (surplus := next((key for key in shapes if key.startswith(f"down_blocks.{levels}.")), "")):
        raise TaskInputError(f"The weights {file} do not fit the config next to them: it has no place for {surplus}.")


def check_cross_attention(unet: Mapping[str, Any], text_encoders: Sequence[Mapping[str, Any]], *, model: str) -> None:
    """Check that the text encoders together return what the UNet attends to.

    Raises:
        TaskInputError: if the widths differ.
    """
    width = unet.get("cross_attention_dim")
    hidden = [size for encoder in text_encoders if isinstance(size := encoder.get("hidden_size"), int)]
    if isinstance(width, int) and len(hidden) == len(text_encoders) and width != sum(hidden):
        returned = " and ".join(map(str, hidden))
        raise TaskInputError(
            f"The UNet of {model!r} attends to text of {width} channels, and its text encoder returns {returned}."
        )


def read_shapes(file: Path) -> dict[str, list[int]]:
    """Read the shapes of a safetensors file's tensors by name, from its header.

    Raises:
        TaskInputError: if the file is damaged.
    """
    try:
        with safe_open(str(file), framework="numpy") as opened:
            return {key: opened.get_slice(key).get_shape() for key in opened.keys()}  # noqa: SIM118  (not a mapping)
    except (SafetensorError, OSError) as error:
        raise TaskInputError(f"The weights {file} are damaged ({error}): fetch them again.") from None


def _unet(config: Mapping[str, Any]) -> Iterator[Expected]:
    widths = config.get("block_out_channels") or ()
    if not widths:
        return
    yield "conv_in.weight", (widths[0], config.get("in_channels"))
    layers = config.get("layers_per_block")
    for level, width in enumerate(widths):
        count = layers[level] if isinstance(layers, Sequence) else layers or 1
        yield f"down_blocks.{level}.resnets.{count - 1}.conv2.weight", (width, width)
        cross = config.get("cross_attention_dim")
        kinds = config.get("down_block_types") or ()
        if isinstance(cross, int) and level < len(kinds) and kinds[level] == "CrossAttnDownBlock2D":
            yield f"down_blocks.{level}.attentions.0.transformer_blocks.0.attn2.to_k.weight", (None, cross)
    yield "mid_block.resnets.0.conv1.weight", (widths[-1], widths[-1])


def _whole_unet(config: Mapping[str, Any]) -> Iterator[Expected]:
    yield from _unet(config)
    if widths := config.get("block_out_channels"):
        yield "conv_out.weight", (config.get("out_channels"), widths[0])


def expected_of_vae(config: Mapping[str, Any]) -> Iterator[Expected]:
    """Yield the main tensors of a VAE, which have these names in both layouts."""
    widths = config.get("block_out_channels")
    if not widths:
        return
    latent = config.get("latent_channels")
    yield "encoder.conv_in.weight", (widths[0], config.get("in_channels"))
    yield "encoder.conv_out.weight", (latent and 2 * latent, widths[-1])
    yield "decoder.conv_in.weight", (widths[-1], latent)
    yield "decoder.conv_out.weight", (config.get("out_channels"), widths[0])


def _text_encoder(config: Mapping[str, Any]) -> Iterator[Expected]:
    hidden = config.get("hidden_size")
    yield "embeddings.token_embedding.weight", (config.get("vocab_size"), hidden)
    yield "embeddings.position_embedding.weight", (config.get("max_position_embeddings"), hidden)
    if layers := config.get("num_hidden_layers"):
        yield f"encoder.layers.{layers - 1}.mlp.fc1.weight", (config.get("intermediate_size"), hidden)


def _projecting_text_encoder(config: Mapping[str, Any]) -> Iterator[Expected]:
    yield from _text_encoder(config)
    yield "text_projection.weight", (config.get("projection_dim"), config.get("hidden_size"))


_EXPECTED = {
    "unet": _whole_unet,
    "controlnet": _unet,
    "vae": expected_of_vae,
    "text_encoder": _text_encoder,
    "text_encoder_2": _projecting_text_encoder,
}
