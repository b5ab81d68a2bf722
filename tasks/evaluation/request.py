"""The evaluation request, validated once."""

from __future__ import annotations

import shlex
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasks.errors import TaskInputError
from tasks.evaluation.comparisons.registry import check_name
from tasks.planning.option_errors import option_name, request_sentence
from tasks.planning.request import ControlNetName, FlowName, Loras, ModelName, VaeName, Words

__all__ = ["EvaluationRequest", "command_line", "evaluation_request"]


class EvaluationRequest(BaseModel):
    """The request of one run of a comparison."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    comparison: Words = Field(description="Name of the comparison.")
    quick: bool = Field(default=False, description="Take the few methods and clips that matter most.")
    method: tuple[Words, ...] = Field(default=(), description="Names of methods, with * for any; all by default.")
    manifest: Words | None = Field(default=None, description="Table of real clips; drawn scenes by default.")
    clips: int | None = Field(default=None, ge=1, description="Number of clips; by default the comparison chooses.")
    seed: int = Field(default=0, ge=0, lt=2**31, description="Seed of the scenes and the methods.")
    shuffle_seed: int = Field(
        default=0, ge=0, lt=2**31, description="Seed of the orders of keyframes: another one on the same clips."
    )
    model: ModelName = "embedded"
    vae: VaeName | None = None
    lora: Loras = Field(
        default=(), description="A LoRA in a .safetensors file, with its weight (1 by default); may be repeated."
    )
    controlnet: ControlNetName = "auto"
    flow: FlowName = "dis"
    lpips: Words | None = Field(default=None, description="Safetensors file of LPIPS; without it LPIPS is left out.")
    clip_model: Words | None = Field(default=None, description="CLIP's folder or hub id; without it CLIP is left out.")


def evaluation_request(**fields: Any) -> EvaluationRequest:
    """Validate the fields of a request from outside the program.

    Raises:
        TaskInputError: one sentence about the first invalid field.
    """
    try:
        request = EvaluationRequest(**fields)
    except ValidationError as error:
        raise TaskInputError(request_sentence(error, arguments=("comparison",))) from None
    check_name(request.comparison)
    return request


def command_line(request: EvaluationRequest) -> str:
    """Return the command line of a request."""
    fields = request.model_dump(exclude_defaults=True, exclude={"comparison"})
    words = ["wave", "evaluate", request.comparison]
    for name, value in fields.items():
        for each in value if isinstance(value, tuple) else (value,):
            option = option_name(name)
            words += [option] if each is True else [option, str(each)]
    return shlex.join(words)
