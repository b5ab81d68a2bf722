"""Hooks on a UNet: feature warping, extended attention and injection. No other module touches a UNet's layers.

All of them are forward hooks on public submodules, which torch removes completely:

- a ResNet's feature after the first norm and activation is the input of `conv1`;
- the normalised input of self-attention is the input of `attn1`;
- queries, keys and values are the outputs of `attn1.to_q`, `attn1.to_k` and `attn1.to_v`: longer keys and values extend
  attention, and as each token is projected by itself, those of the anchor frame are computed once;
- the anchor frame, which attends to itself alone, is computed before the others: it is left out of the input of `attn1`
  and put into its output;
- a ResNet's output before the skip connection is added is the output of `conv2`.

What is replaced by the source branch's is not computed for the other branches: a module's input is cut to the source
branch, and its output repeated.

Source: WAVE sec. 4 (warping) and 6 (extended attention; injection after plug-and-play, Tumanyan et al. 2023).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from wave_ops.cuda_graphs import CudaGraphs, Inputs
from wave_ops.diffusion import batch_slices
from wave_ops.errors import WaveOpsError
from wave_ops.feature_warping import GridWarps, PairWarps, gather_map, gather_positions
from wave_ops.settings import Anchor
from wave_ops.sites import Sites

__all__ = [
    "Anchor",
    "FeatureSession",
    "FeatureStep",
    "compile_blocks",
    "injected",
    "is_out_of_memory",
    "uncompile_blocks",
    "within_memory",
]

T = TypeVar("T")
_LOG = logging.getLogger(__name__)
_COMPILABLE: Final = ("BasicTransformerBlock", "ResnetBlock2D")
_VARIANTS: Final = 512
"""Compiled forms that the blocks of one class may have: by shape, and by what they exchange."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureStep:
    """One step of all keyframes: their order, and which features are exchanged between frames and branches."""

    order: tuple[int, ...]
    """Keyframe indices, in the order in which features are warped."""
    branches: int = 1
    """Copies of the keyframes in one UNet batch."""
    warping: bool = False
    """Warp features along the order."""
    extending: bool = False
    """Extend keys and values of self-attention by those of the anchor frame."""
    injecting: bool = False
    """Replace queries and keys of the other branches by those of the first, the source branch."""
    injecting_features: bool = False
    """Replace the outputs of ResNets likewise."""


