"""What a user asks to be compared, validated once, and what that is run with."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from storage.digest import digest_file, digest_folder, digest_of
from tasks.errors import TaskInputError
from tasks.evaluation.comparison import Resources
from tasks.evaluation.comparisons.registry import check_name
from tasks.models.checkpoints import resolve_controlnet, resolve_model
from tasks.models.flow_estimators import resolve_flow

__all__ = ["EvaluationRequest", "command_line", "evaluation_request", "resolve_resources", "resources_digest"]

Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class EvaluationRequest(BaseModel):
    """One run of one comparison."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    comparison: Words = Field(description="Name of the comparison.")
    quick: bool = Field(default=False, description="Take the few methods and clips that matter most.")
    method: tuple[Words, ...] = Field(default=(), description="Names of methods, with * for any; all by default.")
    manifest: Words | None = Field(default=None, description="Table of real clips; drawn scenes by default.")
    clips: int | None = Field(default=None, ge=1, description="How many clips; by default the comparison's own choice.")
    seed: int = Field(default=0, ge=0, lt=2**31, description="Seeds the scenes and the methods.")
    model: Words = Field(default="embedded", description="'embedded', a folder in the diffusers layout, or a hub id.")
    controlnet: Words = Field(default="auto", description="'none', 'auto' (the model's own), a folder, or a hub id.")
    flow: Literal["dis", "raft"] = Field(default="dis", description="The optical flow estimator.")
    lpips: Words | None = Field(default=None, description="Safetensors file of LPIPS; without it LPIPS is left out.")
    clip: Words | None = Field(default=None, description="A CLIP model; without it its figures are left out.")


def evaluation_request(**fields: Any) -> EvaluationRequest:
    """Validate a request from the outside.

    Raises:
        TaskInputError: one sentence about the first field that is wrong.
    """
    try:
        request = EvaluationRequest(**fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]) if first["loc"] else "request"
        reason = first["msg"][:1].lower() + first["msg"][1:]
        raise TaskInputError(f"The {name} cannot be {first['input']!r}: {reason}.") from None
    check_name(request.comparison)
    return request


def command_line(request: EvaluationRequest) -> str:
    """Write out the command that asks for this."""
    fields = request.model_dump(exclude_defaults=True, exclude={"comparison"})
    words = ["wave", "evaluate", request.comparison]
    for name, value in fields.items():
        for each in value if isinstance(value, tuple) else (value,):
            words += [f"--{name}"] if each is True else [f"--{name}", str(each)]
    return shlex.join(words)


def resolve_resources(request: EvaluationRequest, *, device: str, dtype: str, flow_weights: str = "") -> Resources:
    """Find the networks that a request names, without loading them.

    Raises:
        TaskInputError: if one is not there or cannot be used.
    """
    model, clip = resolve_model(request.model, dtype=dtype), Path(request.clip or "").expanduser()
    if request.lpips is not None and not Path(request.lpips).expanduser().is_file():
        raise TaskInputError(f"There are no LPIPS weights at {request.lpips}; without --lpips LPIPS is left out.")
    return Resources(
        model=model,
        controlnet=resolve_controlnet(request.controlnet, model=model, dtype=dtype),
        flow=resolve_flow(request.flow, weights=flow_weights),
        device=device,
        dtype=dtype,
        seed=request.seed,
        lpips_weights=request.lpips and str(Path(request.lpips).expanduser().resolve()),
        clip_model=str(clip.resolve()) if request.clip and clip.is_dir() else request.clip,
    )


def resources_digest(resources: Resources) -> str:
    """Digest all that can change a figure: the device is not among it."""
    return digest_of(
        [resources.model.digest, resources.model.advice.model_dump()],
        resources.controlnet and resources.controlnet.digest,
        [resources.flow.name, resources.flow.digest],
        resources.dtype,
        resources.seed,
        resources.lpips_weights and digest_file(resources.lpips_weights),
        resources.clip_model and _clip_digest(resources.clip_model),
    )


def _clip_digest(spec: str) -> str:
    folder = Path(spec).expanduser()
    return digest_folder(folder, suffixes={".json", ".txt", ".safetensors"}) if folder.is_dir() else spec
