"""The bench of the diffusion core: the cost of exchanging features, UNet evaluations, memory, and time on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Final

import torch

from tasks.errors import TaskInputError
from tasks.evaluation.bench._compiled_blocks import measure_compiled
from tasks.evaluation.bench._interval import measure_interval
from tasks.evaluation.bench._many_keyframes import measure_keyframes
from tasks.evaluation.bench._matmul import measure_matmul
from tasks.evaluation.bench._predicted_memory import measure_predictions
from tasks.evaluation.bench._random_models import ModelWidth, random_model
from tasks.evaluation.bench._scenes import drawn_interval
from tasks.evaluation.bench._unet_calls import UNetCalls, measure_calls
from tasks.evaluation.bench._whole_stages import Run, measure_evaluations, measure_stages, measure_whole_edit
from tasks.evaluation.bench.measurements import BenchRequest, Measurement, Section
from tasks.models.devices import choose_device
from wave_ops.diffusion import StableDiffusion

__all__ = ["BENCH", "CoreBench"]

_BATCH: Final = 8
"""Keyframes in one UNet call, where there are many."""
_KEYFRAMES: Final = (10, 20, 40, 80)
_QUICK_KEYFRAMES: Final = (8, 16)
_PREDICTED: Final = ((32, 4, 2), (48, 6, 3), (64, 2, 1))
_QUICK_PREDICTED: Final = ((16, 4, 2),)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scale:
    """What is measured on a device."""

    width: ModelWidth
    side: int
    """Height and width of the latents."""
    keyframes: int
    repeats: int
    steps: int
    """Steps of a whole edit."""
    many: int
    """Keyframes of the largest edit."""
    interval: tuple[int, tuple[int, int]]
    """Frames from keyframe to keyframe that are propagated, and their height and width."""


_QUICK: Final = _Scale(width="tiny", side=8, keyframes=3, repeats=1, steps=2, many=4, interval=(2, (32, 32)))
_CPU: Final = _Scale(width="half", side=32, keyframes=6, repeats=3, steps=2, many=8, interval=(8, (128, 128)))
_CUDA: Final = _Scale(width="full", side=64, keyframes=6, repeats=10, steps=50, many=32, interval=(8, (512, 512)))


class CoreBench:
    """Calls of a UNet, whole stages, many keyframes, and the sizes that matter on a GPU."""

    name = "core"
    title = "What do inversion and editing cost over the UNet calls that they must make, in time and memory?"

    def sections(self, request: BenchRequest) -> tuple[Section, ...]:
        """Check the request and return the sections to measure.

        Raises:
            TaskInputError: if the device is not there, or no number of keyframes is at least 1.
        """
        device = choose_device(request.device, setting="--device")
        cuda = device.startswith("cuda")
        scale = _QUICK if request.quick else _CUDA if cuda else _CPU
        counts = _counts(request)
        model = cache(partial(_model, scale, device))
        check_target, on_gpu = not request.quick, cuda and not request.quick

        def whole(*, keyframes: int, controlnet: bool, singly: bool) -> Iterator[Measurement]:
            run = Run(model=model(controlnet), keyframes=keyframes, side=scale.side, steps=scale.steps)
            return measure_whole_edit(run, singly=singly, check_target=on_gpu)

        return (
            _section("UNet calls", lambda: measure_calls(_calls(scale, model(False)), check_target=check_target)),
            _section("matmul", lambda: measure_matmul(_calls(scale, model(False)), check_target=on_gpu)),
            _section("evaluations", lambda: measure_evaluations(random_model("tiny", device=device))),
            _section("stages", lambda: measure_stages(_run(scale, model(False)), check_target=check_target)),
            *(
                _section(title, partial(whole, keyframes=count, controlnet=control, singly=singly))
                for title, count, control, singly in (
                    ("a whole edit", scale.keyframes, False, True),
                    ("a whole edit with a ControlNet", scale.keyframes, True, False),
                    ("many keyframes in one batch", scale.many, False, False),
                )
            ),
            _section(
                "memory",
                partial(
                    measure_keyframes,
                    counts,
                    batch=_BATCH,
                    side=8 if request.quick else 16,
                    steps=2,
                    check_target=check_target,
                ),
            ),
            _section(
                "predicted memory",
                partial(
                    measure_predictions,
                    _QUICK_PREDICTED if request.quick else _PREDICTED,
                    check_target=check_target,
                ),
            ),
            _section("an interval", partial(_interval, scale, device, check_target=on_gpu)),
            *((_section("compiled blocks", lambda: measure_compiled(_calls(scale, model(False)))),) if on_gpu else ()),
        )


def _section(title: str, measure: Callable[[], Iterator[Measurement]]) -> Section:
    return Section(title=title, measure=measure)


def _counts(request: BenchRequest) -> tuple[int, ...]:
    counts = request.keyframes or (_QUICK_KEYFRAMES if request.quick else _KEYFRAMES)
    if min(counts) < 1:
        raise TaskInputError(f"Expected numbers of keyframes of at least 1, got {min(counts)}.")
    return tuple(sorted(set(counts)))


def _model(scale: _Scale, device: str, controlnet: bool) -> StableDiffusion:
    dtype = torch.float16 if device.startswith("cuda") else torch.float32
    return random_model(scale.width, device=device, dtype=dtype, controlnet=controlnet)


def _calls(scale: _Scale, model: StableDiffusion) -> UNetCalls:
    return UNetCalls(model=model, keyframes=scale.keyframes, side=scale.side, repeats=scale.repeats)


def _run(scale: _Scale, model: StableDiffusion) -> Run:
    return Run(model=model, keyframes=scale.keyframes, side=scale.side, steps=min(scale.steps, 10))


def _interval(scale: _Scale, device: str, *, check_target: bool) -> Iterator[Measurement]:
    interval, _ = drawn_interval(*scale.interval)
    frames, height, width, _ = interval.frames.shape
    name = f"{frames - 1} frames of {width}x{height}"
    return measure_interval(interval, devices=(device,), name=name, check_target=check_target)


BENCH = CoreBench()
