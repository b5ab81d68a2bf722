from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from tasks.errors import TaskInputError
from tasks.models.checkpoints import Advice
from tasks.planning.method import MethodChoices, resolve_method, setting_names
from tasks.planning.request import EditRequest, edit_request
from wave_ops.editing import NEGATIVE_PROMPT


def resolved(*settings: str, **choices: Any) -> Any:
    return resolve_method(MethodChoices(settings=settings, **choices))


def test_the_paper_is_what_its_authors_ran_whatever_the_model_advises() -> None:
    advice = Advice(guidance_scale=3, negative_prompt="", injection=0.2, feature_injection=0.1, keep=True)
    method = resolved(preset="paper", seed=7, advice=advice, source_prompt="a star")
    inversion, editing, propagation = method.inversion, method.editing, method.propagation
    assert (inversion.noise_point, inversion.refinements, inversion.shuffle) == ("previous", 0, "group")
    assert (inversion.schedule.window, inversion.schedule.warp_fraction, inversion.schedule.steps) == (
        "published",
        0.8,
        50,
    )
    assert (editing.guidance_scale, editing.controlnet_scale, editing.keep) == (12.5, 0.5, False)
    assert (editing.injection_fraction, editing.features_fraction) == (0.5, 0.5)
    assert method.negative_prompt == NEGATIVE_PROMPT
    assert method.mask.tolerance_at == "pixel"
    assert method.flow.keyframes == "direct"
    search = (propagation.schedule, propagation.rounds, propagation.sweeps, propagation.search_above)
    assert search == ("published", 12, 6, 0)
    guides = (propagation.colour_weight, propagation.edge_weight, propagation.temporal_weight)
    assert (*guides, propagation.position_weight) == (6, 0.5, 0.5, 2)
    assert (propagation.selection_weight, propagation.blend_weight, propagation.blend) == (
        "published",
        "published",
        "contrast",
    )
    assert (propagation.fuse_gradients, propagation.restore_detail, propagation.keep_switched) == (False, False, True)
    assert (inversion.seed, propagation.seed) == (7, 7)
    request = edit_request(video="a.mp4", prompt="a star", preset="paper")
    assert request.controlnets == ("auto",)
    assert request.model_copy(update={"controlnet": ("none",)}).controlnets == ("none",)


@pytest.mark.parametrize(("controlled", "guidance"), [(False, 7.5), (True, 12.5)])
def test_a_model_that_advises_nothing_has_defaults_by_its_kind(controlled: bool, guidance: float) -> None:
    editing = resolved(controlled=controlled).editing
    assert (editing.guidance_scale, editing.injection_fraction, editing.features_fraction) == (guidance, 0.5, 0.8)
    assert not resolved(controlled=controlled, source_prompt="a star").editing.keep


def test_the_source_is_kept_where_the_model_advises_it_and_a_source_prompt_is_given() -> None:
    advice = Advice(keep=True)
    assert resolved(advice=advice, source_prompt="a star").editing.keep
    assert resolved(advice=advice, source_prompt="a star").editing.paste
    assert not resolved(advice=advice).editing.keep
    assert not resolved("editing.keep=false", advice=advice, source_prompt="a star").editing.keep


def test_one_given_fraction_is_that_of_attention_and_features() -> None:
    editing = resolved(injection=0.3, advice=Advice(injection=0.5, feature_injection=0.9)).editing
    assert (editing.injection_fraction, editing.features_fraction) == (0.3, 0.3)


