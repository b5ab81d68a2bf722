"""The edit request, validated once."""

from __future__ import annotations

import re
from fractions import Fraction
from reprlib import Repr
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from storage.secrets import has_password, without_secrets
from tasks.errors import TaskInputError
from tasks.models.controlnets import parse_control, parse_controlnet
from tasks.models.lora import parse_lora
from tasks.planning.option_errors import request_sentence

if TYPE_CHECKING:
    from storage.video import Encoding, SourceEncoding, Trim

__all__ = [
    "ControlNetName",
    "EditRequest",
    "FlowName",
    "Location",
    "Loras",
    "ModelName",
    "Text",
    "VaeName",
    "Words",
    "edit_request",
    "parse_size",
]

_QUOTED: Final = Repr()
_QUOTED.maxstring = 200

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
_CONTROLNETS = (
    "A ControlNet, [KIND=]SPEC[:WEIGHT[:FROM-TO]]: 'none', 'auto' (the model's own), a folder, or a hub id, with its "
    "weight and the part of the steps in which it acts, 0 to 1; may be repeated. The kind is canny unless it is "
    "named: depth, lineart, normal, pose, scribble, segmentation, softedge, tile. By default none, in the paper auto."
)
ControlNetName = Annotated[
    Words,
    Field(
        description="A ControlNet for canny edges: 'none', 'auto' (the model's own), a folder, or a hub id, also as "
        "canny=SPEC."
    ),
]
HdrChoice = Annotated[
    Literal["tone-map", "refuse"], Field(description="What becomes of an HDR clip: tone-map (to BT.709) or refuse.")
]
InterlacedChoice = Annotated[
    Literal["deinterlace", "keep"],
    Field(description="What becomes of an interlaced clip: deinterlace, or keep (two fields in a frame)."),
]
FormatName = Annotated[
    Literal["mp4", "mov", "mkv", "webm", "gif", "png"],
    Field(description="The output's format: mp4, mov, mkv, webm, gif or png (a zip of pictures)."),
]
CodecName = Annotated[
    Literal["h264", "hevc", "av1", "vp9", "prores"],
    Field(description="The output's codec: h264, hevc, av1, vp9 or prores; by default the format's first."),
]
FlowName = Annotated[Literal["dis", "raft"], Field(description="The optical flow estimator: dis or raft.")]


_CLOCK_TIME = re.compile(r"([0-9]{1,4}:)?[0-9]{1,4}:[0-5]?[0-9](\.[0-9]{0,9})?")
_RATE = re.compile(r" *[0-9./]{1,20} *", re.ASCII)
_LARGEST_RATE, _FINEST_RATE = 1000, 100_000
_FRAMES = re.compile(r"(?:([0-9]{0,9}):)?([0-9]{0,9})")


def parse_size(text: str) -> tuple[int, int]:
    """Read a size WxH, as the command line takes it, into (height, width).

    Raises:
        TaskInputError: for anything but two whole numbers joined by an x.
    """
    width, cross, height = text.lower().partition("x")
    if not (cross and width.isascii() and width.isdigit() and height.isascii() and height.isdigit()):
        raise TaskInputError(f"The size {_quoted(text)} is not of the form WxH, for example 512x288.")
    return int(height), int(width)


def _as_size(value: Any) -> Any:
    return parse_size(value) if isinstance(value, str) else value


def _as_seconds(value: Any) -> Any:
    """Read a time such as 83.5, 1:23.5 or 0:01:23.5 into seconds."""
    if not isinstance(value, str) or ":" not in value:
        return value
    if not _CLOCK_TIME.fullmatch(value.strip()):
        raise TaskInputError(f"The time {_quoted(value)} is neither seconds nor H:MM:SS, for example 83.5 or 1:23.5.")
    seconds = 0.0
    for part in value.split(":"):
        seconds = 60 * seconds + float(part)
    return seconds


def _frame_range(text: str) -> tuple[int, int | None]:
    """Read the first index and the one after the last from N or FIRST:STOP."""
    match = _FRAMES.fullmatch(text)
    first, stop = (int(match[1] or 0), int(match[2]) if match[2] else None) if match else (0, 0)
    if text in ("", ":") or (stop is not None and stop <= first):
        raise TaskInputError(
            f"The frames {_quoted(text)} are neither a number, such as 48, nor FIRST:STOP, such as 24:72."
        )
    return first, stop


def _checked_frames(text: str) -> str:
    _frame_range(text := text.strip())
    return text


