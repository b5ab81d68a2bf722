"""Whole inversions and edits on random weights: UNet evaluations, and the stages' time over that of their calls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, Final, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from tasks.evaluation.bench._random_models import random_warps
from tasks.evaluation.bench._unet_calls import UNetCalls, seconds_of
from tasks.evaluation.bench.measurements import Measurement, without_target
from tasks.evaluation.comparisons.comparison import Measure
from wave_ops.diffusion import StableDiffusion, decode_latents, encode_frames
from wave_ops.editing import edit
from wave_ops.feature_warping import PairWarps
from wave_ops.inversion import invert, step_orders
from wave_ops.settings import EditingSettings, InversionSettings, WarpSchedule

__all__ = ["Run", "Steps", "measure_evaluations", "measure_stages", "measure_whole_edit"]

_DEFAULT: Final = Measure(name="UNet evaluations per keyframe", unit="", better="lower", target=175.0)
_UNGUIDED: Final = Measure(name="UNet evaluations per keyframe, guidance 1", unit="", better="lower", target=125.0)
_INVERSION: Final = Measure(name="inversion over its UNet calls", unit="", better="lower", target=1.10)
_EDIT: Final = Measure(name="edit over its UNet calls", unit="", better="lower", target=1.10)
_WHOLE: Final = Measure(name="inversion and edit", unit="s", better="lower", target=5.0)
_SINGLY: Final = Measure(name="one keyframe at a time over all together", unit="", better="higher", target=8.0)
_PEAK: Final = Measure(name="peak GPU memory", unit="MB", better="lower", target=24 * 1024.0)
_STEPS: Final = 50


class Steps(Protocol):
    """Latents of all steps; a list of tensors is one."""

    def append(self, x: Tensor, /) -> None:
        """Add the latents of the next step."""

    def __getitem__(self, step_index: int, /) -> Tensor:
        """Return those of a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One inversion and edit of random keyframes."""

    model: StableDiffusion
    keyframes: int
    side: int
    """Height and width of the latents."""
    steps: int
    guidance_scale: float = 12.5
    keyframe_batch: int | None = None
    injection_fraction: float = 0.5

    @property
    def name(self) -> str:
        """What is measured, for tables."""
        pixels = self.side * self.model.vae_factor
        control = ", ControlNet" if self.model.controlnet is not None else ""
        return f"{self.keyframes} keyframes of {pixels}x{pixels}, {self.steps} + {self.steps} steps{control}"

    def latents(self) -> Tensor:
        """Draw x_0."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(self.keyframes, 4, self.side, self.side, generator=generator)

    def warps(self) -> PairWarps | None:
        """Draw flows and masks at the frames' size."""
        pixels = self.side * self.model.vae_factor
        return random_warps(self.keyframes, (pixels, pixels))

    def invert(self, latents: Tensor, warps: PairWarps | None, *, trajectory: Steps | None = None) -> Steps:
        """Invert; append x_0 to x_S to the trajectory, a new one by default, and return it."""
        trajectory = [] if trajectory is None else trajectory
        trajectory.append(latents)
        invert(
            self.model,
            latents,
            source_prompt="a red star",
            warps=warps,
            settings=InversionSettings(schedule=WarpSchedule(steps=self.steps)),
            keyframe_batch=self.keyframe_batch,
            callback=lambda _, x: trajectory.append(x.cpu()),
        )
        return trajectory

    def edit(self, trajectory: Steps, warps: PairWarps | None, *, copies: Steps | None = None) -> Tensor:
        """Edit; append every step to the copies, as a stage stores it, and return the edited x_0."""
        schedule = WarpSchedule(steps=self.steps)
        pixels = self.side * self.model.vae_factor
        copies = [] if copies is None else copies
        return edit(
            self.model,
            trajectory.__getitem__,
            prompt="a blue star",
            source_prompt="a red star",
            orders=step_orders(self.keyframes, InversionSettings(schedule=schedule)),
            warps=warps,
            settings=EditingSettings(
                schedule=schedule, guidance_scale=self.guidance_scale, injection_fraction=self.injection_fraction
            ),
            edges=torch.ones(self.keyframes, 3, pixels, pixels) if self.model.controlnet is not None else None,
            keyframe_batch=self.keyframe_batch,
            callback=lambda _, x: copies.append(x.cpu()),
        )

    def __call__(self) -> None:
        """Encode, invert, edit and decode."""
        pixels = self.side * self.model.vae_factor
        warps = self.warps()
        latents = encode_frames(self.model, np.zeros((self.keyframes, pixels, pixels, 3), np.uint8))
        decode_latents(self.model, self.edit(self.invert(latents.cpu(), warps), warps))


