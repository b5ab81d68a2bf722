"""The edit request, validated once."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from storage.secrets import has_password, without_secrets
from tasks.errors import TaskInputError
from tasks.models.lora import parse_lora
from tasks.planning.option_errors import request_sentence

__all__ = [
    "ControlNetName",
    "EditRequest",
    "FlowName",
    "Location",
    "ModelName",
    "Text",
    "Words",
    "edit_request",
    "parse_size",
]

Preset = Annotated[
    Literal["default", "paper"], Field(description="default, or paper: everything as the authors of WAVE ran it.")
]
Text = Annotated[str, StringConstraints(strip_whitespace=True)]
Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Pixels = Annotated[int, Field(ge=8, le=4096)]
ModelName = Annotated[
    Words, Field(description="'embedded', a folder in the diffusers layout, a .safetensors file, or a hub id.")
]
VaeName = Annotated[
    Words, Field(description="Another VAE than the model's: a folder, a .safetensors file, or a hub id.")
]
ControlNetName = Annotated[
    Words,
    Field(
        description="A ControlNet for canny edges: 'none', 'auto' (the model's own), a folder, or a hub id, also as "
        "canny=SPEC; by default none, in the paper auto."
    ),
]
HdrChoice = Annotated[
    Literal["tone-map", "refuse"], Field(description="What becomes of an HDR clip: tone-map (to BT.709) or refuse.")
]
InterlacedChoice = Annotated[
    Literal["deinterlace", "keep"],
    Field(description="What becomes of an interlaced clip: deinterlace, or keep (two fields in a frame)."),
]
FlowName = Annotated[Literal["dis", "raft"], Field(description="The optical flow estimator: dis or raft.")]


def parse_size(text: str) -> tuple[int, int]:
    """Read a size WxH, as the command line takes it, into (height, width).

    Raises:
        TaskInputError: for anything but two whole numbers joined by an x.
    """
    width, cross, height = text.lower().partition("x")
    if not (cross and width.isascii() and width.isdigit() and height.isascii() and height.isdigit()):
        raise TaskInputError(f"The size {text!r} is not of the form WxH, for example 512x288.")
    return int(height), int(width)


def _as_size(value: Any) -> Any:
    return parse_size(value) if isinstance(value, str) else value


def _as_settings(value: Any) -> Any:
    return tuple(value.replace(";", " ").split()) if isinstance(value, str) else value


def _known_settings(settings: tuple[str, ...]) -> tuple[str, ...]:
    if settings:  # the names need torch, which most requests do not
        from tasks.planning.method import MethodChoices, resolve_method  # noqa: PLC0415

        resolve_method(MethodChoices(settings=settings))
    return settings


def _as_loras(value: Any) -> Any:
    return tuple(spec.strip() for spec in value.split(";") if spec.strip()) if isinstance(value, str) else value


def _known_loras(specs: tuple[str, ...]) -> tuple[str, ...]:
    for spec in specs:
        parse_lora(spec)
    return specs


def _without_password(url: str) -> str:
    """Refuse a URL with a password: a request is stored with its results.

    Raises:
        TaskInputError: if it has one.
    """
    if has_password(url):
        raise TaskInputError(
            f"The URL {without_secrets(url)} contains a password, which would be stored with the results: "
            "set credentials in the environment of its driver."
        )
    return url


Location = Annotated[Words, AfterValidator(_without_password)]
"""A path or a URL."""
Settings = Annotated[tuple[str, ...], BeforeValidator(_as_settings), AfterValidator(_known_settings)]
Loras = Annotated[tuple[str, ...], BeforeValidator(_as_loras), AfterValidator(_known_loras)]
Size = Annotated[tuple[Pixels, Pixels], BeforeValidator(_as_size)]


class EditRequest(BaseModel):
    """One edit of one clip. None leaves the choice to the model's own advice, then to the method."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    video: Location = Field(description="Path or URL of the source clip.")
    prompt: Words = Field(description="What the edited clip shows.")
    source_prompt: Text = Field(default="", description="What the source clip shows; may be empty.")
    negative_prompt: Text | None = Field(default=None, description="What the edited clip must not look like.")
    model: ModelName = "embedded"
    vae: VaeName | None = None
    lora: Loras = Field(
        default=(), description="A LoRA in a .safetensors file, with its weight (1 by default); may be repeated."
    )
    controlnet: ControlNetName | None = None
    flow: FlowName = "dis"
    keyframe_interval: int = Field(default=8, ge=1, description="Frames from one keyframe to the next.")
    steps: int = Field(default=50, ge=1, le=1000, description="DDIM steps in either direction.")
    seed: int = Field(default=0, ge=0, lt=2**31, description="Seeds the shuffles and the patch search.")
    size: Size | None = Field(default=None, description="Working size, WxH; by default the model's own.")
    guidance_scale: float | None = Field(
        default=None,
        ge=0,
        le=100,
        description="Classifier-free guidance; by default the model's advice, else by preset.",
    )
    injection: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Fraction of the steps that inject attention and features of the source, 0 to 1.",
    )
    preset: Preset = "default"
    set: Settings = Field(
        default=(), description="A setting of the method by name, such as inversion.window=published; may be repeated."
    )
    hdr: HdrChoice = "tone-map"
    interlaced: InterlacedChoice = "deinterlace"
    full_resolution: bool = Field(
        default=False, description="Let the source's own detail guide the enlargement to the source's size."
    )

    @property
    def controlnet_name(self) -> str:
        """The ControlNet, or none: what is named, else what the preset uses."""
        return self.controlnet or ("auto" if self.preset == "paper" else "none")


def edit_request(**fields: Any) -> EditRequest:
    """Validate a request from the outside.

    Raises:
        TaskInputError: one sentence about the first field that is wrong.
    """
    try:
        return EditRequest(**fields)
    except ValidationError as error:
        raise TaskInputError(request_sentence(error, arguments=("video",))) from None
