from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from diffusers import MultiControlNetModel

from tasks.errors import TaskInputError
from tasks.models.checkpoints import resolve_model
from tasks.models.controlnets import (
    ControlInput,
    ControlNetSpec,
    ControlSet,
    parse_control,
    parse_controlnet,
    resolve_controlnets,
)
from tasks.models.loading import loaded_model
from wave_ops.controls import networks_of

DEPTH = ("depth", ControlInput(location="depth.mp4", digest="d"))


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("auto", ControlNetSpec(network="auto", kind="canny")),
        ("owner/name", ControlNetSpec(network="owner/name", kind="canny")),
        ("canny=auto:0.8", ControlNetSpec(network="canny=auto", kind="canny", weight=0.8)),
        ("depth=a/b:0.5:0-0.6", ControlNetSpec(network="depth=a/b", kind="depth", weight=0.5, stop=0.6)),
        ("tile=/x/y:1:.25-1", ControlNetSpec(network="tile=/x/y", kind="tile", weight=1, start=0.25)),
    ],
)
def test_kind_weight_and_part_of_the_steps_are_read(text: str, spec: ControlNetSpec) -> None:
    assert parse_controlnet(text) == spec


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a:strong", "of the form KIND=SPEC:WEIGHT:FROM-TO"),
        ("a:0-0.5", "of the form"),
        ("a:1:0.5-0.5", "from 0 to 1"),
        ("a:1:0-1.5", "from 0 to 1"),
        ("a:nan", "weight from"),
        ("sonar=a", "Unknown kind"),
    ],
)
def test_another_form_is_refused_in_one_sentence(text: str, words: str) -> None:
    with pytest.raises(TaskInputError, match=words) as caught:
        parse_controlnet(text)
    assert "\n" not in str(caught.value)


def test_a_control_video_has_a_kind() -> None:
    assert parse_control("depth=clips/d.mp4") == ("depth", "clips/d.mp4")
    for text in ("d.mp4", "depth="):
        with pytest.raises(TaskInputError, match="KIND=VIDEO"):
            parse_control(text)


@pytest.fixture
def depth(sd15: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sd15 / "controlnet", tmp_path / "control_depth"))


def resolved(sd15: Path, *specs: str, inputs: tuple = ()) -> ControlSet | None:
    return resolve_controlnets(specs, inputs, model=resolve_model(str(sd15)))


def test_a_controlnet_that_needs_an_input_is_refused_without_it_and_an_input_without_a_controlnet(
    sd15: Path, depth: Path
) -> None:
    with pytest.raises(TaskInputError, match="--control depth=VIDEO"):
        resolved(sd15, "auto", f"depth={depth}")
    for specs in ((), ("none",), ("auto",)):
        with pytest.raises(TaskInputError, match="--controlnet depth=SPEC"):
            resolved(sd15, *specs, inputs=(DEPTH,))
    found = resolved(sd15, f"depth={depth}:0.7", inputs=(DEPTH,))
    assert found is not None
    assert [item.video for item in found.items] == [DEPTH[1]]
    assert resolved(sd15) is None
    assert resolved(sd15, "none") is None


def test_canny_edges_alone_have_the_digest_of_their_controlnet_and_all_else_changes_it(sd15: Path, depth: Path) -> None:
    plain = resolved(sd15, "auto")
    assert plain is not None
    assert plain.digest == plain.networks[0].digest
    other = ("depth", ControlInput(location="depth.mp4", digest="e"))
    canny = ("canny", ControlInput(location="depth.mp4", digest="d"))
    found = [
        plain,
        resolved(sd15, "auto:0.7"),
        resolved(sd15, "auto:0.7:0-0.5"),
        resolved(sd15, "auto", inputs=(canny,)),
        resolved(sd15, f"depth={depth}", inputs=(DEPTH,)),
        resolved(sd15, f"depth={depth}", inputs=(other,)),
        resolved(sd15, "auto", f"depth={depth}", inputs=(DEPTH,)),
    ]
    assert len({each.digest for each in found if each is not None}) == len(found)


def test_several_controlnets_are_loaded_in_their_order(sd15: Path, depth: Path) -> None:
    found = resolved(sd15, f"depth={depth}", "auto", inputs=(DEPTH,))
    assert found is not None
    model = resolve_model(str(sd15))
    with loaded_model(model, found.networks, device="cpu", dtype="float32") as loaded:
        assert isinstance(loaded.controlnet, MultiControlNetModel)
        several = networks_of(loaded.controlnet)
    with loaded_model(model, found.networks[1], device="cpu", dtype="float32") as loaded:
        assert networks_of(loaded.controlnet) == [several[1]]
