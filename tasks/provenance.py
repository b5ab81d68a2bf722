"""Provenance: what made an edited video, in the file itself and next to it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from storage.video import DIGITAL_SOURCE_TYPE, Labels
from tasks.models.controlnets import ControlSet
from tasks.planning.plan import EditPlan
from tasks.planning.stages import ENCODE, STAGES
from tasks.version import wave_version

__all__ = ["labels_of", "provenance"]


def labels_of(plan: EditPlan, source: Mapping[str, Any]) -> Labels:
    """Return what the edited file says of itself: the source's title and time, and that a model has changed it.

    Names of folders are no part of it: the same edit gives the same bytes wherever the model is stored.

    Args:
        plan: the edit.
        source: metadata of the decoded clip.
    """
    return Labels(
        title=source.get("title", ""),
        creation_time=source.get("creation_time", ""),
        software=f"wave {wave_version()}",
        model=plan.inputs.model.digest,
        prompt=_sha256(plan.request.prompt),
    )


def provenance(plan: EditPlan) -> dict[str, Any]:
    """Return what an edit was made from and with, as JSON values: nothing in it depends on when or where it ran."""
    inputs, request = plan.inputs, plan.request
    return {
        "synthetic": True,
        "digital_source_type": DIGITAL_SOURCE_TYPE,
        "software": f"wave {wave_version()}",
        "edit": plan[ENCODE].ref.digest,
        "source": {"name": plan.clip.name, "digest": plan.clip.digest},
        "prompt": request.prompt,
        "prompt_sha256": _sha256(request.prompt),
        "source_prompt": request.source_prompt,
        "model": {"name": _plain_name(inputs.model.name), "digest": inputs.model.digest},
        "controlnet": None if inputs.controlnet is None else _controlnet(inputs.controlnet),
        "flow": {"name": inputs.flow.name, "digest": inputs.flow.digest},
        "seed": request.seed,
        "settings": {spec.name: plan.stages_of(spec)[0].settings.identity() for spec in STAGES},
    }


def _controlnet(found: ControlSet) -> dict[str, Any]:
    return {"digest": found.digest, "networks": [item.described() for item in found.items]}


def _plain_name(name: str) -> str:
    """Return a hub id as it is, and of a path the last part: folders of a machine are no one else's concern."""
    is_path = name.startswith((".", "~")) or Path(name).is_absolute()
    return Path(name).name if is_path else name


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
