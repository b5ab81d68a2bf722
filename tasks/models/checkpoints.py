"""Lookup, checks and digests of diffusion checkpoints, without loading them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from storage.digest import digest_of
from tasks.errors import TaskInputError
from tasks.models.architecture import (
    WEIGHTS,
    check_added_conditions,
    check_layout,
    is_xl,
    networks_of,
    zeroes_empty_prompt,
)
from tasks.models.single_file import check_single_file, config_folder, require_safetensors
from tasks.models.weight_files import choose_variant, weight_files
from tasks.models.weights_check import check_cross_attention, check_weights
from tasks.models.weights_digest import weights_digest

__all__ = [
    "Advice",
    "ControlKind",
    "LoraIdentity",
    "ModelIdentity",
    "NetworkIdentity",
    "resolve_controlnet",
    "resolve_model",
    "split_kind",
]

EMBEDDED = Path(__file__).parents[1] / "embedded"
_KNOWN = {
    "model": "'embedded', a folder in the diffusers layout, a safetensors file",
    "VAE": "a folder in the diffusers layout, a safetensors file",
    "ControlNet": "'none', 'auto', a folder",
}
ControlKind: TypeAlias = Literal[
    "canny", "depth", "lineart", "normal", "pose", "scribble", "segmentation", "softedge", "tile"
]
"""What a ControlNet is trained on."""
_KINDS: Final = get_args(ControlKind)
_OTHER_CONTROLS = {
    *("color", "depth", "hed", "inpaint", "ip2p", "lineart", "mlsd", "normal", "normalbae", "openpose", "pidinet"),
    *("pose", "qrcode", "recolor", "scribble", "seg", "segmentation", "shuffle", "sketch", "softedge", "tile"),
}
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


class Advice(BaseModel):
    """Settings that a model recommends for itself, under the key "wave" of its model_index.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    guidance_scale: float | None = Field(default=None, ge=0)
    negative_prompt: str | None = None
    injection: float | None = Field(default=None, ge=0, le=1)
    """Fraction of the steps that inject the source's queries and keys, 0 to 1."""
    feature_injection: float | None = Field(default=None, ge=0, le=1)
    """The same for the outputs of ResNets."""
    keep: bool | None = None
    """Whether what the prompts do not disagree on is kept, where there is a source prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkIdentity:
    """A network on disk: a config, and weights in safetensors."""

    location: str
    """Its folder; or its file, which the config of the checkpoint's own network describes."""
    variant: str | None
    """Infix of the weights' file name, such as fp16; None for weights without one."""
    digest: str
    """Digest of the config and the weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraIdentity:
    """A LoRA file, and the factor of what it adds to the weights."""

    location: str
    weight: float
    digest: str
    """Digest of the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelIdentity:
    """A checkpoint in the diffusers layout: its files, their digest, and the sizes that its configs define."""

    name: str
    """As the user wrote it."""
    location: str
    """Its folder; that of its configs, where all weights are in one file."""
    file: str | None = None
    """The checkpoint in one file; None where each network has its folder."""
    vae: NetworkIdentity | None = None
    """The VAE that takes the place of the checkpoint's own."""
    variants: tuple[tuple[str, str | None], ...]
    """Variant of each network's weights, by the network's folder."""
    digest: str
    """Digest of the configs, the tokenizer, the chosen weights and the sites."""
    vae_factor: int
    """Pixels along each side of a latent."""
    size_multiple: int
    """Number of pixels of which both sides of a frame must be multiples."""
    native_area: int
    """Pixels in a frame of the size that the model was trained on."""
    advice: Advice
    upcast_vae: bool = False
    """Whether its VAE runs in float32 whatever the type of the run, as its config says (`force_upcast`)."""
    base: ModelIdentity | None = None
    """The same model without LoRAs; None where it has none."""
    loras: tuple[LoraIdentity, ...] = ()
    """The LoRAs that are added to the weights while the model is used."""


def resolve_model(spec: str, *, vae: str | None = None, dtype: str = "float32") -> ModelIdentity:
    """Find a model by name and check that it can be used, without loading it.

    Args:
        spec: "embedded", a folder in the diffusers layout, a safetensors file, or a hub id.
        vae: a VAE that takes the place of the model's: see `resolve_vae`.
        dtype: name of a torch dtype; float16 prefers weights of the fp16 variant.

    Raises:
        TaskInputError: if the model does not exist, or is not one that this project can use.
    """
    file = _model_file(spec)
    folder = config_folder(file) if file else _model_folder(spec, dtype)
    index = _read_json(folder / "model_index.json", spec)
    configs = {part: _read_json(folder / part / "config.json", spec) for part in networks_of(index)}
    own_vae, unet = configs["vae"], configs["unet"]
    other, vae_config = resolve_vae(vae, config=own_vae, dtype=dtype) if vae else (None, own_vae)
    check_layout(folder, index, spec)
    _check_networks(vae_config, unet, spec)
    variants = () if file else _checked_variants(folder, configs, dtype)
    if file:
        check_single_file(file, configs, own_vae=other is None)
    encoders = [config for part, config in configs.items() if part.startswith("text_encoder")]
    check_cross_attention(unet, encoders, model=spec)
    check_added_conditions(unet, configs.get("text_encoder_2"), model=spec)
    advice = _advice(index, spec)
    factor = int(2 ** (len(vae_config["block_out_channels"]) - 1))
    digest = _model_digest(folder, dict(variants), index)
    others = [weights_digest(file)] if file else []
    others += [other.digest] if other else []
    upcast_vae = vae_config.get("force_upcast") is True
    others += ["VAE in float32"] if upcast_vae and dtype != "float32" else []
    return ModelIdentity(
        name=spec,
        location=str(folder),
        file=str(file) if file else None,
        vae=other,
        variants=variants,
        digest=digest_of(digest, *others) if others else digest,
        vae_factor=factor,
        size_multiple=factor * int(2 ** (len(unet["block_out_channels"]) - 1)),
        native_area=_native_latent_area(unet["sample_size"]) * factor * factor,
        advice=advice,
        upcast_vae=upcast_vae,
    )


