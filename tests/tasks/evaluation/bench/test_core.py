from __future__ import annotations

import pytest
import torch

from tasks.errors import TaskInputError
from tasks.evaluation.bench import _many_keyframes
from tasks.evaluation.bench._compiled_blocks import measure_compiled
from tasks.evaluation.bench._many_keyframes import measure_keyframes
from tasks.evaluation.bench._random_models import random_model
from tasks.evaluation.bench._unet_calls import UNetCalls, twice_as_long
from tasks.evaluation.bench._whole_stages import measure_evaluations
from tasks.evaluation.bench.core import BENCH
from tasks.evaluation.bench.measurements import BenchRequest, measurement_record, whole_numbers
from tests.wave_ops._hooks import has_hooks, recorded_inputs
from wave_ops import unet as unet_module


@pytest.fixture(scope="module")
def tiny():
    return random_model("tiny")


@pytest.fixture
def no_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the processes that measure memory: 100 MB for a batch, and 0.5 MB for each keyframe."""

    def probe(_module: str, keyframes: int, batch: int, _side: int, _steps: int) -> dict[str, float]:
        return {"before": 50, "peak": 50 + 100 * batch + 0.5 * keyframes, "seconds": 2.0 * keyframes}

    monkeypatch.setattr(_many_keyframes, "run_probe", probe)


@pytest.mark.usefixtures("no_children")
def test_memory_is_measured_for_each_number_of_keyframes_with_its_growth() -> None:
    measured = measure_keyframes((10, 210), batch=1, side=8, steps=2, check_target=True)
    records = {record["metric"]: record for record in (measurement_record("core", item) for item in measured)}
    assert records["peak over the loaded model/210 keyframes in batches of 1"]["value"] == 205
    growth = records["peak memory, most keyframes over fewest/10 to 210 keyframes"]
    assert growth["value"] == pytest.approx(255 / 155)
    assert growth["holds"] is False
    assert records["seconds per keyframe, most keyframes over fewest/10 to 210 keyframes"]["value"] == 1


def test_twice_as_long_keys_are_those_of_extended_self_attentions_alone(tiny) -> None:
    unet = tiny.unet
    extended, other = (
        unet.get_submodule(f"{block}.attentions.0.transformer_blocks.0.attn1.to_k")
        for block in ("up_blocks.3", "mid_block")
    )
    latents, context = torch.ones(1, 4, 8, 8), torch.ones(1, 77, 32)
    with recorded_inputs(extended) as long, recorded_inputs(other) as short, torch.inference_mode():
        with twice_as_long(unet):
            unet(latents, 1, encoder_hidden_states=context)
        unet(latents, 1, encoder_hidden_states=context)
    assert [call["0"].shape[1] for call in long] == [128, 64]
    assert [call["0"].shape[1] for call in short] == [1, 1]
    assert not has_hooks(unet)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_compiled_blocks_are_measured_and_taken_back(tiny) -> None:
    """Without a block to compile: torch cannot compile the shape checks of the tests."""
    calls = UNetCalls(model=tiny, keyframes=1, side=8, repeats=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unet_module, "_COMPILABLE", ())
        first, ratio = measure_compiled(calls, backend="eager")
    assert first.value > 0
    assert 0.1 < ratio.value < 10
    assert not has_hooks(tiny.unet)


@pytest.mark.slow
def test_evaluations_are_counted_by_keyframe(tiny) -> None:
    default, unguided = measure_evaluations(tiny)
    assert (default.value, unguided.value) == (175, 125)
    assert not has_hooks(tiny.unet)


def test_the_exact_configuration_has_the_parameters_of_stable_diffusion() -> None:
    model = random_model("full", device="meta", controlnet=True)
    counts = [sum(p.numel() for p in part.parameters()) for part in (model.unet, model.vae, model.text_encoder)]
    assert counts == [859_520_964, 83_653_863, 123_060_480]


@pytest.mark.slow
@pytest.mark.usefixtures("no_children")
def test_a_quick_bench_runs_from_end_to_end() -> None:
    measured = [item for section in BENCH.sections(BenchRequest(quick=True)) for item in section.measure()]
    records = [measurement_record(BENCH.name, item) for item in measured]
    metrics = [record["metric"].partition("/")[0] for record in records]
    assert {
        "UNet call with gathers over plain",
        "edit over its UNet calls",
        "inversion and edit",
        "interval CPU seconds",
    } < set(metrics)
    assert all(record["value"] > 0 for record in records)
    # A quick run has no targets but for what does not depend on the size
    assert {name for name, record in zip(metrics, records, strict=True) if record["target"]} == {
        "UNet evaluations per keyframe",
        "UNet evaluations per keyframe, guidance 1",
    }


def test_invalid_requests_are_refused_before_anything_runs() -> None:
    with pytest.raises(TaskInputError, match="at least 1, got 0"):
        BENCH.sections(BenchRequest(keyframes=(8, 0)))
    with pytest.raises(TaskInputError, match="such as 8,64,512, got '8;64'"):
        whole_numbers("8;64")
    assert whole_numbers("8,64") == (8, 64)
    assert whole_numbers("") == ()