def measure_evaluations(model: StableDiffusion) -> Iterator[Measurement]:
    """Count how many times each keyframe passes through the UNet in 50 + 50 steps."""
    for measure, guidance_scale in ((_DEFAULT, 12.5), (_UNGUIDED, 1.0)):
        run = Run(model=model, keyframes=2, side=8, steps=_STEPS, guidance_scale=guidance_scale)
        warps, passed = run.warps(), 0

        def count(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            nonlocal passed
            passed += len(args[0])

        hook = model.unet.register_forward_pre_hook(count)
        try:
            run.edit(run.invert(run.latents(), warps), warps)
        finally:
            hook.remove()
        subject = f"{_STEPS} + {_STEPS} steps"
        yield Measurement(measure=measure, subject=subject, value=passed / run.keyframes)


def measure_stages(run: Run, *, check_target: bool) -> Iterator[Measurement]:
    """Compare an inversion and an edit with the bare UNet calls that they make, with keys as long as theirs."""
    warps = run.warps()
    trajectory: list[Tensor] = []
    stage = {}

    def invert_all() -> None:
        trajectory.clear()
        run.invert(run.latents(), warps, trajectory=trajectory)

    invert_all()  # first runs are not counted
    run.edit(trajectory, warps)
    stage["inversion"] = seconds_of(invert_all, run.model.device)
    stage["edit"] = seconds_of(lambda: run.edit(trajectory, warps), run.model.device)
    calls = UNetCalls(model=run.model, keyframes=run.keyframes, side=run.side, repeats=1)
    schedule = WarpSchedule(steps=run.steps)
    settings = EditingSettings(schedule=schedule)
    inversions = [(1, False)] * run.steps
    edits = [(3 if settings.injects(j) else 2, j in schedule.warped_steps("editing")) for j in range(run.steps, 0, -1)]
    bare = {}
    for name, steps in (("inversion", inversions), ("edit", edits)):
        _bare(calls, steps)
        bare[name] = seconds_of(partial(_bare, calls, steps), run.model.device)
    for measure, name in ((_INVERSION, "inversion"), (_EDIT, "edit")):
        yield Measurement(
            measure=measure if check_target else without_target(measure),
            subject=run.name,
            value=stage[name] / bare[name],
        )


@torch.inference_mode()
def _bare(calls: UNetCalls, steps: list[tuple[int, bool]]) -> None:
    """Call the UNet once for each step, with some branches, and long keys or not."""
    for branches, long in steps:
        calls.plain(branches, long=long)


def measure_whole_edit(run: Run, *, singly: bool, check_target: bool) -> Iterator[Measurement]:
    """Measure encoding, inversion, edit and decoding by the wall, and on a GPU the peak memory.

    Args:
        run: what is edited.
        singly: whether the same is done with one keyframe in each UNet call, for comparison.
        check_target: whether the targets apply, which are set for a GPU.
    """
    cuda = run.model.device.type == "cuda"

    def measured(measure: Measure, value: float) -> Measurement:
        return Measurement(measure=measure if check_target else without_target(measure), subject=run.name, value=value)

    if cuda:
        run()
        torch.cuda.reset_peak_memory_stats(run.model.device)
    seconds = _wall(run)
    yield measured(_WHOLE, seconds)
    if cuda:
        yield measured(_PEAK, torch.cuda.max_memory_allocated(run.model.device) / 2**20)
    if singly:
        one = Run(model=run.model, keyframes=run.keyframes, side=run.side, steps=run.steps, keyframe_batch=1)
        yield measured(_SINGLY, _wall(one) / seconds)


def _wall(work: Any) -> float:
    started = perf_counter()
    work()  # ends with pixels in main memory: nothing is left in the device's queue
    return perf_counter() - started