def resolve_vae(
    spec: str, *, config: Mapping[str, Any], dtype: str = "float32"
) -> tuple[NetworkIdentity, Mapping[str, Any]]:
    """Find a VAE by name, without loading it, and return it with its config.

    Args:
        spec: a folder in the diffusers layout, of the VAE or of a checkpoint that contains it, a safetensors file, or
            a hub id.
        config: of the VAE that it replaces, which describes one in a single file.
        dtype: name of a torch dtype; float16 prefers weights of the fp16 variant.

    Raises:
        TaskInputError: if the VAE does not exist, or its weights do not fit.
    """
    file = Path(spec).expanduser()
    if file.is_file():
        require_safetensors(file, kind="VAE")
        file = file.resolve()
        check_weights([file], config, network="vae")
        return NetworkIdentity(location=str(file), variant=None, digest=weights_digest(file)), config
    names = ("config.json", "diffusion_pytorch_model*")
    folder = _folder(spec, kind="VAE", patterns=[*names, *(f"vae/{name}" for name in names)], dtype=dtype)
    if (folder / "vae" / "config.json").is_file():
        folder = folder / "vae"
    config = _read_json(folder / "config.json", spec)
    return _network(folder, config, network="vae", dtype=dtype), config


def _network(folder: Path, config: Mapping[str, Any], *, network: str, dtype: str) -> NetworkIdentity:
    stem = "diffusion_pytorch_model"
    variant = choose_variant(folder, stem, half=dtype == "float16")
    files = weight_files(folder, stem, variant)
    check_weights(files, config, network=network)
    return NetworkIdentity(
        location=str(folder), variant=variant, digest=_digest_files(folder, [folder / "config.json", *files])
    )


def _model_file(spec: str) -> Path | None:
    file = Path(spec).expanduser()
    if not file.is_file():
        return None
    require_safetensors(file, kind="model")
    return file.resolve()


def _checked_variants(
    folder: Path, configs: Mapping[str, Mapping[str, Any]], dtype: str
) -> tuple[tuple[str, str | None], ...]:
    """Return the variant of each network's weights, which fit its config."""
    half = dtype == "float16"
    stems = {part: stem for part, stem in WEIGHTS.items() if part in configs}
    variants = tuple((part, choose_variant(folder / part, stem, half=half)) for part, stem in stems.items())
    for part, variant in variants:
        check_weights(weight_files(folder / part, WEIGHTS[part], variant), configs[part], network=part)
    return variants


def resolve_controlnet(spec: str, *, model: ModelIdentity, dtype: str = "float32") -> NetworkIdentity | None:
    """Find a ControlNet by name, without loading it.

    Args:
        spec: "none", "auto" for the one in the model's folder, a folder in the diffusers layout, or a hub id; also as
            KIND=SPEC, which says what it is for whatever its name says.
        model: the model that it controls.
        dtype: name of a torch dtype; float16 prefers weights of the fp16 variant.

    Returns:
        The ControlNet, or None for "none" and for "auto" where the model has none.

    Raises:
        TaskInputError: if the ControlNet does not exist, has no safetensors weights, or is of an unknown kind.
    """
    kind, spec = split_kind(spec)
    if spec == "none":
        return None
    if spec == "auto":
        folder = Path(model.location) / "controlnet"
        if not folder.is_dir():
            return None
    else:
        folder = _folder(spec, kind="ControlNet", patterns=["*.json", "*.safetensors"], dtype=dtype)
    config = _read_json(folder / "config.json", spec)
    if kind is None:
        _check_named_kind(spec, str(config.get("_name_or_path") or ""))
    return _network(folder, config, network="controlnet", dtype=dtype)


