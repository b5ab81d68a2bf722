"""What a model can do: figures of perfect and useless answers, scenes, settings, and a short run of the shipped one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.errors import TaskInputError
from tasks.evaluation.clips.model_clips import model_clips
from tasks.evaluation.comparison import EvaluationClip, Resources
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


def measured(clip: EvaluationClip, resources: Resources) -> dict[str, float]:
    ((_, outcome),) = SHORT.measure(clip, SHORT.methods(quick=True), resources)
    assert outcome.frames is not None
    assert outcome.reference is not None
    assert outcome.frames.shape == outcome.reference.shape
    return dict(outcome.scores)


def test_a_scene_with_one_object_gives_all_figures_but_those_of_two(
    clips: tuple[EvaluationClip, ...], resources: Resources
) -> None:
    scores = measured(clips[0], resources)
    assert set(scores) == {measure.name for measure in SHORT.measures} - PAIR
    assert scores["inversion loss"] == pytest.approx(scores["round trip"] - scores["inversion"])
    assert scores["round trip"] > 25


def test_a_scene_with_two_objects_gives_figures_of_its_own_and_the_size_of_all_files(
    clips: tuple[EvaluationClip, ...], resources: Resources
) -> None:
    scores = measured(clips[8], resources)
    assert set(scores) == PAIR | {"size", "seconds"}
    files = [path for path in Path(resources.model.location).rglob("*") if path.is_file()]
    assert scores["size"] == pytest.approx(sum(path.stat().st_size for path in files) / 1e6)


def test_without_a_controlnet_no_edges_are_followed(
    clips: tuple[EvaluationClip, ...], resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def draw(self: Probe, *, by_edges: bool = False) -> Any:
        asked.append(by_edges)
        return self.bench.frames[:2]

    monkeypatch.setattr(Probe, "draw", draw)
    monkeypatch.setattr(Probe, "_edited", lambda self, *_: self.bench.frames)
    scores = measured(clips[0], replace(resources, controlnet=None))
    assert asked == [False]
    assert "edges followed" not in scores


def test_a_perfect_edit_reaches_all_bars_and_an_edit_that_does_nothing_keeps_the_rest(
    clips: tuple[EvaluationClip, ...], resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Probe, "_edited", lambda self, place, *_: self.judge.reference(place))
    perfect, _, _ = probe_of(clips[0], resources).edit()
    assert {perfect[f"edit success, {kind}"] for kind in KINDS} == {1.0}
    assert (perfect["edit success"], perfect["rest kept"]) == (1.0, 1.0)
    monkeypatch.setattr(Probe, "_edited", lambda self, *_: self.bench.frames)
    idle, frames, truth = probe_of(clips[0], resources).edit()
    assert (idle["edit success"], idle["rest kept"]) == (0.0, 1.0)
    assert frames.shape == truth.shape == (12, *frames.shape[1:])


def test_the_objects_place_is_judged_against_the_keyframes(
    clips: tuple[EvaluationClip, ...], resources: Resources
) -> None:
    probe = probe_of(clips[0], resources)
    own = probe.bench.frames
    assert probe.overlap(own[:2]) > 0.85
    assert probe.overlap(np.roll(own[:2], own.shape[2] // 2, axis=2)) < 0.3


def test_pictures_come_from_the_scenes_own_noise(clips: tuple[EvaluationClip, ...], resources: Resources) -> None:
    first, again = (probe_of(clips[0], resources).draw() for _ in range(2))
    other = probe_of(replace(clips[0], digest=clips[1].digest), resources).draw()
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (first[0] != first[1]).any()
    assert (first != probe_of(clips[0], resources).draw(by_edges=True)).any()


def test_what_the_checker_reads_is_held_against_the_caption(clips: tuple[EvaluationClip, ...]) -> None:
    scene = clips[0].scene
    assert scene is not None
    spec, frames = scene.shots[0], scene.frames[:2]
    assert set(drawing_scores(frames, spec).values()) == {1.0}
    other = edit_spec(spec, colour="red" if spec.objects[0].colour != "red" else "blue")
    assert drawing_scores(frames, other) == drawing_scores(frames, spec) | {"generation, colour": 0.0}


def test_both_objects_are_looked_for(clips: tuple[EvaluationClip, ...]) -> None:
    scene = clips[8].scene
    assert scene is not None
    spec, frames = scene.shots[0], scene.frames[:1]
    assert pair_scores(frames, spec) == {"two objects, colours": 1.0, "two objects, shapes": 1.0}
    taken = {item.colour for item in spec.objects} | {spec.background.colour}
    absent = next(colour for colour in ("red", "green", "blue", "white") if colour not in taken)
    halved = pair_scores(frames, edit_spec(spec, colour=absent))  # type: ignore[arg-type]
    assert halved == {"two objects, colours": 0.5, "two objects, shapes": 0.5}


@pytest.mark.parametrize(
    ("advice", "asked", "wanted"),
    [
        (Advice(), {}, (12.5, 0.5)),
        (Advice(guidance_scale=3.0, injection=0.2), {}, (3.0, 0.2)),
        (Advice(guidance_scale=3.0), {"guidance": 1.5, "injection": 0.0}, (1.5, 0.0)),
    ],
)
def test_an_edit_follows_what_is_asked_then_the_advice_then_the_method(
    clips: tuple[EvaluationClip, ...],
    resources: Resources,
    monkeypatch: pytest.MonkeyPatch,
    advice: Advice,
    asked: dict[str, float],
    wanted: tuple[float, float],
) -> None:
    seen = []

    def edit(model: Any, inverted: Any, *, settings: Any, **_: Any) -> Any:
        seen.append((settings.guidance_scale, settings.injection_fraction))
        return inverted(0)

    monkeypatch.setattr("tasks.evaluation.comparisons.model_probe.edit", edit)
    advised = replace(resources, model=replace(resources.model, advice=advice))
    probe_of(clips[0], advised).edit(**asked)
    assert seen == [wanted] * 4


def test_the_ninth_of_every_nine_scenes_has_two_objects(clips: tuple[EvaluationClip, ...]) -> None:
    assert [clip.group for clip in clips] == ["one object"] * 8 + ["two objects"]
    assert len({clip.digest for clip in clips}) == len({clip.name for clip in clips}) == 9
    for clip in clips:
        assert [edit.kind for edit in clip.edits] == list(KINDS)
        for edit in clip.edits:
            assert edit.prompt != clip.caption
            assert edit.truth is not None
            assert edit.truth.caption == edit.prompt


def test_advice_is_chosen_on_other_scenes_than_it_is_measured_on() -> None:
    measured_on = {clip.digest for clip in SHORT.clips(quick=True, count=2, seed=0)}
    assert not measured_on & {clip.digest for clip in ADVICE.clips(quick=True, count=2, seed=0)}


def test_advice_measures_every_setting_on_one_inversion(
    clips: tuple[EvaluationClip, ...], resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def edited(self: Probe, place: int, guidance: float | None, injection: float | None) -> Any:
        asked.append((guidance, injection))
        return self.bench.frames

    monkeypatch.setattr(Probe, "_edited", edited)
    methods = ADVICE.methods(quick=False)
    found = list(ADVICE.measure(clips[0], methods, resources))
    assert [method.name for method, _ in found] == [method.name for method in methods]
    assert len(set(asked)) == len(methods) == 10
    assert set(found[0][1].scores) <= {measure.name for measure in ADVICE.measures}


def test_a_clip_that_is_no_scene_is_refused(clips: tuple[EvaluationClip, ...], resources: Resources) -> None:
    real = replace(clips[0], scene=None)
    for comparison in (SHORT, ADVICE):
        with pytest.raises(TaskInputError, match="is no drawn scene"):
            list(comparison.measure(real, comparison.methods(quick=True), resources))
