from __future__ import annotations

import pytest

from tasks.errors import TaskInputError
from tasks.evaluation.comparisons.registry import COMPARISONS, check_name, comparison, names, titles
from tests._evaluation import CoarseCopies

REGISTRY = "tasks.evaluation.comparisons.registry.COMPARISONS"


def test_all_comparisons_are_listed() -> None:
    whole = ("inversion", "editing", "video", "peers", "propagation", "flow", "model")
    assert names() == (*whole, "anchor", "sites", "mask", "window", "refinement", "steps", "advice")


def test_a_comparison_is_found_by_its_name(coarse: CoarseCopies) -> None:
    assert comparison("coarse") is coarse


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("inverson", "Unknown comparison 'inverson': did you mean inversion?"),
        ("Editing", "did you mean editing"),
        ("quality", "Unknown comparison 'quality': choose from inversion, editing"),
        ("", "choose from inversion"),
    ],
)
def test_the_error_of_an_unknown_name_lists_the_nearest(name: str, words: str) -> None:
    with pytest.raises(TaskInputError) as caught:
        check_name(name)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "place", ["tasks.evaluation.nothing:COMPARISON", "tasks.evaluation.comparisons.comparison:NOTHING"]
)
def test_a_comparison_that_cannot_be_loaded_is_an_error_and_stays_listed(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(REGISTRY, {"lost": place})
    with pytest.raises(TaskInputError, match=r"'lost' cannot be loaded: .*(nothing|NOTHING)"):
        comparison("lost")
    assert "cannot be loaded" in titles()["lost"]


def test_a_registered_class_is_instantiated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "tasks.evaluation.comparisons.registry.COMPARISONS", {"coarse": "tests._evaluation:CoarseCopies"}
    )
    assert isinstance(comparison("coarse"), CoarseCopies)


def test_the_registry_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        COMPARISONS["mine"] = "here:MINE"  # type: ignore[index]