def split_kind(spec: str) -> tuple[ControlKind | None, str]:
    """Split KIND=SPEC; a spec without a kind is returned with None.

    Raises:
        TaskInputError: if the kind is unknown.
    """
    kind, equals, rest = spec.partition("=")
    if not equals or not kind.isidentifier() or Path(spec).expanduser().exists():
        return None, spec
    known: ControlKind | None = next((each for each in _KINDS if each == kind), None)
    if known is None:
        raise TaskInputError(f"Unknown kind of ControlNet in {spec!r}: expected one of {', '.join(_KINDS)}.")
    return known, rest


def _check_named_kind(*names: str) -> None:
    """Refuse a ControlNet with a name that says another input than canny edges, and not canny as well."""
    words = {word for name in names for word in re.split(r"[\W_]+", name.rstrip("/").rpartition("/")[2].lower())}
    if "canny" not in words and (found := sorted(words & _OTHER_CONTROLS)):
        raise TaskInputError(
            f"The ControlNet {names[0]!r} is for {found[0]} by its name, and wave computes canny edges: write "
            f"canny={names[0]} if it is for these, or name its kind, such as depth={names[0]}, and pass its input "
            "with --control."
        )


def _model_folder(spec: str, dtype: str) -> Path:
    if spec != "embedded":
        return _folder(spec, kind="model", patterns=_hub_patterns(), dtype=dtype)
    if not (EMBEDDED / "model_index.json").is_file():
        raise TaskInputError("This installation has no embedded model; choose another one with --model.")
    return EMBEDDED


def _hub_patterns() -> list[str]:
    parts = ("tokenizer", "tokenizer_2", "scheduler", *WEIGHTS, "controlnet")
    kinds = ("*.json", "*.txt", "*.safetensors")
    return ["model_index.json", *(f"{part}/{kind}" for part in parts for kind in kinds)]


def _folder(spec: str, *, kind: str, patterns: list[str], dtype: str) -> Path:
    local = Path(spec).expanduser()
    if local.is_dir():
        return local.resolve()
    if local.is_file():
        raise TaskInputError(f"The {kind} {spec!r} is a file; expected a folder in the diffusers layout.")
    if _HUB_ID.fullmatch(spec) and not spec.startswith("."):
        from tasks.models.hub import fetch_snapshot  # noqa: PLC0415  (its client takes half a second to import)

        return fetch_snapshot(spec, patterns=patterns, half=dtype == "float16")
    raise TaskInputError(f"Unknown {kind} {spec!r}: expected {_KNOWN[kind]}, or a hub id such as 'owner/name'.")


def _read_json(path: Path, spec: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        file = path.name if path.name == "model_index.json" else f"{path.parent.name}/{path.name}"
        raise TaskInputError(f"The model {spec!r} is not in the diffusers layout: it has no {file}.") from None
    except (OSError, ValueError) as error:
        raise TaskInputError(f"The model {spec!r} has an unreadable {path.name}: {error}.") from None
    if not isinstance(content, dict):
        raise TaskInputError(f"The model {spec!r} has a {path.name} that is not a JSON object.")
    return content


def _check_networks(vae: Mapping[str, Any], unet: Mapping[str, Any], spec: str) -> None:
    for name, config in (("VAE", vae), ("UNet", unet)):
        if not isinstance(config.get("block_out_channels"), list):
            raise TaskInputError(f"The model {spec!r} has a {name} config without block_out_channels.")
    if not isinstance(unet.get("sample_size"), int | list):
        raise TaskInputError(f"The model {spec!r} has a UNet config without sample_size.")
    if unet.get("in_channels") != vae.get("latent_channels"):
        raise TaskInputError(
            f"The UNet of {spec!r} takes {unet.get('in_channels')} channels and its VAE returns "
            f"{vae.get('latent_channels')}: models for inpainting or other extra inputs cannot be used."
        )


def _native_latent_area(sample_size: int | list[int]) -> int:
    return sample_size * sample_size if isinstance(sample_size, int) else prod(sample_size)


def _advice(index: Mapping[str, Any], spec: str) -> Advice:
    advice = index.get("wave") or {}
    try:
        return Advice(**{key: value for key, value in advice.items() if key != "sites"})
    except (AttributeError, TypeError, ValidationError):
        raise TaskInputError(f"The model {spec!r} has advice (key 'wave') that this version cannot read.") from None


def _model_digest(folder: Path, variants: Mapping[str, str | None], index: Mapping[str, Any]) -> str:
    """Return the digest of a folder's configs, tokenizer and sites, and of the weights in it."""
    configs = [folder / part / "config.json" for part in networks_of(index)]
    configs += [folder / "scheduler" / "scheduler_config.json", *sorted((folder / "tokenizer").glob("*.*"))]
    configs += sorted((folder / "tokenizer_2").glob("*.*")) if is_xl(index) else []
    weights = [file for part in variants for file in weight_files(folder / part, WEIGHTS[part], variants[part])]
    sites = (index.get("wave") or {}).get("sites")
    prompts = [zeroes_empty_prompt(index)] if is_xl(index) else []
    return digest_of(_digest_files(folder, configs + weights), sites, *prompts)


def _digest_files(folder: Path, files: list[Path]) -> str:
    return digest_of({str(path.relative_to(folder)): weights_digest(path) for path in files})
