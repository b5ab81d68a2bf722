"""The networks of an evaluation request, with their digests."""

from __future__ import annotations

from pathlib import Path

from storage.digest import digest_file, digest_folder, digest_of
from tasks.errors import TaskInputError
from tasks.evaluation.comparisons.comparison import Resources
from tasks.evaluation.request import EvaluationRequest
from tasks.models.checkpoints import resolve_controlnet, resolve_model
from tasks.models.flow_estimators import resolve_flow
from tasks.models.lora import resolve_loras

__all__ = ["resolve_resources", "resources_digest"]


def resolve_resources(request: EvaluationRequest, *, device: str, dtype: str, flow_weights: str = "") -> Resources:
    """Find the networks of a request, without loading them.

    Raises:
        TaskInputError: if one is missing or cannot be used.
    """
    model = resolve_loras(resolve_model(request.model, vae=request.vae, dtype=dtype), request.lora)
    clip = Path(request.clip_model or "").expanduser()
    if request.lpips is not None and not Path(request.lpips).expanduser().is_file():
        raise TaskInputError(f"There are no LPIPS weights at {request.lpips}; leave --lpips out to run without LPIPS.")
    return Resources(
        model=model,
        controlnet=resolve_controlnet(request.controlnet, model=model, dtype=dtype),
        flow=resolve_flow(request.flow, weights=flow_weights),
        device=device,
        dtype=dtype,
        seed=request.seed,
        shuffle_seed=request.shuffle_seed,
        lpips_weights=request.lpips and str(Path(request.lpips).expanduser().resolve()),
        clip_model=str(clip.resolve()) if request.clip_model and clip.is_dir() else request.clip_model,
    )


def resources_digest(resources: Resources) -> str:
    """Compute the digest of everything that can change a metric; the device is not part of it."""
    return digest_of(
        [resources.model.digest, resources.model.advice.model_dump()],
        resources.controlnet and resources.controlnet.digest,
        [resources.flow.name, resources.flow.digest],
        resources.dtype,
        resources.order_seed,
        resources.lpips_weights and digest_file(resources.lpips_weights),
        resources.clip_model and _clip_digest(resources.clip_model),
    )


def _clip_digest(spec: str) -> str:
    folder = Path(spec).expanduser()
    return digest_folder(folder, suffixes={".json", ".txt", ".safetensors"}) if folder.is_dir() else spec
