"""The submodules of a UNet at which features are warped, extended or injected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any

from wave_ops.errors import WaveOpsError

__all__ = ["Sites", "resolve_sites", "with_block"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sites:
    """Names of the UNet's submodules at which features are warped, extended or injected."""

    warp_resnets: tuple[str, ...]
    """ResNet blocks that warp the input of `conv1`."""
    warp_attentions: tuple[str, ...]
    """Self-attentions that warp their input."""
    extend_attentions: tuple[str, ...]
    """Self-attentions that extend keys and values by the anchor frame's."""
    inject_attentions: tuple[str, ...]
    """Self-attentions that inject the source branch's queries and keys."""
    inject_resnets: tuple[str, ...]
    """ResNet blocks that inject the source branch's output before the skip connection."""


def resolve_sites(unet: Any, *, sites: Mapping[str, Sequence[str]] | None = None) -> Sites:
    """Find a UNet's sites by the rule of the method, or check those that a checkpoint names.

    Source: WAVE sec. 4 and 6. Warped and extended: down blocks with attention and the last two up blocks (SD 1.x: down
    0, 1, 2 and up 2, 3). Injected: queries and keys in the second up block from its second transformer on and in all
    later up blocks; the output of the second up block's second ResNet.

    Args:
        unet: a UNet2DConditionModel.
        sites: names by field of `Sites`; without `extend_attentions`, the warped attentions are extended. None for the
            rule.

    Raises:
        WaveOpsError: a field is missing or unknown, or the UNet has no submodule of a name.
    """
    if sites is None:
        return _sites_by_rule(unet)
    kinds = {kind.name for kind in fields(Sites)}
    if kinds - set(sites) == {"extend_attentions"}:
        sites = {**sites, "extend_attentions": sites["warp_attentions"]}
    if set(sites) != kinds:
        raise WaveOpsError(f"expected sites of {', '.join(sorted(kinds))}, got {', '.join(sorted(sites)) or 'none'}")
    modules = dict(unet.named_modules())
    for name in (name for names in sites.values() for name in names):
        if name not in modules:
            near = ", ".join(get_close_matches(name, modules, n=3)) or "none of a similar name"
            raise WaveOpsError(f"the UNet has no module {name!r}; it has {near}")
    return Sites(**{kind: tuple(names) for kind, names in sites.items()})


def with_block(unet: Any, sites: Sites, *, block: str) -> Sites:
    """Return sites that also warp all ResNets and self-attentions of a block, and extend the latter.

    Args:
        unet: the UNet that the sites belong to.
        sites: the sites to add to; those of the block that it contains already are not repeated.
        block: such as "up_blocks.1".

    Raises:
        WaveOpsError: the UNet has no such block.
    """
    known = [f"{side}_blocks.{i}" for side in ("down", "up") for i in range(len(unet.get_submodule(f"{side}_blocks")))]
    if block not in known:
        raise WaveOpsError(f"the UNet has no block {block!r}; it has {', '.join(known)}")
    attentions = _attentions(unet, block)
    return replace(
        sites,
        warp_resnets=tuple(dict.fromkeys((*sites.warp_resnets, *_resnets(unet, block)))),
        warp_attentions=tuple(dict.fromkeys((*sites.warp_attentions, *attentions))),
        extend_attentions=tuple(dict.fromkeys((*sites.extend_attentions, *attentions))),
    )


def _sites_by_rule(unet: Any) -> Sites:
    down = [f"down_blocks.{i}" for i in range(len(unet.down_blocks))]
    up = [f"up_blocks.{i}" for i in range(len(unet.up_blocks))]
    warped = [name for name in down if _attentions(unet, name)] + up[-2:]
    second = up[1:2]
    attentions = tuple(site for name in warped for site in _attentions(unet, name))
    return Sites(
        warp_resnets=tuple(site for name in warped for site in _resnets(unet, name)),
        warp_attentions=attentions,
        extend_attentions=attentions,
        inject_attentions=tuple(
            site
            for name in up[1:]
            for site in _attentions(unet, name)
            if not (name in second and site.startswith(f"{name}.attentions.0."))
        ),
        inject_resnets=tuple(site for name in second for site in _resnets(unet, name)[1:2]),
    )


def _resnets(unet: Any, block: str) -> list[str]:
    return [f"{block}.resnets.{i}" for i in range(len(unet.get_submodule(block).resnets))]


def _attentions(unet: Any, block: str) -> list[str]:
    modules = unet.get_submodule(block).named_modules(prefix=block)
    return [name for name, _ in modules if name.endswith(".attn1")]