@dataclass(slots=True)
class FeatureSession:
    """The state that the hooks of one UNet read: the current step, and the keyframes of the current batch.

    Convention:
        A batch is (branch frame), branches outermost, frames in the order of the step.
    """

    warps: PairWarps | None
    """Flows and masks of the keyframe pairs; None switches warping off."""
    anchor: Anchor = "order"
    """The frame that extends attention: the first one of the order, or the first one in time."""
    keyframe_batch: int | None = None
    """Keyframes in one UNet batch; None for all. Changes memory, not the result."""
    graphs: CudaGraphs | None = None
    """Records the calls of steps that are one batch; None launches every kernel by itself."""
    _device: torch.device | None = None
    _levels: int = 0
    """Grids on which the UNet computes, from that of the latents on."""
    _step: FeatureStep = field(default_factory=lambda: FeatureStep(order=()))
    _whole: bool = False
    """Whether the step is one batch."""
    _more_follow: bool = False
    """Whether another batch of the step follows."""
    _has_anchor: bool = False
    """Whether the anchor is in the batch: in the first of several."""
    _anchor_place: int = 0
    """The anchor's place in the batch; the first batch of several begins with it."""
    _places: dict[tuple[int, ...], Tensor] = field(default_factory=dict)
    """Orders on the device."""
    _grids: dict[tuple[int, int], GridWarps] = field(default_factory=dict)
    _maps: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    """By grid, the source of each position of the batch."""
    _sizes: dict[int, tuple[int, int]] = field(default_factory=dict)
    _last: dict[str, Tensor] = field(default_factory=dict)
    """By site, the fused feature of the last frame of the batch before, (branch position channel)."""
    _anchors: dict[str, Tensor] = field(default_factory=dict)
    """By projection, the anchor frame's keys or values, (branch position channel), for the other frames."""
    _attended: dict[str, Tensor] = field(default_factory=dict)
    """By site, the anchor frame's output of self-attention, (branch position channel)."""

    def enter(self, unet: Any) -> None:
        """Note where the UNet computes, and on how many grids."""
        self._device, self._levels = torch.device(unet.device), len(unet.config.block_out_channels)

    def prepare(self, orders: Iterable[Sequence[int]], *, latent_size: tuple[int, int]) -> None:
        """Copy to the device what steps need, so that a step copies nothing; without, the first step of each does.

        Args:
            orders: of the steps that follow.
            latent_size: (height, width) of the latents.
        """
        distinct = dict.fromkeys(tuple(order) for order in orders)
        table = torch.tensor(list(distinct)).to(self._device)
        self._places |= dict(zip(distinct, table, strict=True))
        if self.warps is not None and table.shape[-1] > 1:
            self._resize_warps(latent_size)

    def _resize_warps(self, latent_size: tuple[int, int]) -> None:
        # They outlive the step, since flows do not change
        for size in list(_grid_sizes(latent_size).values())[: self._levels]:
            if size not in self._grids and self.warps is not None:
                self._grids[size] = self.warps.at(size, device=self._device)

    def batches(self, step: FeatureStep, *, latent_size: tuple[int, int]) -> Iterator[Int[Tensor, " frame"]]:
        """Yield the keyframe indices of each UNet batch of a step; run the UNet on a batch before taking the next.

        The hooks act only in between: after the last batch, the UNet's output is that without hooks. All maps of the
        step are built before its first batch.

        Args:
            step: the order and the active exchanges of features.
            latent_size: (height, width) of the latents.

        Raises:
            WaveOpsError: the step takes several batches, and attention is extended by the first frame in time: earlier
                batches would need its features, which may be warped from their own.
        """
        several = len(step.order) > 1  # a single keyframe has no pair, and attends to itself without extension
        self._step = replace(
            step,
            warping=step.warping and several and self.warps is not None,
            extending=step.extending and several,
        )
        in_time = self._step.extending and self.anchor == "time"
        self._anchor_place = step.order.index(min(step.order)) if in_time else 0
        self._sizes = _grid_sizes(latent_size)
        try:
            slices = self._slices()
            self._whole = len(slices) == 1
            if self._step.warping:
                self._resize_warps(latent_size)
            maps = [self._step_maps(batch) for batch in slices]
            places = self._places.get(step.order)
            places = torch.tensor(step.order, device=self._device) if places is None else places
            for batch, self._maps in zip(slices, maps, strict=True):
                self._has_anchor, self._more_follow = batch.start == 0, batch.stop < len(step.order)
                yield places[batch]
        finally:
            self._step = FeatureStep(order=())
            self._maps = {}
            self._last.clear()
            self._anchors.clear()
            self._attended.clear()

    def predict(self, compute: Callable[[Inputs], Tensor], inputs: Inputs, *, variant: Hashable = None) -> Tensor:
        """Compute the UNet's output for the current batch, or replay the recorded call of an earlier step.

        Args:
            compute: calls the UNet with the inputs.
            inputs: whatever differs between two steps with the same exchanges of features.
            variant: what else the call depends on.

        Returns:
            What `compute` returns; valid until the next call.
        """
        if self.graphs is None or not self._whole:
            return compute(inputs)
        key = (replace(self._step, order=()), self._anchor_place, variant)

        def with_maps(given: Inputs) -> Tensor:
            self._maps = given["maps"]
            return compute(given["inputs"])

        return self.graphs(key, with_maps, {"maps": self._maps, "inputs": inputs})

    def _step_maps(self, batch: slice) -> dict[tuple[int, int], Tensor]:
        if not self._step.warping:
            return {}
        order = self._step.order
        previous = order[batch.start - 1] if batch.start > 0 else None
        sizes = list(self._sizes.values())[: self._levels]
        return {size: gather_map(order[batch], self._grids[size], previous=previous) for size in sizes}

    def _slices(self) -> list[slice]:
        slices = list(batch_slices(len(self._step.order), self.keyframe_batch))
        if len(slices) > 1 and self._step.extending and self.anchor == "time":
            raise WaveOpsError(
                f"attention extended by the first frame in time needs all {len(self._step.order)} keyframes in one "
                f"batch, got batches of {self.keyframe_batch}: set no keyframe batch, or the anchor to the order"
            )
        return slices

    def warp_resnet(self, site: str, _: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """Warp the input of a ResNet's first convolution (a forward pre-hook)."""
        if not self._step.warping:
            return None
        height, width = args[0].shape[-2:]
        features = rearrange(args[0], "(b f) c h w -> b f (h w) c", b=self._step.branches)
        fused = self._fuse(site, features, (height, width))
        return (rearrange(fused, "b f (h w) c -> (b f) c h w", h=height), *args[1:])

    def warp_attention(self, site: str, _: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Warp the input of a self-attention, so that queries, keys and values are tied (a forward pre-hook)."""
        if not self._step.warping:
            return None
        features = rearrange(args[0], "(b f) n c -> b f n c", b=self._step.branches)
        fused = self._fuse(site, features, self._sizes[features.shape[2]])
        return (rearrange(fused, "b f n c -> (b f) n c"), *args[1:])

    def enter_attention(self, site: str, module: Any, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Compute the anchor frame's self-attention, and leave that of the other frames (a forward pre-hook).

        With its own tokens as keys twice it would have the same output, as a softmax-weighted mean, for twice the time.
        """
        if not (self._step.extending and self._has_anchor):
            return None
        self._forget_anchor(site)
        features = rearrange(args[0], "(b f) n c -> b f n c", b=self._step.branches)
        if features.shape[1] == 1:
            return None
        place = self._anchor_place
        self._attended[site] = module.processor(module, features[:, place])
        others = torch.cat([features[:, :place], features[:, place + 1 :]], dim=1)
        return (rearrange(others, "b f n c -> (b f) n c"), *args[1:])

    def leave_attention(self, site: str, _: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        """Put the anchor frame's output of self-attention in its place among the others (a forward hook)."""
        anchor = self._attended.pop(site, None)
        if anchor is None:
            return None
        if not self._more_follow:
            self._forget_anchor(site)
        others, place = rearrange(output, "(b f) n c -> b f n c", b=self._step.branches), self._anchor_place
        joined = torch.cat([others[:, :place], anchor[:, None], others[:, place:]], dim=1)
        return rearrange(joined, "b f n c -> (b f) n c")

    def _forget_anchor(self, site: str) -> None:
        for layer in ("to_k", "to_v"):
            self._anchors.pop(f"{site}.{layer}", None)

    def enter_projection(self, _: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Project queries or keys of the source branch alone, where all branches take them (a forward pre-hook)."""
        return (self._source(args[0]), *args[1:]) if self._step.injecting else None

    def leave_projection(
        self, name: str, _: nn.Module, args: tuple[Any, ...], output: Tensor, *, inject: bool, extend: bool
    ) -> Tensor | None:
        """Extend keys or values by the anchor frame's, and inject the source branch's (a forward hook)."""
        injecting, extending = inject and self._step.injecting, extend and self._step.extending
        if not (injecting or extending):
            return None
        if extending:
            output = self._extend(name, output, branches=1 if injecting else self._step.branches)
        return self._injected(output) if injecting else output

    def enter_resnet(self, _: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Compute a ResNet's convolutions of the source branch alone, where it is injected (a forward pre-hook)."""
        return (self._source(args[0]), *args[1:]) if self._step.injecting_features else None

    def embed_time(self, _: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        """Cut a ResNet's time embedding to the source branch, which alone it is added to then (a forward hook)."""
        return self._source(output) if self._step.injecting_features else None

    def leave_resnet(self, _: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        """Give every branch the source branch's output of a ResNet, before the skip connection (a forward hook)."""
        return self._injected(output) if self._step.injecting_features else None

    def _source(self, tensor: Tensor) -> Tensor:
        return tensor[: len(tensor) // self._step.branches]

    def _injected(self, source: Tensor) -> Tensor:
        return source.repeat(self._step.branches, *[1] * (source.ndim - 1))

    def _fuse(
        self, site: str, features: Float[Tensor, "branch frame position channel"], size: tuple[int, int]
    ) -> Float[Tensor, "branch frame position channel"]:
        """Warp along the order."""
        # The UNet computes earlier batches only once, so each site stores the feature that the next one needs
        last = self._last.get(site)
        joined = features if last is None else torch.cat([last[:, None], features], dim=1)
        fused = gather_positions(joined, self._maps[size])
        if self._more_follow:
            self._last[site] = fused[:, -1].clone()  # a view would keep all features of the batch
        return fused

    def _extend(self, name: str, projected: Tensor, *, branches: int) -> Tensor:
        """Put the anchor frame's keys or values before each frame's own; the anchor alone keeps its own."""
        own = rearrange(projected, "(b f) n c -> b f n c", b=branches)
        anchor = self._anchors.get(name)
        if anchor is None:
            self._anchors[name] = own[:, 0]
            return projected
        extended = torch.cat([anchor[:, None].expand_as(own), own], dim=2)
        return rearrange(extended, "b f n c -> (b f) n c")


def _grid_sizes(latent_size: tuple[int, int]) -> dict[int, tuple[int, int]]:
    """Return the feature grids (height, width) by number of positions.

    Attention sees positions without their grid. Every level halves both sides, rounding up, so no two have one number.
    """
    sizes, (height, width) = {}, latent_size
    while True:
        sizes[height * width] = (height, width)
        if height * width == 1:
            return sizes
        height, width = (height + 1) // 2, (width + 1) // 2


def within_memory(
    session: FeatureSession, keyframes: int, compute: Callable[[], T], *, halved: Callable[[int], None] | None = None
) -> T:
    """Compute a step; where the device runs out of memory, halve the session's batch and compute the step again.

    Args:
        session: keeps the size that worked for the steps that follow.
        keyframes: of the step.
        compute: iterates the session's `batches`, and changes nothing before it returns.
        halved: receives each smaller size.

    Raises:
        OutOfMemoryError: torch's, if a single keyframe does not fit, or all must pass in one batch.
        RuntimeError: the same of main memory.
    """
    while True:
        size = min(session.keyframe_batch or keyframes, keyframes)
        try:
            return compute()
        except RuntimeError as error:
            recorded = is_out_of_memory(error) and session.graphs is not None and session.graphs.release()
            if not recorded and (not is_out_of_memory(error) or size == 1 or session.anchor == "time"):
                raise
        # After the handler, which would keep the failed step's tensors by the error's traceback
        torch.cuda.empty_cache()
        if recorded:
            _LOG.warning("The device ran out of memory; going on without recorded calls, which take as much again")
            continue
        session.keyframe_batch = (size + 1) // 2
        _LOG.warning(
            "The device ran out of memory with %d keyframes at a time; going on with %d", size, session.keyframe_batch
        )
        if halved is not None:
            halved(session.keyframe_batch)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether torch found no memory, on a device or in main memory, where its error is a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


@contextmanager
def injected(unet: nn.Module, session: FeatureSession, *, sites: Sites) -> Iterator[FeatureSession]:
    """Add a session's hooks to a UNet, and remove them on any exit; the UNet's output is then as before, bit for bit.

    Args:
        unet: a UNet2DConditionModel.
        session: acts on the UNet's calls while its `batches` are iterated.
        sites: the submodules to hook.

    Raises:
        WaveOpsError: the UNet was compiled with other sites.
    """
    session.enter(unet)
    compiled = _COMPILED.get(unet)
    if compiled is not None:
        if compiled.sites != sites:
            raise WaveOpsError("the UNet was compiled with other sites: compile it again")
        compiled.link.session = session
        try:
            yield session
        finally:
            compiled.link.session = _idle()
        return
    with ExitStack() as stack:
        _add_hooks(unet, _Link(session), sites, stack)
        yield session


def compile_blocks(unet: nn.Module, *, sites: Sites, **options: Any) -> None:
    """Compile the ResNets and transformer blocks of a UNet by torch.compile, with the hooks of a session inside.

    Each is compiled when it is first called, for each shape and each combination of exchanges, which takes a minute for
    Stable Diffusion 1.5. The hooks stay, and act on the session of `injected`. Values change as by rounding. Nothing
    happens where the UNet is compiled already.

    Args:
        unet: a UNet2DConditionModel.
        sites: those of all sessions that will use it.
        options: further arguments of `torch.compile`.
    """
    if unet in _COMPILED:
        return
    from torch._dynamo import config  # noqa: PLC0415  (takes seconds)

    # Blocks of one class share their compiled code, so that the guards must see whether hooks differ
    config.skip_nnmodule_hook_guards = False
    config.recompile_limit = max(config.recompile_limit, _VARIANTS)
    config.accumulated_recompile_limit = max(config.accumulated_recompile_limit, _VARIANTS)
    link, stack = _Link(_idle()), ExitStack()
    _add_hooks(unet, link, sites, stack)
    for block in _compilable(unet):
        block.compile(dynamic=False, **options)
    _COMPILED[unet] = _Compiled(sites=sites, link=link, hooks=stack)


def uncompile_blocks(unet: nn.Module) -> None:
    """Take back what `compile_blocks` did, if it did."""
    compiled = _COMPILED.pop(unet, None)
    if compiled is not None:
        compiled.hooks.close()
        for block in _compilable(unet):
            block._compiled_call_impl = None


def _compilable(unet: nn.Module) -> list[nn.Module]:
    return [module for module in unet.modules() if type(module).__name__ in _COMPILABLE]


class _Link:
    """Leads hooks to a session; those of a compiled UNet outlive it."""

    def __init__(self, session: FeatureSession) -> None:
        self.session = session

    def warp_resnet(self, site: str, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        return self.session.warp_resnet(site, module, args)

    def warp_attention(self, site: str, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        return self.session.warp_attention(site, module, args)

    def enter_attention(self, site: str, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        return self.session.enter_attention(site, module, args)

    def leave_attention(self, site: str, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        return self.session.leave_attention(site, module, args, output)

    def enter_projection(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        return self.session.enter_projection(module, args)

    def leave_projection(
        self, name: str, inject: bool, extend: bool, module: nn.Module, args: tuple[Any, ...], output: Tensor
    ) -> Tensor | None:
        return self.session.leave_projection(name, module, args, output, inject=inject, extend=extend)

    def enter_resnet(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        return self.session.enter_resnet(module, args)

    def embed_time(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        return self.session.embed_time(module, args, output)

    def leave_resnet(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        return self.session.leave_resnet(module, args, output)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compiled:
    """The hooks of a compiled UNet."""

    sites: Sites
    link: _Link
    hooks: ExitStack


_COMPILED: WeakKeyDictionary[nn.Module, _Compiled] = WeakKeyDictionary()


def _idle() -> FeatureSession:
    return FeatureSession(warps=None)


def _add_hooks(unet: nn.Module, link: _Link, sites: Sites, stack: ExitStack) -> None:
    """Add hooks that lead to a link's session; closing the stack removes them."""
    for name in sites.warp_resnets:
        conv1 = unet.get_submodule(f"{name}.conv1")
        stack.callback(conv1.register_forward_pre_hook(partial(link.warp_resnet, name)).remove)
    for name in sites.warp_attentions:
        attention = unet.get_submodule(name)
        stack.callback(attention.register_forward_pre_hook(partial(link.warp_attention, name)).remove)
    for name in sites.extend_attentions:
        attention = unet.get_submodule(name)
        # After the hook that warps, since the anchor's features are warped like all
        stack.callback(attention.register_forward_pre_hook(partial(link.enter_attention, name)).remove)
        stack.callback(attention.register_forward_hook(partial(link.leave_attention, name)).remove)
    for name, inject, extend in _projections(sites):
        projection = unet.get_submodule(name)
        if inject:
            stack.callback(projection.register_forward_pre_hook(link.enter_projection).remove)
        leave = partial(link.leave_projection, name, inject, extend)
        stack.callback(projection.register_forward_hook(leave).remove)
    for name in sites.inject_resnets:
        conv1, time_emb_proj, conv2 = (
            unet.get_submodule(f"{name}.{layer}") for layer in ("conv1", "time_emb_proj", "conv2")
        )
        # After the hook that warps, which needs all branches
        stack.callback(conv1.register_forward_pre_hook(link.enter_resnet).remove)
        stack.callback(time_emb_proj.register_forward_hook(link.embed_time).remove)
        stack.callback(conv2.register_forward_hook(link.leave_resnet).remove)


def _projections(sites: Sites) -> Iterator[tuple[str, bool, bool]]:
    """Yield the projections of self-attentions that are injected or extended, and whether they are either."""
    for name in dict.fromkeys((*sites.inject_attentions, *sites.extend_attentions)):
        injected, extended = name in sites.inject_attentions, name in sites.extend_attentions
        for layer, inject, extend in (
            ("to_q", injected, False),
            ("to_k", injected, extended),
            ("to_v", False, extended),
        ):
            if inject or extend:
                yield f"{name}.{layer}", inject, extend
