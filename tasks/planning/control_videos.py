"""Control videos: the inputs of ControlNets that are not computed from the clip."""

from __future__ import annotations

from storage.digest import digest_file_once
from storage.video import Trim, probe
from tasks.errors import TaskInputError
from tasks.models.checkpoints import ControlKind
from tasks.models.controlnets import ControlInput, parse_control
from tasks.planning.input_video import clip_name, local_video
from tasks.planning.outline import ClipFacts

__all__ = ["find_control"]


def find_control(text: str, *, clip: ClipFacts, trim: Trim) -> tuple[ControlKind, ControlInput]:
    """Return the kind of a control video, and its digest.

    Args:
        text: KIND=VIDEO.
        clip: the clip that is edited, or the part of it.
        trim: that part, which is taken of the control video as well.

    Raises:
        TaskInputError: if the video has another number of frames than the clip.
        VideoError: if the file does not exist, or it is not a video.
    """
    kind, location = parse_control(text)
    with local_video(location) as path:
        info = probe(path)
        count = trim.count(info.frame_count, float(info.rate))
        if count != clip.frame_count:
            raise TaskInputError(
                f"The control video {clip_name(location)} for {kind} has {count} frames, and the clip {clip.name} has "
                f"{clip.frame_count}: there must be one for each."
            )
        return kind, ControlInput(location=location, digest=digest_file_once(path))
