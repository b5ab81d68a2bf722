"""Plans of clips that do not exist, for index arithmetic and identities."""

from __future__ import annotations

from typing import Any

from tasks.models.checkpoints import Advice, ModelIdentity
from tasks.models.flow_estimators import FlowIdentity
from tasks.planning.plan import ClipFacts, EditPlan, Execution, ResolvedInputs, plan_edit
from tasks.planning.request import EditRequest

__all__ = ["planned"]


def planned(
    *,
    frame_count: int = 10,
    cuts: tuple[int, ...] | None = None,
    size: tuple[int, int] = (128, 128),
    workspace: str = "/w",
    **request: Any,
) -> EditPlan:
    model = ModelIdentity(
        name="model",
        location="/model",
        variants=(),
        digest="m",
        vae_factor=8,
        size_multiple=8,
        native_area=size[0] * size[1],
        advice=Advice(),
    )
    return plan_edit(
        ResolvedInputs(
            request=EditRequest(**{"video": "clip", "prompt": "a prompt", "keyframe_interval": 4, **request}),
            clip=ClipFacts(name="clip", digest="c", frame_count=frame_count, size=size, cuts=cuts),
            model=model,
            controlnet=None,
            flow=FlowIdentity(name="dis"),
            execution=Execution(workspace=workspace),
        )
    )
