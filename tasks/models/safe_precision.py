"""Stages of the networks, computed again in float32 where half precision gives NaN or infinity."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from tasks.models.checkpoints import ModelIdentity, NetworkIdentity
from tasks.models.loading import loaded_model
from wave_ops.diffusion import StableDiffusion
from wave_ops.errors import NonFiniteError
from wave_ops.finite import traced

__all__ = ["compute_finite"]

_LOG = logging.getLogger(__name__)


def compute_finite(
    compute: Callable[[StableDiffusion], None],
    model: ModelIdentity,
    controlnets: Sequence[NetworkIdentity] = (),
    *,
    stage: str,
    device: str,
    dtype: str,
    compiled: bool = False,
) -> list[str]:
    """Compute a stage with a model; where it meets NaN or infinity, find the module, and use float32 once.

    The second run, in the same data type, checks what each module returns. All runs go on from what is stored.

    Args:
        compute: receives the loaded model; raises NonFiniteError before it stores a value that is not finite.
        model: from `resolve_model`.
        controlnets: from `resolve_controlnet`.
        stage: name of the stage, for messages.
        device: torch device of the networks.
        dtype: name of their torch dtype.
        compiled: whether the UNet's blocks are compiled.

    Returns:
        One note if it was computed in float32 instead, else none.

    Raises:
        NonFiniteError: with step and module, if float32 does not help or was used from the start.
    """
    try:
        with loaded_model(model, controlnets, device=device, dtype=dtype, compiled=compiled) as loaded:
            compute(loaded)
        return []
    except NonFiniteError as error:
        found = error
    reason = f"{found}, {_trace(compute, model, controlnets, device=device, dtype=dtype)}"
    if dtype == "float32":
        raise NonFiniteError(f"{stage} of the model {model.name} stops: {reason}") from found
    _LOG.warning("%s is computed again in float32: %s", stage, reason)
    try:
        with loaded_model(model, controlnets, device=device, dtype="float32") as loaded:
            compute(loaded)
    except NonFiniteError as error:
        where = _trace(compute, model, controlnets, device=device, dtype="float32")
        raise NonFiniteError(
            f"{stage} of the model {model.name} stops, in {dtype} and in float32: {error}, {where}"
        ) from error
    return [f"{stage} was computed in float32 from where {dtype} failed: {reason}."]


def _trace(
    compute: Callable[[StableDiffusion], None],
    model: ModelIdentity,
    controlnets: Sequence[NetworkIdentity],
    *,
    device: str,
    dtype: str,
) -> str:
    """Compute again, and return where it fails."""
    try:
        with loaded_model(model, controlnets, device=device, dtype=dtype) as loaded, traced(loaded):
            compute(loaded)
    except NonFiniteError as error:
        return f"since {error}"
    return "which no module returns a second time"
