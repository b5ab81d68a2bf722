from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from storage.video import probe, read_frames
from storage.workspace import Workspace
from tasks.errors import TaskInputError
from tasks.evaluation.comparisons.comparison import Method, Outcome
from tasks.evaluation.plan import EvaluationPlan, load_planned_clip, planned_clips
from tasks.evaluation.previews import GAIN
from tasks.evaluation.report.film_selection import shown_clips
from tasks.evaluation.request import EvaluationRequest
from tasks.evaluation.resources import resources_digest
from tasks.evaluation.results import collect_results
from tasks.evaluation.run import DIFFERENCE, REFERENCE, RESULT, evaluate_clip, measure_clip
from tasks.models.checkpoints import Advice
from tasks.progress import listening
from tests._evaluation import RESOURCES, CoarseCopies, coarse_plan, with_coarse


def run(plan: EvaluationPlan) -> list[int]:
    return [measure_clip(plan, clip) for clip in plan.clips]


def test_a_second_run_computes_nothing(coarse: CoarseCopies, tmp_path: Path) -> None:
    plan = coarse_plan(coarse, tmp_path)
    assert run(plan) == [3, 3]
    before = collect_results(plan).metrics
    assert run(plan) == [0, 0]
    assert len(coarse.computed) == 6
    assert collect_results(plan).metrics.equals(before)