def test_every_setting_can_be_set_by_its_name_and_changes_nothing_else() -> None:
    values = {
        "flow.keyframes": "direct",
        "mask.residual_threshold": "0.1",
        "mask.relative": "0.2",
        "mask.absolute": "1.5",
        "mask.squared": "true",
        "mask.tolerance_at": "pixel",
        "inversion.window": "published",
        "inversion.warp_fraction": "0.6",
        "inversion.shuffle": "natural",
        "inversion.noise_point": "previous",
        "inversion.extrapolation_limit": "3",
        "inversion.refinements": "2",
        "editing.guidance_scale": "4",
        "editing.injection_fraction": "0.1",
        "editing.feature_injection_fraction": "0.2",
        "editing.extended_attention": "false",
        "editing.anchor": "time",
        "editing.controlnet_scale": "0.7",
        "editing.keep": "false",
        "editing.keep_threshold": "0.5",
        "editing.keep_grow": "3",
        "editing.paste": "true",
        "propagation.colour_weight": "3",
        "propagation.edge_weight": "3",
        "propagation.temporal_weight": "3",
        "propagation.position_weight": "3",
        "propagation.style_weight": "3",
        "propagation.uniformity": "3",
        "propagation.coarsest_side": "9",
        "propagation.schedule": "published",
        "propagation.rounds": "3",
        "propagation.sweeps": "3",
        "propagation.search_above": "3",
        "propagation.restore_detail": "false",
        "propagation.selection_weight": "published",
        "propagation.blend_weight": "published",
        "propagation.blend": "contrast",
        "propagation.fuse_gradients": "true",
        "propagation.keep_switched": "true",
        "propagation.gradient_weights": "1,2,3",
    }
    assert set(values) == set(setting_names())
    plain = flat(asdict(resolved("editing.keep=true")))
    for name, text in values.items():
        changed = flat(asdict(resolved("editing.keep=true", f"{name}={text}")))
        group, key = name.split(".")
        moved = {path for path, value in changed.items() if plain[path] != value}
        # The schedule is shared by the inversion and the edit
        assert {path.rsplit(".", 1)[-1] for path in moved} == {key}, name
        assert group in {path.split(".")[0] for path in moved}
        assert all(str(changed[path]).lower().strip("()").replace(" ", "").startswith(text[:1]) for path in moved)


def flat(values: dict[str, Any], *before: str) -> dict[str, Any]:
    items: dict[str, Any] = {}
    for name, value in values.items():
        nested = isinstance(value, dict)
        items |= flat(value, *before, name) if nested else {".".join((*before, name)): value}
    return items


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("inversion.windw=published", "Unknown setting inversion.windw: did you mean inversion.window?"),
        ("nonsense=1", "Unknown setting nonsense: known are flow.keyframes, mask.residual_threshold,"),
        ("inversion.window", "not of the form NAME=VALUE"),
        ("inversion.steps=20", "inversion.steps has an option of its own: --steps"),
        ("propagation.seed=20", "propagation.seed has an option of its own: --seed"),
    ],
)
def test_a_setting_that_is_unknown_is_refused_by_the_request(setting: str, message: str) -> None:
    with pytest.raises(TaskInputError) as error:
        edit_request(video="a.mp4", prompt="a star", set=(setting,))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("inversion.window=late", "inversion.window cannot be 'late': input should be 'aligned' or 'published'"),
        ("editing.guidance_scale=high", "editing.guidance_scale cannot be 'high'"),
        ("editing.guidance_scale=inf", "editing.guidance_scale cannot be 'inf'"),
        ("propagation.gradient_weights=1,2", "propagation.gradient_weights cannot be '1,2'"),
        ("propagation.rounds=0", "rounds and sweeps of at least 1"),
        ("editing.injection_fraction=2", "from 0 to 1, got 2"),
    ],
)
def test_a_value_that_is_wrong_is_one_sentence_that_names_the_setting(setting: str, message: str) -> None:
    with pytest.raises(TaskInputError) as error:
        edit_request(video="a.mp4", prompt="a star", set=(setting,))
    assert message in str(error.value)


def test_a_later_setting_wins_and_a_cell_of_a_manifest_holds_several() -> None:
    request = EditRequest(video="a.mp4", prompt="a star", set="mask.relative=1 mask.relative=2; editing.keep_grow=0")
    assert request.set == ("mask.relative=1", "mask.relative=2", "editing.keep_grow=0")
    assert resolved(*request.set).mask.relative == 2
