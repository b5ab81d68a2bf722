"""The facts that a plan is computed from: the request, the clip, the networks and where it runs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise

from storage.limits import Limits
from storage.video import SourceEncoding, Trim
from tasks.errors import TaskInputError
from tasks.models.checkpoints import ModelIdentity
from tasks.models.controlnets import ControlSet
from tasks.models.devices import Backend
from tasks.models.flow_estimators import FlowIdentity
from tasks.planning.request import EditRequest

__all__ = ["ClipFacts", "EditOutline", "Execution", "ResolvedInputs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """Where and how a plan is carried out. Of these only `dtype` and `propagation` change a result."""

    workspace: str
    device: str = "cpu"
    """The choice, auto, cpu or cuda, for the process that runs the stage."""
    dtype: str = "float32"
    keyframe_batch: int | None = None
    """Keyframes in one UNet batch at most; None for as many as fit in memory."""
    compiled: bool = False
    """Whether the blocks of the UNet are compiled."""
    memory_limit: int | None = None
    """Bytes that a process may take on the device of the networks; None for most of what is free."""
    propagation: Backend = "numba"
    """What propagates frames: compiled loops, or torch on a CUDA device."""
    limits: Limits = field(default_factory=Limits)
    """The largest clip that is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipFacts:
    """Facts about a source clip; its cuts are unknown until it has been decoded."""

    name: str
    digest: str
    frame_count: int
    size: tuple[int, int]
    """Height and width, pixels."""
    conversions: tuple[str, ...] = ()
    """What decoding converts in addition to matrix and range; none for an ordinary SDR clip."""
    hdr: str = ""
    """The kind of HDR; empty for SDR."""
    rate: float = 25.0
    """Mean frames per second, as the file states it."""
    encoded: SourceEncoding = field(default_factory=SourceEncoding)
    cuts: tuple[int, ...] | None = None
    """First frame of each shot after the first; None where not yet known."""

    def trimmed(self, trim: Trim, limits: Limits) -> ClipFacts:
        """Return the facts about a part of the clip, of which the number of frames is an estimate until it is decoded.

        Raises:
            TaskInputError: if the part has no frame.
            VideoError: if it exceeds the limits.
        """
        count = trim.count(self.frame_count, self.rate)
        if count < 1:
            raise TaskInputError(
                f"The clip {self.name} has {self.frame_count} frames in {self.frame_count / self.rate:.2f} s: "
                "--start, --end and --frames leave none of them."
            )
        limits.check_picture(self.name, width=self.size[1], height=self.size[0])
        limits.check_length(self.name, frames=count, seconds=count / self.rate)
        return replace(self, frame_count=count)

    @property
    def shots(self) -> tuple[range, ...]:
        """The frames of each shot; of the whole clip while its cuts are not known."""
        edges = (0, *(self.cuts or ()), self.frame_count)
        return tuple(range(first, stop) for first, stop in pairwise(edges))

    @property
    def shot_count(self) -> int:
        """The number of shots."""
        return len(self.cuts or ()) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedInputs:
    """A request with everything that it names, found and identified."""

    request: EditRequest
    clip: ClipFacts
    model: ModelIdentity
    controlnet: ControlSet | None
    flow: FlowIdentity
    execution: Execution


@dataclass(frozen=True, slots=True, kw_only=True)
class EditOutline:
    """The index arithmetic of the edit of a clip, or of one of its shots: sizes, keyframes, pairs and intervals.

    Frame indices count from the clip's first frame, also in the outline of a shot.
    """

    inputs: ResolvedInputs
    size: tuple[int, int]
    """The working size (height, width)."""
    frames: range
    """The frames of the clip or of the shot."""
    shots_shown: tuple[int, int] | None = None
    """Numbers of the first and the last shot, from 1; None for a whole clip."""
    keyframes: tuple[int, ...]
    """Frame indices."""
    pairs: tuple[tuple[int, int], ...]
    """Pairs of keyframe indices, places in `keyframes`, between which flow is needed."""
    intervals: tuple[tuple[int, int], ...]
    """First and last frame of each interval between keyframes."""

    @property
    def request(self) -> EditRequest:
        """The request."""
        return self.inputs.request

    @property
    def clip(self) -> ClipFacts:
        """The source clip."""
        return self.inputs.clip

    @property
    def execution(self) -> Execution:
        """Where the plan is carried out."""
        return self.inputs.execution

    @property
    def name(self) -> str:
        """What a person reads: the clip, and which of its shots."""
        if self.shots_shown is None:
            return self.clip.name
        first, last = self.shots_shown
        which = f"shot {first}" if first == last else f"shots {first} to {last}"
        return f"{self.clip.name}, {which} of {self.clip.shot_count}"
