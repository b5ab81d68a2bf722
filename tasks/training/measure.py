"""What a trained model can do: the comparison `model`, run where it was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from storage.digest import digest_of
from tasks.evaluation.comparison import EvaluationClip, Resources
from tasks.evaluation.comparisons.model import ModelComparison
from tasks.models.checkpoints import resolve_controlnet, resolve_model
from tasks.models.devices import choose_device
from tasks.models.flow_estimators import resolve_flow
from tasks.training.files import write_text

__all__ = ["measure_model"]


@task(name="Measure the model", cache_policy=NO_CACHE, persist_result=False)
def measure_model(work_folder: str, folder: str, *, scenes: int = 72, steps: int = 50) -> dict[str, float]:
    """The mean over held-out scenes of each of the comparison's figures, by its name.

    The figures of every scene are kept in the work folder, so that measuring goes on where it was broken off.
    """
    model = resolve_model(str(Path(folder).resolve()))
    resources = Resources(
        model=model,
        controlnet=resolve_controlnet("auto", model=model),
        flow=resolve_flow("dis"),
        device=choose_device(),
        dtype="float32",
        seed=0,
    )
    comparison = ModelComparison(steps=steps)
    records = Path(work_folder) / "figures"
    clips = comparison.clips(quick=False, count=scenes, seed=resources.seed)
    each = [_figures(records, comparison, clip, resources) for clip in clips]
    taken = {name: [found[name] for found in each if name in found] for name in _names(comparison)}
    return {name: sum(values) / len(values) for name, values in taken.items() if values}


def _names(comparison: ModelComparison) -> list[str]:
    """All figures but the time, which tells of the machine."""
    return [measure.name for measure in comparison.measures if measure.name != "seconds"]


def _figures(
    records: Path, comparison: ModelComparison, clip: EvaluationClip, resources: Resources
) -> dict[str, float]:
    """The figures of one scene, measured unless they are on record."""
    method, own = comparison.methods(quick=False)[0], resources.controlnet and resources.controlnet.digest
    identity: tuple[Any, ...] = (comparison.version, dict(method.factors), clip.digest, resources.model.digest, own)
    path = records / f"{digest_of('figures', identity)}.json"
    if not path.exists():
        ((_, outcome),) = comparison.measure(clip, [method], resources)
        write_text(path, json.dumps(dict(outcome.scores)))
    found: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
    return found
