"""Selects the clips and methods that the report shows, and loads their films."""

from __future__ import annotations

import base64
import tempfile
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np

from storage.artifact import Artifact
from storage.video import probe
from storage.workspace import Workspace
from tasks.evaluation.clips.clip import Frames
from tasks.evaluation.comparisons.comparison import Measure, Method
from tasks.evaluation.plan import EvaluationPlan, PlannedClip, load_planned_clip
from tasks.evaluation.previews import write_film
from tasks.evaluation.report.tables import decimals, with_unit
from tasks.evaluation.results import Results
from tasks.evaluation.run import DIFFERENCE, REFERENCE, RESULT

__all__ = ["Film", "ShownClip", "choose_clips", "choose_methods", "shown_clips", "worst_clip"]

_MOST_METHODS = 8
_MOST_CLIPS = 6
_MOST_BYTES = 14 * 2**20
"""Limit of all films as base64 text, so that the page with its plots stays below 20 MB."""
_MOST_LINES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """One film with its caption."""

    name: str
    video: str
    """A data URI."""
    width: int
    height: int
    difference: str | None = None
    lines: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Size in the page, in bytes."""
        return len(self.video) + len(self.difference or "")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownClip:
    """A clip's films: the source, the reference if it is stored, then the methods."""

    name: str
    note: str
    caption: str
    prompts: tuple[str, ...]
    films: tuple[Film, ...]

    @property
    def size(self) -> int:
        """Size in the page, in bytes."""
        return sum(film.size for film in self.films)


def choose_methods(results: Results, *, most: int = _MOST_METHODS) -> tuple[Method, ...]:
    """Choose the methods to show, in their order: all, or the baseline with the best and the worst.

    Reference rows are not shown: source and true edit have films of their own.
    """
    methods = tuple(method for method in results.methods if not method.reference)
    if len(methods) <= most:
        return methods
    ranked, measure = [item for item in methods if item.name != results.baseline], results.leading
    if measure is not None:
        ranked.sort(key=lambda method: _rank(results, measure, method))
    best = most // 2
    chosen = {results.baseline, *(item.name for item in [*ranked[:best], *ranked[best + 1 - most :]])}
    return tuple(method for method in results.methods if method.name in chosen)


def choose_clips(results: Results, *, most: int = _MOST_CLIPS) -> tuple[str, ...]:
    """Choose the clips to show: the baseline's worst, then one of each group in turn."""
    turns = chain.from_iterable(zip_longest(*results.groups.values()))
    named = [worst_clip(results), *turns]
    return tuple(dict.fromkeys(name for name in named if name is not None))[:most]


def worst_clip(results: Results) -> str | None:
    """Return the clip with the baseline's worst value of the leading metric; None if there are no values."""
    measure = results.leading
    if measure is None or not np.isfinite(values := results.values(measure, results.baseline)).any():
        return None
    return results.clips[int(np.nanargmin(values if measure.better == "higher" else -values))]


def shown_clips(plan: EvaluationPlan, results: Results, *, most_bytes: int = _MOST_BYTES) -> tuple[ShownClip, ...]:
    """Load the films of the chosen clips and methods, for as many clips as fit into a page."""
    by_name = {clip.name: clip for clip in plan.clips}
    shown: list[ShownClip] = []
    for name in choose_clips(results):
        clip = _shown(plan, results, by_name[name])
        if clip is not None and sum(item.size for item in shown) + clip.size <= most_bytes:
            shown.append(clip)
    return tuple(shown)


def _rank(results: Results, measure: Measure, method: Method) -> float:
    mean = results.summary(measure, method).mean
    if mean is None:
        return np.inf
    return -mean if measure.better == "higher" else mean


def _shown(plan: EvaluationPlan, results: Results, clip: PlannedClip) -> ShownClip | None:
    """Load one clip's films; return None if no method has stored any."""
    workspace, methods = Workspace.open(plan.workspace), choose_methods(results)
    outcomes = [(method, workspace.artifact(plan.ref(clip, method))) for method in methods]
    stored = [(method, artifact) for method, artifact in outcomes if artifact.has_file(RESULT)]
    if not stored:
        return None
    reference = next(
        (_film("reference", artifact, REFERENCE) for _, artifact in stored if artifact.has_file(REFERENCE)), None
    )
    films = [_result_film(results, clip, method, artifact) for method, artifact in stored]
    loaded = load_planned_clip(plan.request, clip)
    return ShownClip(
        name=clip.name,
        note=_note(results, clip),
        caption=loaded.caption,
        prompts=tuple(edit.prompt for edit in loaded.edits),
        films=(_source_film(loaded.frames), *([reference] if reference else []), *films),
    )


def _note(results: Results, clip: PlannedClip) -> str:
    words = [clip.group] + ([f"edit: {clip.edit}"] if clip.edit else [])
    if clip.name == worst_clip(results) and results.leading is not None:
        words.append(f"worst clip of {results.baseline} by {results.leading.name}")
    return ", ".join(words)


def _scores(results: Results, clip: PlannedClip, method: Method) -> tuple[str, ...]:
    place = results.clips.index(clip.name)
    values = {measure: float(results.values(measure, method)[place]) for measure in results.measured}
    known = {measure: value for measure, value in values.items() if np.isfinite(value)}
    lines = [with_unit(f"{item.name} {value:.{decimals([value])}f}", item) for item, value in known.items()]
    return tuple(lines[:_MOST_LINES])


def _result_film(results: Results, clip: PlannedClip, method: Method, artifact: Artifact) -> Film:
    film = _film(method.name, artifact, RESULT)
    difference = _data_uri(artifact.read_bytes(DIFFERENCE)) if artifact.has_file(DIFFERENCE) else None
    return replace(film, difference=difference, lines=_scores(results, clip, method))


def _source_film(frames: Frames) -> Film:
    with tempfile.TemporaryDirectory(prefix="wave-") as folder:
        path = Path(folder) / RESULT
        write_film(path, frames)
        return _read_film("source", path)


def _film(name: str, artifact: Artifact, file: str) -> Film:
    with artifact.local_copy(file) as path:
        return _read_film(name, path)


def _read_film(name: str, path: Path) -> Film:
    info, video = probe(path), _data_uri(path.read_bytes())
    return Film(name=name, video=video, width=info.width, height=info.height)


def _data_uri(video: bytes) -> str:
    return f"data:video/mp4;base64,{base64.b64encode(video).decode('ascii')}"
