from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from storage.workspace import open_artifact
from tasks.artifacts import REPORT
from tasks.assess import assess_edit
from tasks.decode import decode_clip
from tasks.edit import edit_keyframes
from tasks.encode import encode_edit
from tasks.failures import error_kind
from tasks.flow import estimate_frame_flow, estimate_keyframe_flow
from tasks.invert import invert_keyframes
from tasks.models import loading
from tasks.planning.plan import EditPlan, Execution
from tasks.planning.prepare import prepare_edit
from tasks.planning.request import EditRequest
from tasks.planning.stages import ASSESS, DECODE, EDIT, INVERT
from tasks.uniform_frames import noting_uniform, uniform_notes
from tests._clips import save_clip
from tests._stages import run_propagation
from wave_ops.diffusion import StableDiffusion
from wave_ops.errors import NonFiniteError
from wave_ops.propagation import propagate_interval

OVERFLOWING = "down_blocks.3.resnets.0.conv1"
"""A module of the UNet whose output a normalisation follows: it may be large, but not infinite."""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("short") / "clip.mp4", frames=3)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one workspace for all tests, which share the decoded frames and flows."""
    return tmp_path_factory.mktemp("shared") / "workspace"


@pytest.fixture
def copy(sd15: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sd15, tmp_path / "copy"))


def change_weights(folder: Path, name: str, change: Any) -> None:
    path = folder / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors[name] = change(tensors[name])
    save_file(tensors, path)


def prepared(clip: Path, model: Path, workspace: Path, *, dtype: str = "float32", prompt: str = "a star") -> EditPlan:
    """Plan an edit in a data type, and compute what its networks need."""
    request = EditRequest(video=str(clip), prompt=prompt, model=str(model), steps=3)
    plan = prepare_edit(request, execution=Execution(workspace=str(workspace), dtype=dtype))
    for stage in (decode_clip, estimate_frame_flow, estimate_keyframe_flow):
        stage.run(plan)
    return plan


def latents(plan: EditPlan, spec: Any) -> np.ndarray:
    return open_artifact(plan[spec].ref).read_region("latents")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that lets a module return NaN from a call on, in one data type."""

    def install(module: str, *, call: int, dtype: str = "") -> None:
        load, count = loading.loaded_model, [0]

        @contextmanager
        def broken(*arguments: Any, **options: Any) -> Iterator[StableDiffusion]:
            count[0] = 0
            with load(*arguments, **options) as model:
                network, _, path = module.partition(".")

                def spoil(_module: object, _inputs: object, output: torch.Tensor) -> torch.Tensor:
                    count[0] += 1
                    return output * torch.nan if count[0] >= call and dtype in {"", options["dtype"]} else output

                handle = getattr(model, network).get_submodule(path).register_forward_hook(spoil)
                try:
                    yield model
                finally:
                    handle.remove()

        monkeypatch.setattr("tasks.models.safe_precision.loaded_model", broken)

    return install


def test_what_overflows_in_half_precision_is_computed_in_float32_and_noted(
    clip: Path, copy: Path, workspace: Path
) -> None:
    change_weights(copy / "unet", f"{OVERFLOWING}.weight", lambda weight: weight * 3e5)
    half = prepared(clip, copy, workspace, dtype="float16")
    single = prepared(clip, copy, workspace)
    for plan in (half, single):
        invert_keyframes.run(plan)
    (note,) = open_artifact(half[INVERT].ref).metadata["notes"]
    assert note.startswith("Inversion was computed in float32 from where float16 failed: the latents of step 1")
    assert f"the module unet.{OVERFLOWING} returns NaN or infinity in float16" in note
    assert np.array_equal(latents(half, INVERT), latents(single, INVERT))
    assert open_artifact(single[INVERT].ref).metadata["notes"] == []