def _as_text(value: Any) -> Any:
    """Let a table state a number, and one without a fraction as 12.0."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _checked_rate(text: str) -> str:
    try:
        # Before anything is computed: 1e999999999 would take hours
        rate = Fraction(text) if _RATE.fullmatch(text) else Fraction(0)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not (0 < rate <= _LARGEST_RATE and rate.denominator <= _FINEST_RATE):
        raise TaskInputError(
            f"The rate {_quoted(text)} is not a number of pictures per second, such as 25 or 30000/1001."
        )
    return str(rate)


def _as_settings(value: Any) -> Any:
    return tuple(value.replace(";", " ").split()) if isinstance(value, str) else value


def _known_settings(settings: tuple[str, ...]) -> tuple[str, ...]:
    if settings:  # the names need torch, which most requests do not
        from tasks.planning.method import MethodChoices, resolve_method  # noqa: PLC0415

        resolve_method(MethodChoices(settings=settings))
    return settings


def _as_specs(value: Any) -> Any:
    return tuple(spec.strip() for spec in value.split(";") if spec.strip()) if isinstance(value, str) else value


def _known_loras(specs: tuple[str, ...]) -> tuple[str, ...]:
    for spec in specs:
        parse_lora(spec)
    return specs


def _known_controlnets(specs: tuple[str, ...]) -> tuple[str, ...]:
    for spec in specs:
        parse_controlnet(spec)
    return specs


def _known_controls(specs: tuple[str, ...]) -> tuple[str, ...]:
    kinds = [parse_control(_without_password(spec))[0] for spec in specs]
    if repeated := next((kind for kind in kinds if kinds.count(kind) > 1), None):
        raise TaskInputError(f"There are several control videos for {repeated}: name one.")
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
Loras = Annotated[tuple[str, ...], BeforeValidator(_as_specs), AfterValidator(_known_loras)]
ControlNets = Annotated[tuple[str, ...], BeforeValidator(_as_specs), AfterValidator(_known_controlnets)]
Controls = Annotated[tuple[str, ...], BeforeValidator(_as_specs), AfterValidator(_known_controls)]
Size = Annotated[tuple[Pixels, Pixels], BeforeValidator(_as_size)]
Seconds = Annotated[float, BeforeValidator(_as_seconds), Field(ge=0, allow_inf_nan=False)]
Rate = Annotated[str, BeforeValidator(_as_text), AfterValidator(_checked_rate)]
Frames = Annotated[str, BeforeValidator(_as_text), AfterValidator(_checked_frames)]


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
    controlnet: ControlNets = Field(default=(), description=_CONTROLNETS)
    control: Controls = Field(
        default=(),
        description="The input of a ControlNet, KIND=VIDEO, of as many frames as the clip; may be repeated. Canny "
        "edges are computed.",
    )
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
    rate: Rate | None = Field(
        default=None, description="Pictures per second where the clip is a folder or glob of them; 25 by default."
    )
    start: Seconds | None = Field(
        default=None, description="Edit the frames from this time on: seconds or H:MM:SS; by default from the start."
    )
    end: Seconds | None = Field(
        default=None, description="Edit the frames that begin before this time: seconds or H:MM:SS; by default all."
    )
    frames: Frames | None = Field(
        default=None, description="Of these edit the first N, or those from FIRST on before STOP, counted from 0."
    )
    hdr: HdrChoice = "tone-map"
    interlaced: InterlacedChoice = "deinterlace"
    format: FormatName | None = None
    codec: CodecName | None = None
    pixel_format: Words | None = Field(
        default=None,
        description="Pixel format by FFmpeg's name, such as yuv444p or yuv420p10le; by the codec by default.",
    )
    crf: int | None = Field(
        default=None, ge=0, le=63, description="Quality of the encoding, 0 for the best; by default 16 for H.264."
    )
    gop: int | None = Field(
        default=None, ge=1, le=100_000, description="Frames from one keyframe of the encoding to the next at most."
    )
    like_source: bool = Field(
        default=False,
        description="Encode like the source, as far as possible: codec, pixel format, bit rate, keyframes.",
    )
    full_resolution: bool = Field(
        default=False, description="Let the source's own detail guide the enlargement to the source's size."
    )

    @field_validator("end")
    @classmethod
    def _check_end(cls, end: float | None, info: ValidationInfo) -> float | None:
        start = info.data.get("start") or 0.0
        if end is not None and end <= start:
            raise TaskInputError(f"The end, {end:g} s, must be after the start, {start:g} s.")
        return end

    @model_validator(mode="after")
    def _check_encoding(self) -> EditRequest:
        if not self.like_source and (self.format, self.codec, self.pixel_format, self.crf, self.gop) != 5 * (None,):
            self.encoding(None)
        return self

    def encoding(self, source: SourceEncoding | None) -> Encoding:
        """Return how the edited clip is encoded, given how its source is.

        Raises:
            TaskInputError: one sentence, if the combination cannot be written.
        """
        from storage.errors import VideoError  # noqa: PLC0415  (`wave --help` answers at once)
        from storage.video import choose_encoding, encoding_like  # noqa: PLC0415

        container = self.format or "mp4"
        given: dict[str, Any] = {
            "codec": self.codec,
            "pixel_format": self.pixel_format,
            "crf": self.crf,
            "gop": self.gop,
        }
        try:
            if source is not None and self.like_source:
                return encoding_like(source, container, **given)
            return choose_encoding(container, **given)
        except VideoError as error:
            raise TaskInputError(f"The output cannot be written: {error}.") from None

    @property
    def picture_rate(self) -> Fraction | None:
        """Pictures per second; None for a clip with times of its own, or the default."""
        return None if self.rate is None else Fraction(self.rate)

    @property
    def trim(self) -> Trim:
        """The part of the clip that is edited."""
        from storage.video import Trim  # noqa: PLC0415  (`wave --help` answers at once)

        first, stop = (0, None) if self.frames is None else _frame_range(self.frames)
        return Trim(start=self.start or 0.0, end=self.end, first=first, stop=stop)

    @property
    def controlnets(self) -> tuple[str, ...]:
        """The ControlNets: what is named, else what the preset uses."""
        return self.controlnet or (("auto",) if self.preset == "paper" else ())


def edit_request(**fields: Any) -> EditRequest:
    """Validate a request from the outside.

    Raises:
        TaskInputError: one sentence about the first field that is wrong.
    """
    try:
        return EditRequest(**fields)
    except ValidationError as error:
        raise TaskInputError(request_sentence(error, arguments=("video",))) from None


def _quoted(text: str) -> str:
    """Return a text in quotation marks, shortened in the middle: it may be of any length."""
    return _QUOTED.repr(text)
