"""The cost of exchanging features: calls of a UNet with and without, interleaved in one run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter, process_time
from typing import Any, Final

import torch
from torch import Tensor, nn

from tasks.evaluation.bench._random_models import random_warps
from tasks.evaluation.bench.measurements import Measurement, without_target
from tasks.evaluation.comparisons.comparison import Measure
from wave_ops.cuda_graphs import CudaGraphs, Inputs
from wave_ops.diffusion import StableDiffusion
from wave_ops.sites import resolve_sites
from wave_ops.unet import FeatureSession, FeatureStep, injected

__all__ = ["UNetCalls", "interleaved", "measure_calls", "seconds_of", "twice_as_long"]

_GATHERS: Final = Measure(name="UNet call with gathers over plain", unit="", better="lower", target=1.03)
_EXTENDED: Final = Measure(
    name="UNet call with extended attention over twice as long keys", unit="", better="lower", target=1.05
)
_EXTENDED_PLAIN: Final = Measure(name="UNet call with extended attention over plain", unit="", better="lower")
_INJECTED: Final = Measure(
    name="UNet call of three branches with injection over three calls", unit="", better="lower", target=1.05
)
_RECORDED: Final = Measure(name="UNet call as a CUDA graph over plain", unit="", better="lower")
_SECONDS: Final = Measure(name="plain UNet call", unit="s", better="lower")
_TOKENS: Final = 77


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetCalls:
    """A UNet and the batch that it is called with: keyframes of square latents."""

    model: StableDiffusion
    keyframes: int
    side: int
    """Height and width of the latents."""
    repeats: int
    _graphs: CudaGraphs = field(default_factory=CudaGraphs)

    @property
    def name(self) -> str:
        """What is measured, for tables."""
        return f"{self.keyframes} keyframes, latents {self.side}x{self.side}"

    def plain(self, branches: int = 1, *, long: bool = False) -> Tensor:
        """Call the UNet on copies of all keyframes, as a recorded call where the model records them.

        Args:
            branches: copies of the keyframes.
            long: with keys and values of twice the length in the extended self-attentions.
        """
        with twice_as_long(self.model.unet) if long else nullcontext():
            if self.model.cuda_graphs:
                return self._graphs((branches, long), self.output, self.inputs(branches))
            return self.output(self.inputs(branches))

    def inputs(self, branches: int) -> Inputs:
        """Return the UNet's inputs of a call."""
        count, cross = branches * self.keyframes, self.model.unet.config.cross_attention_dim
        return {
            "latents": self._random(count, 4, self.side, self.side),
            "timestep": torch.full((), 500, device=self.model.device),
            "context": self._random(count, _TOKENS, cross),
        }

    def output(self, given: Inputs) -> Tensor:
        """Call the UNet."""
        unet = self.model.unet
        output: Tensor = unet(given["latents"], given["timestep"], encoder_hidden_states=given["context"]).sample
        return output

    def _random(self, *shape: int) -> Tensor:
        return torch.randn(*shape, device=self.model.device, dtype=self.model.dtype)


def measure_calls(calls: UNetCalls, *, check_target: bool) -> Iterator[Measurement]:
    """Compare calls with feature warping, extended attention and injection with calls without.

    Args:
        calls: the UNet and its batch.
        check_target: whether the targets apply, which are set for at least half of Stable Diffusion's width.
    """
    session = FeatureSession(
        warps=random_warps(calls.keyframes, (8 * calls.side, 8 * calls.side)),
        graphs=CudaGraphs() if calls.model.cuda_graphs else None,
    )

    def measured(measure: Measure, value: float) -> Measurement:
        return Measurement(
            measure=measure if check_target else without_target(measure), subject=calls.name, value=value
        )

    run = partial(interleaved, device=calls.model.device, repeats=calls.repeats)
    if calls.model.cuda_graphs:
        launched, recorded = run(lambda: calls.output(calls.inputs(1)), calls.plain)
        yield measured(_RECORDED, recorded / launched)
    plain, gathers = run(calls.plain, partial(_with, calls, session, warping=True))
    yield measured(_SECONDS, plain)
    yield measured(_GATHERS, gathers / plain)
    plain, longer, extended = run(
        calls.plain, partial(calls.plain, long=True), partial(_with, calls, session, warping=True, extending=True)
    )
    yield measured(_EXTENDED_PLAIN, extended / plain)
    yield measured(_EXTENDED, extended / longer)
    acting = {"warping": True, "extending": True, "injecting": True, "injecting_features": True}
    longer, injecting = run(partial(calls.plain, long=True), partial(_with, calls, session, branches=3, **acting))
    yield measured(_INJECTED, injecting / (3 * longer))


@torch.inference_mode()
def interleaved(*work: Callable[[], Any], device: torch.device, repeats: int) -> list[float]:
    """Return the minimum seconds of each function, called in turn after first rounds that are not counted."""
    for each in work * 2:  # a call is recorded the second time
        each()
    rounds = [[seconds_of(each, device) for each in work] for _ in range(repeats)]
    return [min(times) for times in zip(*rounds, strict=True)]


def seconds_of(work: Callable[[], Any], device: torch.device) -> float:
    """Return the seconds of a call: CPU seconds of all threads, or wall seconds where a GPU computes."""
    if device.type != "cuda":
        started = process_time()
        work()
        return process_time() - started
    torch.cuda.synchronize(device)
    started = perf_counter()
    work()
    torch.cuda.synchronize(device)
    return perf_counter() - started


def _with(calls: UNetCalls, session: FeatureSession, *, branches: int = 1, **acting: bool) -> None:
    """Call the UNet with hooks, in the step of one order."""
    size = (calls.side, calls.side)
    step = FeatureStep(order=tuple(range(calls.keyframes)), branches=branches, **acting)
    with injected(calls.model.unet, session, sites=resolve_sites(calls.model.unet)):
        for _ in session.batches(step, latent_size=size):
            session.predict(calls.output, calls.inputs(branches))


@contextmanager
def twice_as_long(unet: nn.Module) -> Iterator[None]:
    """Give the extended self-attentions of a UNet keys and values of twice the length, by diffusers' own argument."""

    def extend(_: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, {**kwargs, "encoder_hidden_states": torch.cat([args[0], args[0]], dim=1)}

    with ExitStack() as stack:
        for name in resolve_sites(unet).extend_attentions:
            hook = unet.get_submodule(name).register_forward_pre_hook(extend, with_kwargs=True)
            stack.callback(hook.remove)
        yield
