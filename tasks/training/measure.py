"""Metrics of a trained model, by the comparison `model`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from storage.digest import digest_of
from tasks.evaluation.clips.clip import EvaluationClip
from tasks.evaluation.comparisons.comparison import Resources
from tasks.evaluation.comparisons.model import ModelComparison
from tasks.models.checkpoints import resolve_controlnet, resolve_model
from tasks.models.devices import choose_device
from tasks.models.flow_estimators import resolve_flow
from tasks.training.files import write_text

__all__ = ["measure_model"]


@task(name="Measure the model", cache_policy=NO_CACHE, persist_result=False)
def measure_model(work_folder: str, folder: str, *, scenes: int = 72, steps: int = 50) -> dict[str, float]:
    """Compute the mean over held-out scenes of each of the comparison's metrics.

    The metrics of each scene are stored in the work folder: an interrupted measurement resumes from there.

    Args:
        work_folder: folder of the training.
        folder: folder of the model.
        scenes: number of held-out scenes.
        steps: inversion and sampling steps.

    Returns:
        Means by the metric's name, without metrics that no scene has.
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
    each = [_scene_metrics(records, comparison, clip, resources) for clip in clips]
    taken = {name: [found[name] for found in each if name in found] for name in _names(comparison)}
    return {name: sum(values) / len(values) for name, values in taken.items() if values}


def _names(comparison: ModelComparison) -> list[str]:
    """Return the names of all metrics but the time, which depends on the machine."""
    return [measure.name for measure in comparison.measures if measure.name != "seconds"]


def _scene_metrics(
    records: Path, comparison: ModelComparison, clip: EvaluationClip, resources: Resources
) -> dict[str, float]:
    """Return the metrics of a scene, from its record or measured."""
    method, own = comparison.methods(quick=False)[0], resources.controlnet and resources.controlnet.digest
    identity: tuple[Any, ...] = (comparison.version, dict(method.factors), clip.digest, resources.model.digest, own)
    path = records / f"{digest_of('figures', identity)}.json"
    if not path.exists():
        ((_, outcome),) = comparison.measure(clip, [method], resources)
        write_text(path, json.dumps(dict(outcome.scores)))
    found: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
    return found