def test_an_interrupted_run_resumes_with_the_failed_method(
    coarse: CoarseCopies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = coarse_plan(coarse, tmp_path)
    interrupted = with_coarse(monkeypatch, fails_at=("calm-00", "every 8"))
    with pytest.raises(TaskInputError):
        run(plan)
    assert interrupted.computed == [("calm-00", "every 2"), ("calm-00", "every 4")]
    repaired = with_coarse(monkeypatch)
    assert run(plan) == [1, 3]
    assert repaired.computed[0] == ("calm-00", "every 8")


def test_an_outcome_without_completion_record_is_computed_again(
    coarse: CoarseCopies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = coarse_plan(coarse, tmp_path)
    with monkeypatch.context() as killed:

        def die(*_: object) -> None:
            raise KeyboardInterrupt

        killed.setattr("storage.artifact.Artifact.complete", die)
        with pytest.raises(KeyboardInterrupt):
            run(plan)
    assert run(plan) == [3, 3]


def test_adding_a_method_recomputes_no_other(
    coarse: CoarseCopies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(coarse_plan(coarse, tmp_path))
    wider = with_coarse(monkeypatch, factors=(2, 16, 4, 8))
    assert run(coarse_plan(wider, tmp_path)) == [1, 1]
    assert {method for _, method in wider.computed} == {"every 16"}


def test_an_outcome_without_scores_is_computed_again_in_the_next_run(
    coarse: CoarseCopies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = coarse_plan(coarse, tmp_path)
    with monkeypatch.context() as lacking:
        lacking.setattr(coarse, "measure", lambda _, methods, __: ((method, Outcome(scores={})) for method in methods))
        assert run(plan) == [3, 3]
    assert run(plan) == [3, 3]
    assert len(coarse.computed) == 6
    assert run(plan) == [0, 0]


def test_an_outcome_with_a_missing_film_is_computed_again(coarse: CoarseCopies, tmp_path: Path) -> None:
    plan = coarse_plan(coarse, tmp_path)
    run(plan)
    (tmp_path / plan.ref(plan.clips[1], plan.methods[2]).path / RESULT).unlink()
    assert run(plan) == [0, 1]


@pytest.mark.parametrize(
    "change",
    [
        {"model": SimpleNamespace(digest="other", advice=Advice())},
        {"model": SimpleNamespace(digest=RESOURCES.model.digest, advice=Advice(guidance_scale=2))},
        {"controlnet": type("Network", (), {"digest": "other"})()},
        {"flow": type("Flow", (), {"name": "raft", "digest": "other"})()},
        {"dtype": "float16"},
        {"seed": 1},
        {"clip_model": "owner/clip"},
    ],
)
def test_every_resource_that_changes_a_metric_changes_the_digest(change: dict[str, object]) -> None:
    assert resources_digest(replace(RESOURCES, **change)) != resources_digest(RESOURCES)  # type: ignore[arg-type]


def test_the_digest_depends_on_the_bytes_of_the_weights_and_not_on_their_path(tmp_path: Path) -> None:
    for name, content in (("a", b"x"), ("b", b"x"), ("c", b"y")):
        (tmp_path / name).write_bytes(content)
    a, b, c = (resources_digest(replace(RESOURCES, lpips_weights=str(tmp_path / name))) for name in "abc")
    assert a == b != c


def test_the_device_does_not_change_the_digest() -> None:
    assert resources_digest(replace(RESOURCES, device="cuda")) == resources_digest(RESOURCES)


def test_clip_method_version_and_seed_each_change_the_digest_of_an_outcome(
    coarse: CoarseCopies, tmp_path: Path
) -> None:
    plan = coarse_plan(coarse, tmp_path)
    refs = [plan.ref(clip, method) for clip in plan.clips for method in plan.methods]
    coarse.version = 2
    refs += [coarse_plan(coarse, tmp_path).ref(plan.clips[0], plan.methods[0])]
    refs += [
        coarse_plan(coarse, tmp_path, seed=1).ref(
            planned_clips(EvaluationRequest(comparison="coarse", seed=1))[0], plan.methods[0]
        )
    ]
    assert len({ref.digest for ref in refs}) == len({ref.path for ref in refs}) == len(refs)


def test_the_error_of_a_failed_method_names_method_and_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coarse = with_coarse(monkeypatch, fails_at=("hard-01", "every 4"))
    with pytest.raises(TaskInputError, match=r"^coarse on the clip hard-01, method 'every 4': the grid is too coarse$"):
        run(coarse_plan(coarse, tmp_path))
    assert coarse.closed == 2


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "ended without the method 'every 2'"),
        ([(Method(name="other", factors={}), Outcome(scores={}))], "'other', which was not requested"),
        ([(Method(name="every 2", factors={}), Outcome(scores={"SSIM": 1.0}))], "'SSIM' is not a metric"),
    ],
)
def test_missing_and_unknown_methods_and_unknown_metrics_are_errors(
    given: list[tuple[Method, Outcome]], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coarse = with_coarse(monkeypatch)
    monkeypatch.setattr(CoarseCopies, "measure", lambda *_: iter(given))
    with pytest.raises(TaskInputError, match=words):
        run(coarse_plan(coarse, tmp_path))


def test_scores_that_are_not_finite_are_stored_as_null(coarse: CoarseCopies, tmp_path: Path) -> None:
    plan = coarse_plan(coarse, tmp_path)
    run(plan)
    outcome = Workspace.open(tmp_path).artifact(plan.ref(plan.clips[0], plan.methods[2])).metadata
    assert outcome["scores"]["calls"] is None
    assert outcome["scores"]["size"] == 1 / 64


def test_the_stored_films_show_the_result_and_its_difference_from_the_source(
    coarse: CoarseCopies, tmp_path: Path
) -> None:
    plan = coarse_plan(coarse, tmp_path)
    run(plan)
    clip = load_planned_clip(plan.request, plan.clips[0])
    artifact = Workspace.open(tmp_path).artifact(plan.ref(plan.clips[0], plan.methods[2]))
    with artifact.local_copy(RESULT) as result, artifact.local_copy(DIFFERENCE) as difference:
        assert (probe(result).width, probe(result).frame_count) == (192, 4)
        made, shown = (
            np.stack([frame for _, frame in read_frames(path)])[:, 3::6, 3::6].astype(float)
            for path in (result, difference)
        )
    expected = np.clip(128 + GAIN * (made - clip.frames), 0, 255)
    assert np.abs(shown - expected).mean() < 6
    assert np.abs(shown - 128).mean() > 20


def test_a_reference_is_stored_and_the_difference_is_taken_from_it(
    coarse: CoarseCopies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)

    def perfect(_self: object, _clip: object, methods: Sequence[Method], _resources: object) -> Any:
        return ((method, Outcome(scores={"PSNR": 50.0}, frames=truth, reference=truth)) for method in methods)

    monkeypatch.setattr(CoarseCopies, "measure", perfect)
    plan = coarse_plan(coarse, tmp_path)
    run(plan)
    artifact = Workspace.open(tmp_path).artifact(plan.ref(plan.clips[0], plan.methods[0]))
    assert artifact.read_bytes(REFERENCE) == artifact.read_bytes(RESULT)
    with artifact.local_copy(DIFFERENCE) as difference:
        assert all(np.abs(frame.astype(int) - 128).max() <= 2 for _, frame in read_frames(difference))
    shown = shown_clips(plan, collect_results(plan))[0]
    assert [film.name for film in shown.films] == ["source", "reference", "every 2", "every 4", "every 8"]


def test_progress_is_reported_after_every_method(coarse: CoarseCopies, tmp_path: Path) -> None:
    plan, heard = coarse_plan(coarse, tmp_path), list[tuple[str, str, int, int]]()
    with listening(lambda *event: heard.append(event)):
        measure_clip(plan, plan.clips[0])
    parts = [(stage, part.split()[-1], done, total) for stage, part, done, total in heard]
    assert list(dict.fromkeys(parts)) == [("evaluate", "calm-00", done, 3) for done in (0, 1, 2, 3)]


def test_a_clip_that_has_changed_since_planning_is_an_error(coarse: CoarseCopies, tmp_path: Path) -> None:
    plan = coarse_plan(coarse, tmp_path)
    shutil.rmtree(tmp_path)
    other = replace(plan.clips[0], digest="another")
    with pytest.raises(TaskInputError, match="calm-00 has changed since it was planned"):
        measure_clip(plan, other)


def test_task_runs_are_named_by_clip_and_number_of_methods(coarse: CoarseCopies, tmp_path: Path) -> None:
    plan = coarse_plan(coarse, tmp_path)
    name = evaluate_clip.task_run_name
    assert callable(name)
    assert name(parameters={"plan": plan, "clip": plan.clips[0]}) == "calm-00: 3 methods"  # type: ignore[call-arg]
