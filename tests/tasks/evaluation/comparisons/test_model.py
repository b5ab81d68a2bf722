"""The comparison of a model: metrics of right and wrong images, its scenes and settings, and a short run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.errors import TaskInputError
from tasks.evaluation.clips.clip import EvaluationClip
from tasks.evaluation.clips.model_clips import model_clips
from tasks.evaluation.comparisons.comparison import Resources
from tasks.evaluation.comparisons.model import ADVICE, ModelComparison
from tasks.evaluation.comparisons.model_probe import Probe, drawing_scores, pair_scores
from tasks.models.checkpoints import Advice, resolve_controlnet, resolve_model
from tests._evaluation import RESOURCES
from wave_ops.scenes.specs import edit_spec

SHORT = ModelComparison(steps=2)
PAIR = {measure.name for measure in SHORT.measures if measure.name.startswith("two objects")}
KINDS = ("colour", "shape", "background colour", "background texture")


@pytest.fixture(scope="module")
def clips() -> tuple[EvaluationClip, ...]:
    return model_clips(9, seed=3)


@pytest.fixture(scope="module")
def resources() -> Resources:
    model = resolve_model("embedded")
    return replace(RESOURCES, model=model, controlnet=resolve_controlnet("auto", model=model))


def probe_of(clip: EvaluationClip, resources: Resources, *, steps: int = 2) -> Probe:
    assert clip.scene is not None
    return Probe(clip, clip.scene, resources=resources, steps=steps)


def scores_of(clip: EvaluationClip, resources: Resources) -> dict[str, float]:
    ((_, outcome),) = SHORT.measure(clip, SHORT.methods(quick=True), resources)
    assert outcome.frames is not None
    assert outcome.reference is not None
    assert outcome.frames.shape == outcome.reference.shape
    return dict(outcome.scores)


def test_a_scene_with_one_object_has_all_metrics_but_those_of_two(
    clips: tuple[EvaluationClip, ...], resources: Resources
) -> None:
    scores = scores_of(clips[0], resources)
    assert set(scores) == {measure.name for measure in SHORT.measures} - PAIR
    assert scores["inversion loss"] == pytest.approx(scores["round trip"] - scores["inversion"])
    assert scores["round trip"] > 25


def test_a_scene_with_two_objects_has_its_own_metrics_and_the_size_of_all_files(
    clips: tuple[EvaluationClip, ...], resources: Resources
) -> None:
    scores = scores_of(clips[8], resources)
    assert set(scores) == PAIR | {"size", "seconds"}
    files = [path for path in Path(resources.model.location).rglob("*") if path.is_file()]
    assert scores["size"] == pytest.approx(sum(path.stat().st_size for path in files) / 1e6)


def test_without_a_controlnet_nothing_is_drawn_from_edges(
    clips: tuple[EvaluationClip, ...], resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[bool] = []

    def draw(self: Probe, *, by_edges: bool = False) -> Any:
        calls.append(by_edges)
        return self.context.frames[:2]

    monkeypatch.setattr(Probe, "draw", draw)
    monkeypatch.setattr(Probe, "_edited", lambda self, *_: self.context.frames)
    scores = scores_of(clips[0], replace(resources, controlnet=None))
    assert calls == [False]
    assert "edges followed" not in scores


def test_the_true_edit_has_full_scores_and_the_unchanged_source_only_keeps_the_rest(
    clips: tuple[EvaluationClip, ...], resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Probe, "_edited", lambda self, index, *_: self.scorer.reference(index))
    perfect, _, _ = probe_of(clips[0], resources).edit()
    assert {perfect[f"edit success, {kind}"] for kind in KINDS} == {1.0}
    assert (perfect["edit success"], perfect["rest kept"]) == (1.0, 1.0)
    monkeypatch.setattr(Probe, "_edited", lambda self, *_: self.context.frames)
    unchanged, frames, truth = probe_of(clips[0], resources).edit()
    assert (unchanged["edit success"], unchanged["rest kept"]) == (0.0, 1.0)
    assert frames.shape == truth.shape == (12, *frames.shape[1:])


def test_the_place_of_the_object_is_compared_with_that_of_the_keyframes(
    clips: tuple[EvaluationClip, ...], resources: Resources
) -> None:
    probe = probe_of(clips[0], resources)
    own = probe.context.frames
    assert probe.overlap(own[:2]) > 0.85
    assert probe.overlap(np.roll(own[:2], own.shape[2] // 2, axis=2)) < 0.3


def test_images_are_drawn_from_noise_that_depends_on_the_clip(
    clips: tuple[EvaluationClip, ...], resources: Resources
) -> None:
    first, again = (probe_of(clips[0], resources).draw() for _ in range(2))
    other = probe_of(replace(clips[0], digest=clips[1].digest), resources).draw()
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (first[0] != first[1]).any()
    assert (first != probe_of(clips[0], resources).draw(by_edges=True)).any()


def test_attributes_that_differ_from_the_caption_lower_the_scores(clips: tuple[EvaluationClip, ...]) -> None:
    scene = clips[0].scene
    assert scene is not None
    spec, frames = scene.shots[0], scene.frames[:2]
    assert set(drawing_scores(frames, spec).values()) == {1.0}
    other = edit_spec(spec, colour="red" if spec.objects[0].colour != "red" else "blue")
    assert drawing_scores(frames, other) == drawing_scores(frames, spec) | {"generation, colour": 0.0}


def test_a_missing_object_of_two_halves_the_scores(clips: tuple[EvaluationClip, ...]) -> None:
    scene = clips[8].scene
    assert scene is not None
    spec, frames = scene.shots[0], scene.frames[:1]
    assert pair_scores(frames, spec) == {"two objects, colours": 1.0, "two objects, shapes": 1.0}
    taken = {item.colour for item in spec.objects} | {spec.background.colour}
    absent = next(colour for colour in ("red", "green", "blue", "white") if colour not in taken)
    halved = pair_scores(frames, edit_spec(spec, colour=absent))  # type: ignore[arg-type]
    assert halved == {"two objects, colours": 0.5, "two objects, shapes": 0.5}


@pytest.mark.parametrize(
    ("advice", "arguments", "expected"),
    [
        (Advice(), {}, (7.5, 0.5)),
        (Advice(guidance_scale=3.0, injection=0.2), {}, (3.0, 0.2)),
        (Advice(guidance_scale=3.0), {"guidance": 1.5, "injection": 0.0}, (1.5, 0.0)),
    ],
)
def test_an_edit_takes_its_arguments_then_the_advice_then_the_defaults(
    clips: tuple[EvaluationClip, ...],
    resources: Resources,
    monkeypatch: pytest.MonkeyPatch,
    advice: Advice,
    arguments: dict[str, float],
    expected: tuple[float, float],
) -> None:
    seen = []

    def edit(model: Any, inverted: Any, *, settings: Any, **_: Any) -> Any:
        seen.append((settings.guidance_scale, settings.injection_fraction))
        return inverted(0)

    monkeypatch.setattr("tasks.evaluation.comparisons.model_probe.edit", edit)
    advised = replace(resources, model=replace(resources.model, advice=advice))
    probe_of(clips[0], advised).edit(**arguments)
    assert seen == [expected] * 4


def test_the_ninth_of_every_nine_scenes_has_two_objects(clips: tuple[EvaluationClip, ...]) -> None:
    assert [clip.group for clip in clips] == ["one object"] * 8 + ["two objects"]
    assert len({clip.digest for clip in clips}) == len({clip.name for clip in clips}) == 9
    for clip in clips:
        assert [edit.kind for edit in clip.edits] == list(KINDS)
        for edit in clip.edits:
            assert edit.prompt != clip.caption
            assert edit.truth is not None
            assert edit.truth.caption == edit.prompt


def test_the_scenes_of_both_comparisons_differ() -> None:
    measured_on = {clip.digest for clip in SHORT.clips(quick=True, count=2, seed=0)}
    assert not measured_on & {clip.digest for clip in ADVICE.clips(quick=True, count=2, seed=0)}


def test_every_setting_of_the_advice_is_measured_on_one_probe(
    clips: tuple[EvaluationClip, ...], resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = []

    def edited(self: Probe, index: int, guidance: float | None, injection: float | None) -> Any:
        settings.append((guidance, injection))
        return self.context.frames

    monkeypatch.setattr(Probe, "_edited", edited)
    methods = ADVICE.methods(quick=False)
    found = list(ADVICE.measure(clips[0], methods, resources))
    assert [method.name for method, _ in found] == [method.name for method in methods]
    assert len(set(settings)) == len(methods) == 10
    assert set(found[0][1].scores) <= {measure.name for measure in ADVICE.measures}


def test_a_clip_that_is_not_a_scene_is_an_error(clips: tuple[EvaluationClip, ...], resources: Resources) -> None:
    real = replace(clips[0], scene=None)
    for comparison in (SHORT, ADVICE):
        with pytest.raises(TaskInputError, match="is not a drawn scene"):
            list(comparison.measure(real, comparison.methods(quick=True), resources))