def test_a_stage_that_fails_in_float32_names_step_and_module_and_leaves_nothing_complete(
    clip: Path, sd15: Path, tmp_path: Path, failing: Any
) -> None:
    plan = prepared(clip, sd15, tmp_path / "own")
    failing("unet.mid_block.resnets.0.conv1", call=2)
    with pytest.raises(NonFiniteError) as caught:
        invert_keyframes.run(plan)
    said = str(caught.value)
    assert "the latents of step 2 are not finite" in said
    assert "since the module unet.mid_block.resnets.0.conv1 returns NaN or infinity in float32" in said
    artifact = open_artifact(plan[INVERT].ref)
    assert not artifact.is_complete()
    assert error_kind(caught.value) == "input"


@pytest.mark.parametrize(
    "module",
    [
        "vae.decoder.conv_out",
        pytest.param("unet.conv_in", marks=pytest.mark.slow),
        pytest.param("text_encoder.final_layer_norm", marks=pytest.mark.slow),
    ],
)
def test_an_edit_that_fails_in_half_precision_alone_ends_in_float32(
    module: str, clip: Path, sd15: Path, workspace: Path, failing: Any
) -> None:
    plan = prepared(clip, sd15, workspace, dtype="bfloat16", prompt=module)
    invert_keyframes.run(plan)
    failing(module.replace("text_encoder.", f"text_encoder.{text_prefix(sd15)}"), call=1, dtype="bfloat16")
    edit_keyframes.run(plan)
    (note,) = open_artifact(plan[EDIT].ref).metadata["notes"]
    assert f"the module {module.partition('.')[0]}." in note
    assert "in bfloat16" in note
    assert np.isfinite(latents(plan, EDIT)).all()


def text_prefix(model: Path) -> str:
    names = load_file(model / "text_encoder" / "model.safetensors")
    return "text_model." if any(name.startswith("text_model.") for name in names) else ""


def test_weights_that_are_not_finite_are_named_before_anything_is_computed(
    clip: Path, copy: Path, workspace: Path
) -> None:
    change_weights(copy / "unet", "conv_out.bias", lambda bias: bias * torch.nan)
    plan = prepared(clip, copy, workspace)
    with pytest.raises(NonFiniteError, match=r"the weights conv_out\.bias of unet contain NaN or infinity in float32"):
        invert_keyframes.run(plan)
    assert not open_artifact(plan[INVERT].ref).is_complete()


@pytest.mark.slow
def test_weights_that_are_too_large_for_half_precision_are_used_in_float32(
    clip: Path, copy: Path, workspace: Path
) -> None:
    change_weights(copy / "unet", f"{OVERFLOWING}.weight", lambda weight: weight * 1e7)
    plan = prepared(clip, copy, workspace, dtype="float16")
    invert_keyframes.run(plan)
    (note,) = stored_notes_of(plan)
    assert f"the weights {OVERFLOWING}.weight of unet contain NaN or infinity in float16" in note


def stored_notes_of(plan: EditPlan) -> list[str]:
    return list(open_artifact(plan[INVERT].ref).metadata["notes"])


def test_frames_that_come_out_in_one_colour_are_noted_in_the_report(
    clip: Path, sd15: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = prepared(clip, sd15, workspace, prompt="black")
    for stage in (invert_keyframes, edit_keyframes):
        stage.run(plan)
    monkeypatch.setattr("tasks.propagate.propagate_interval", lambda *a, **o: propagate_interval(*a, **o) * 0)
    run_propagation(plan)
    encode_edit.run(plan)
    assess_edit.run(plan)
    notes = open_artifact(plan[ASSESS].ref).read_json(REPORT)["notes"]
    last = "Of 3 edited frames 3 came out in one colour, where the source's do not: the first is frame 0, the last"
    assert notes[-1].startswith(last)
    assert notes[:-1] == open_artifact(plan[DECODE].ref).metadata["notes"]


def test_a_frame_is_noted_only_where_the_sources_has_several_colours() -> None:
    flat, other = np.zeros((4, 4, 3), np.uint8), np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    found: list[int] = []
    pairs = [(3, (flat, flat)), (4, (other, other)), (5, (other, flat)), (6, (flat, other))]
    assert len(list(noting_uniform(pairs, found))) == 4
    assert found == [5]
    assert uniform_notes(found, total=4) == [
        "Of 4 edited frames 1 came out in one colour, where the source's do not: frame 5."
    ]
    assert uniform_notes([], total=4) == []
